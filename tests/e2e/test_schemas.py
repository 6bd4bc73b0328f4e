"""Both APIs do what their documents say, whatever they are asked. Schemathesis makes up the calls: first those at the
edges of each parameter, then others; always the same ones, so that what fails fails again.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import strategies
from schemathesis import Case, openapi
from schemathesis.checks import negative_data_rejection
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.schemas import OpenApiSchema

from core import tus
from core.contract.task import UID
from core.openapi.document import OPERATIONS, document
from core.openapi.operation import ZIP, At
from core.store import keys
from demo.stack import Stack
from tests.direct import redis_at
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker, eventually_settled
from tests.leaks import Leaks

EXAMPLES = 5
"""For each operation, beside those at the edges."""

LONGEST_WAIT_SECONDS = 0.2

STATUSES = ["2xx", "3xx", "4xx", "507", "550", "551", "552", "553", "554"]
"""What may be answered while no part is away; of these each operation has its own."""

REFUSED = ["400", "403", "404", "409", "410", "413", "416", "422", "5xx"]
"""What a schema can't say: which tasks there are, in which state, and which parameters go together."""

CONFIG: dict[str, Any] = {
    "request-timeout": 5,
    "generation": {"max-examples": EXAMPLES, "deterministic": True},
    "checks": {
        "not_a_server_error": {"expected-statuses": STATUSES},
        "missing_required_header": {"expected-statuses": ["400", "412", "415", "422"]},
        "positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", *REFUSED]},
    },
    # Others are known at most paths: what follows /api/tasks/ may be a uid.
    "phases": {"coverage": {"unexpected-methods": ["TRACE"]}},
}

UNCHECKED = [
    negative_data_rejection,  # version 1's callers send True and 1, and parameters of their own: we are lenient
]

for media_type in (ZIP, tus.BYTES_TYPE):
    openapi.media_type(media_type, strategies.just(INPUT))


def _schema(at: At) -> OpenApiSchema:
    return openapi.from_dict(document("", at), config=SchemathesisConfig.from_dict(CONFIG))


GATEWAY = _schema(At.GATEWAY)
RELAYED = [operation.name for part in OPERATIONS.values() for operation in part if operation.at is At.BOTH]
CORE = (
    _schema(At.CORE)
    .exclude(operation_id=RELAYED)  # core answers them through the gateway, where they are tried
    .exclude(operation_id="hear_endings")  # it has no end
)


@pytest.fixture(autouse=True, scope="module")
def leaks(all_leaks: Leaks, core: Api, stack: Stack, copying: str, waiting: str) -> Iterator[Leaks]:
    """As after any test, but once for all of these; models and agents that were made up go as well, those of the
    session stay.
    """
    agents = {agent["name"] for agent in core.get("/api/agents/").json()}
    models = {model["uid"] for model in core.get("/api/models/").json()}
    yield all_leaks
    for task in core.get("/api/tasks/").json():
        assert core.delete(task["uid"]).status_code == 200
    with redis_at(stack.redis_url) as redis:
        for agent in core.get("/api/agents/").json():
            if agent["name"] not in agents:
                redis.hdel(keys.AGENTS, agent["name"])
    for model in core.get("/api/models/").json():
        if model["uid"] not in models:
            core.call("DELETE", f"/api/models/{model['uid']}").raise_for_status()
    all_leaks.let_time_pass()
    eventually_settled(all_leaks)


@pytest.fixture(scope="module")
def real(api: Api, core: Api, copying: str, waiting: str, model: ModelMaker) -> Callable[[Case[Any]], None]:
    """Makes about every other case one of a task or a model that is there, and none wait for long."""
    ended = [api.post(copying, INPUT), api.post(model("exit 3"), INPUT)]
    for uid in ended:
        api.wait_for_end(uid)
    spare = core.get(f"/api/models/human_readable_id/{model('exit 0')}").json()["uid"]

    def made_real(case: Case[Any]) -> None:
        uid = case.path_parameters.get("uid", "")
        if UID.fullmatch(uid) and case.path.startswith("/api/models/"):
            case.path_parameters["uid"] = spare
        elif UID.fullmatch(uid) and len(uid) % 2 == 0:
            of_old = case.path.endswith("/events") or (case.method == "GET" and len(uid) % 4)  # they end with the task
            case.path_parameters["uid"] = ended[len(uid) // 4 % 2] if of_old else api.post(waiting, INPUT)
        if len(case.query.get("model_human_readable_id", " ")) % 2 == 0:
            case.query["model_human_readable_id"] = waiting
        if re.fullmatch(r"[\d.e+]+", str(case.query.get("wait"))):
            case.query["wait"] = min(float(case.query["wait"]), LONGEST_WAIT_SECONDS)
        if "Prefer" in case.headers:
            case.headers["Prefer"] = "wait=0"

    return made_real


@GATEWAY.parametrize()
def test_gateway(case: Case[Any], stack: Stack, api: Api, real: Callable[[Case[Any]], None]) -> None:
    """Statuses, types, headers and bodies are those of the document."""
    real(case)
    answer = case.call_and_validate(
        base_url=api.url,
        session=api.session,
        verify=str(stack.certificates.ca_cert),
        excluded_checks=UNCHECKED,
    )
    for upload in answer.headers.get("location", ()) if answer.status_code == 201 else ():
        api.call("DELETE", upload, headers={tus.RESUMABLE: tus.VERSION})


@CORE.parametrize()
def test_core(case: Case[Any], core: Api, real: Callable[[Case[Any]], None]) -> None:
    """As at the gateway; without the token nothing is told but that it is missing."""
    real(case)
    case.call_and_validate(
        base_url=core.url, session=core.session, headers=dict(core.session.headers), excluded_checks=UNCHECKED
    )


def test_the_documents_are_served(api: Api, core: Api) -> None:
    """What was checked is what clients are given."""
    assert api.get("/openapi.json").json() == document("InferenceServer", At.GATEWAY)
    assert core.get("/openapi.json").json() == document("InferenceServer's core", At.CORE)
