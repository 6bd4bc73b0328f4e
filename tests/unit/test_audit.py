"""What is worth an entry in the audit log."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from core import audit as audits
from core.audit import AUDITED, REFUSED_BY_ADDRESS, REFUSED_IN_ALL, Audit, Window
from core.calls import Call, Refusal
from core.contract.key import ANYBODY, OPERATOR
from core.openapi.document import OPERATIONS

# Nothing is stored, received or sent.
NOTHING: Any = None
READ, DELETED = ("GET", "/api/tasks/outputs/<uid>"), ("DELETE", "/api/tasks/<uid>")


@pytest.fixture
def audit() -> Audit:
    return Audit(NOTHING, kept=0)


def _noted(audit: Audit, method: str, rule: str, status: int, *, address: str = "192.0.2.1", about: str = "u") -> int:
    """How many lines there are of a call."""
    with capture_logs() as logs:
        audit.note(_call(method, rule, address=address, about=about), status)
    return len(logs)


def _call(method: str, rule: str, *, address: str, about: str) -> Call:
    scope: Any = {"method": method, "path": "/", "headers": [], "query_string": b"", "client": (address, 1)}
    call = Call(scope, NOTHING, NOTHING)
    call.rule, call.parts, call.caller = rule, {"uid": about}, OPERATOR
    return call


def test_every_audited_call_is_written_down() -> None:
    """A route that is renamed takes its audit along."""
    calls = {(operation.method.upper(), operation.path) for part in OPERATIONS.values() for operation in part}
    audited = {(method, rule.replace("<", "{").replace(">", "}")) for method, rule in AUDITED}
    assert audited <= calls


@pytest.mark.parametrize("status", [304, 416, 499, 551, 553, 554, 503])
def test_who_got_no_data_has_not_read(audit: Audit, status: int) -> None:
    assert _noted(audit, *READ, status) == 0


def test_one_reader_is_noted_once(audit: Audit) -> None:
    """However many ranges it takes; another task or another address is another matter."""
    assert [_noted(audit, *READ, status) for status in (200, 206, 206)] == [1, 0, 0]
    assert _noted(audit, *READ, 206, about="other") == 1
    assert _noted(audit, *READ, 206, address="192.0.2.2") == 1


def test_one_reader_is_noted_again_later(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "WINDOW_SECONDS", 0.0)
    assert [_noted(audit, *READ, 200) for _ in range(2)] == [1, 1]


@pytest.mark.parametrize(
    "uid", ["a b", "../x", "x" * 65, "a\nb", f"isk_{'0' * 12}_{'s' * 43}", f"{'0' * 12}_{'s' * 43}"]
)
def test_nobody_is_quoted(audit: Audit, uid: str) -> None:
    """Neither what stands in a path for a uid, nor an endless address."""
    with capture_logs() as logs:
        audit.note(_call(*DELETED, address="9" * 10_000, about=uid), 404)
    [line] = logs
    assert "about" not in line
    assert len(line["address"]) < 100


def test_a_call_that_there_is_not_is_not_quoted(audit: Audit) -> None:
    """Not even its method."""
    with capture_logs() as logs:
        audit.note(_call("WORDS", "", address="192.0.2.1", about="1"), 401)
    assert [line["what"] for line in logs] == ["unknown"]


def test_changes_are_all_noted(audit: Audit) -> None:
    assert sum(_noted(audit, *DELETED, 200) for _ in range(3 * REFUSED_BY_ADDRESS)) == 3 * REFUSED_BY_ADDRESS


@pytest.mark.parametrize("status", [401, 403, 404, 409, 499, 503])
def test_what_comes_to_nothing_is_noted_a_few_times(audit: Audit, status: int) -> None:
    """Of each address, and of all of them."""
    assert sum(_noted(audit, *DELETED, status) for _ in range(3 * REFUSED_BY_ADDRESS)) == REFUSED_BY_ADDRESS
    many = (_noted(audit, *DELETED, status, address=f"2001:db8::{number:x}") for number in range(2 * REFUSED_IN_ALL))
    assert sum(many) < REFUSED_IN_ALL


def test_counts_take_a_bounded_room() -> None:
    window = Window()
    for number in range(3 * audits.WAITING):
        window.count(number)
    assert len(window._counts) <= audits.WAITING


@pytest.mark.parametrize("rule", ["cancel", "retry"])
def test_the_same_again_is_noted_once(audit: Audit, rule: str) -> None:
    """It costs its caller nothing; of another task it is another matter."""
    call = ("POST", f"/api/tasks/<uid>/{rule}")
    assert sum(_noted(audit, *call, 200) for _ in range(30)) == 1
    assert _noted(audit, *call, 200, about="other") == 1


def test_who_is_refused_among_many_is_noted(audit: Audit) -> None:
    """A gateway asks for all its clients at once, and is answered itself."""
    call = _call("POST", "/api/tasks/outcomes", address="192.0.2.1", about="")
    call.refusals = [Refusal(ANYBODY, f"192.0.2.{number // 100}", f"u{number}", 401) for number in range(300)]
    with capture_logs() as logs:
        audit.note(call, 200)
    assert len(logs) == 3 * REFUSED_BY_ADDRESS
    expected = {"event": "audit.access.refused", "who": "anybody", "address": "192.0.2.0", "about": "u0", "status": 401}
    assert expected.items() <= logs[0].items()
