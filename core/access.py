"""Who may call what of core: judged here, for all of gateways' clients, before a handler is reached.

A gateway opens core with core's token, and passes on what its client offered: a call with CLIENT_AUTHORIZATION is a
client's, one without it an operator's, an agent's or a gateway's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from werkzeug.datastructures import Authorization

from core.calls import Call
from core.client import CoreToken
from core.contract.errors import Forbidden, Unauthorized
from core.contract.http import CLIENT_ADDRESS, CLIENT_AUTHORIZATION
from core.contract.key import ANYBODY, OPERATOR, Scope
from core.dispatch import Dispatch


@dataclass(frozen=True)
class Right:
    """What a client's call needs of its key, while keys are required."""

    scopes: frozenset[Scope]
    """One of them."""
    is_own: bool = False
    """The task or upload in the path must be the key's, unless the key is an admin's."""
    is_post: bool = False
    """It counts for the key's posts_per_minute."""

    @property
    def is_operators(self) -> bool:
        """While keys aren't required, no client has it."""
        return self.scopes == {Scope.ADMIN}


_ANY: Final = Right(frozenset(Scope))
_SUBMIT: Final = Right(frozenset({Scope.SUBMIT, Scope.ADMIN}))
_OWN: Final = Right(_SUBMIT.scopes, is_own=True)
_POST: Final = Right(_SUBMIT.scopes, is_post=True)
_ADMIN: Final = Right(frozenset({Scope.ADMIN}))

RIGHTS: Final[Mapping[tuple[str, str], Right]] = {
    ("GET", "/api/admission"): Right(frozenset(Scope)),
    ("POST", "/api/tasks/"): _POST,
    ("PUT", "/api/tasks/<uid>"): _POST,
    ("GET", "/api/tasks/outputs/<uid>"): _OWN,
    ("GET", "/api/tasks/<uid>/status"): _OWN,
    ("GET", "/api/tasks/<uid>/events"): _OWN,
    ("GET", "/api/tasks/<uid>/log"): _OWN,
    ("POST", "/api/tasks/<uid>/cancel"): _OWN,
    ("POST", "/api/tasks/<uid>/retry"): _OWN,
    ("DELETE", "/api/tasks/<uid>"): _OWN,
    ("OPTIONS", "/api/uploads/"): _SUBMIT,
    ("POST", "/api/uploads/"): _POST,
    ("GET", "/api/uploads/<uid>/admission"): _OWN,
    ("HEAD", "/api/uploads/<uid>"): _OWN,
    ("PATCH", "/api/uploads/<uid>"): _OWN,
    ("DELETE", "/api/uploads/<uid>"): _OWN,
    ("GET", "/api/models/"): _ANY,
    ("GET", "/api/models/<uid>"): _ANY,
    ("POST", "/api/models/"): Right(frozenset({Scope.MODELS, Scope.ADMIN}), is_post=True),
}
"""By method and rule, of all that clients may call. What isn't here no client may, keys or not."""


def right_to(call: Call) -> Right | None:
    """HEAD is GET where it has no route of its own."""
    right = RIGHTS.get((call.method, call.rule))
    return RIGHTS.get(("GET", call.rule)) if right is None and call.method == "HEAD" else right


def offered_in(authorization: str) -> str:
    """A token or a key: of Bearer, or the password of Basic, whatever the user. Empty: none."""
    found = Authorization.from_header(authorization)
    return (found.token or found.password or "") if found else ""


@dataclass(frozen=True)
class Access:
    """`admit` says who calls, or raises why the call may not be answered."""

    dispatch: Dispatch
    token: CoreToken
    without_store: frozenset[str]
    """Paths that are answered while Redis is away."""

    async def admit(self, call: Call) -> None:
        if not self.token.opens(offered_in(call.header("authorization"))):
            raise Unauthorized
        if call.is_from_elsewhere:
            raise Forbidden("Another site's page may not do this")
        if call.path not in self.without_store:
            self.dispatch.store.pulse.check()
        if CLIENT_AUTHORIZATION in call:
            call.client_address = call.header(CLIENT_ADDRESS)
            call.caller = ANYBODY
            right = right_to(call)
            if right is None or right.is_operators:
                raise Forbidden("This is for operators: call core, with its token")
        else:
            call.caller = OPERATOR
