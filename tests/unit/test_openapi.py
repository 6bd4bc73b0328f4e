"""The documents of gateway and core: nothing is missing, nothing is made up."""

import re
from typing import Any

import pytest

from core.app import make_app as make_core
from core.audit import Audit
from core.client import CoreClient
from core.contract.model import Limits, ModelSpec
from core.live import Live
from core.openapi.document import OPERATIONS, document
from core.openapi.operation import At
from core.serving import App
from core.token import CoreToken
from gateway.app import make_app as make_gateway

PAGES = re.compile(r"/docs(/.*)?|/page/.*|/dashboard|/openapi\.json")
"""What browsers load; the document is of calls."""

# Nothing is asked of what they stand on.
NOTHING: Any = None
APPS = {
    At.GATEWAY: make_gateway(CoreClient(NOTHING), allow_public_post_model=True),
    At.CORE: make_core(NOTHING, Live(NOTHING), CoreToken(core_token="-"), Audit(NOTHING, kept=0)),
}
BOTH = pytest.mark.parametrize("at", APPS, ids=["gateway", "core"])


def _routes(app: App) -> dict[tuple[str, str], str]:
    """Method and path → endpoint. HEAD is answered wherever GET is, OPTIONS by the framework unless it stands alone."""
    found = {}
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        methods = rule.methods or set()
        for method in methods if len(methods) == 1 else methods - {"HEAD", "OPTIONS"}:
            if not PAGES.fullmatch(path):
                found[method.lower(), path] = rule.endpoint
    return found


def _operations(at: At) -> dict[tuple[str, str], dict[str, Any]]:
    paths = document("", at)["paths"]
    return {(method, path): about for path, methods in paths.items() for method, about in methods.items()}


@BOTH
def test_the_routes_are_those_of_the_document(at: At) -> None:
    """Each call is written down, and each that is written down is there."""
    assert _operations(at).keys() == _routes(APPS[at]).keys()


@BOTH
def test_refusals_are_told_in_the_form_of_the_document(at: At) -> None:
    """Version 1's calls in its own, the others as problem details."""
    written = {
        (operation.method, operation.path)
        for operations in OPERATIONS.values()
        for operation in operations
        if at in operation.at and operation.tells_problems
    }
    app = APPS[at]
    assert written == {call for call, endpoint in _routes(app).items() if endpoint in app.telling_problems}


@BOTH
def test_operations_have_names_of_their_own(at: At) -> None:
    """Generated clients name functions after them."""
    names = [about["operationId"] for about in _operations(at).values()]
    assert len(names) == len(set(names))


def test_operators_find_their_parameters() -> None:
    """The public finds only those that count for it."""
    found = [{parameter["name"] for parameter in _operations(at)["post", "/api/models/"]["parameters"]} for at in APPS]
    assert found == [set(ModelSpec.model_fields), {*ModelSpec.model_fields, *Limits.model_fields}]


@BOTH
def test_numbers_in_queries_have_an_upper_end(at: At) -> None:
    """One that no calendar and no record has room for would break those who reckon with it later."""
    endless = {
        parameter["name"]
        for about in _operations(at).values()
        for parameter in about.get("parameters", ())
        if parameter["in"] == "query"
        and parameter["schema"].get("type") in ("integer", "number")
        and not parameter["schema"].keys() & {"maximum", "exclusiveMaximum", "enum"}
    }
    assert endless <= {"wait"}  # which is cut down to what there is
