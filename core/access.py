"""Who may call what of core: judged here, for all of gateways' clients, before a handler is reached.

A gateway opens core with core's token, and passes on what its client offered: a call with CLIENT_AUTHORIZATION is a
client's, one without it an operator's, an agent's or a gateway's own.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from core.calls import Call, Refusal, offered_in
from core.contract.errors import (
    ContractError,
    Forbidden,
    KeyRefused,
    TaskNotFound,
    Unauthorized,
    Unavailable,
    UploadNotFound,
)
from core.contract.http import CLIENT_ADDRESS, CLIENT_AUTHORIZATION, STATUS, Asked
from core.contract.key import ANYBODY, KEY, OPERATOR, Caller, Key, Scope
from core.dispatch import Dispatch
from core.token import CoreToken

UPLOADS: Final = "/api/uploads/"
LOOK_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Right:
    """What a client's call needs of its key."""

    scopes: frozenset[Scope]
    """One of them."""
    is_own: bool = False
    """The task or upload in the path must be the key's, unless the key is an admin's."""
    posts: int | None = None
    """What it counts for the key's posts_per_minute; 0: it only needs that there may be another one."""


_ANY: Final = frozenset(Scope)
_SUBMIT: Final = frozenset({Scope.SUBMIT, Scope.ADMIN})
_MODELS: Final = frozenset({Scope.MODELS, Scope.ADMIN})
_OWN: Final = Right(_SUBMIT, is_own=True)

RIGHTS: Final[Mapping[tuple[str, str], Right]] = {
    ("GET", "/api/admission"): Right(_ANY, posts=0),
    ("POST", "/api/tasks/"): Right(_SUBMIT, posts=1),
    ("PUT", "/api/tasks/<uid>"): Right(_SUBMIT, posts=1),
    ("GET", "/api/tasks/outputs/<uid>"): _OWN,
    ("GET", "/api/tasks/<uid>/status"): _OWN,
    ("GET", "/api/tasks/<uid>/events"): _OWN,
    ("GET", "/api/tasks/<uid>/log"): _OWN,
    ("POST", "/api/tasks/<uid>/cancel"): _OWN,
    ("POST", "/api/tasks/<uid>/retry"): _OWN,
    ("DELETE", "/api/tasks/<uid>"): _OWN,
    ("OPTIONS", "/api/uploads/"): Right(_SUBMIT),
    ("POST", "/api/uploads/"): Right(_SUBMIT, posts=1),
    ("GET", "/api/uploads/<uid>/admission"): _OWN,
    ("HEAD", "/api/uploads/<uid>"): _OWN,
    ("PATCH", "/api/uploads/<uid>"): _OWN,
    ("DELETE", "/api/uploads/<uid>"): _OWN,
    ("GET", "/api/models/"): Right(_ANY),
    ("GET", "/api/models/<uid>"): Right(_ANY),
    ("POST", "/api/models/"): Right(_MODELS, posts=1),
}
"""By method and rule, of all that clients may call. What isn't here is for operators, agents and gateways."""


def right_to(call: Call) -> Right:
    """HEAD is GET where it has no route of its own. Raises Forbidden."""
    right = RIGHTS.get((call.method, call.rule))
    if right is None and call.method == "HEAD":
        right = RIGHTS.get(("GET", call.rule))
    if right is None:
        raise Forbidden("This is for operators: it needs an admin's key, or core's token at core itself")
    return right


async def asking(dispatch: Dispatch, call: Call, asked: Asked) -> list[Caller | ContractError]:
    """Who asks for each task's output, or why they may not."""
    of = len(asked.uids)
    if not dispatch.keys_required:
        return [ANYBODY] * of
    offered = asked.offered if len(asked.offered) == of else [""] * of  # or by a gateway that doesn't know keys
    addresses = asked.addresses if len(asked.addresses) == of else [call.client_address] * of
    distinct = list(dict.fromkeys(offered))
    found = dict(zip(distinct, await _callers(dispatch, [offered_in(offer) for offer in distinct]), strict=True))
    askers = {offer: _asker(caller) for offer, caller in found.items()}
    call.refusals = [
        Refusal(_known(found[offer]), address, uid, STATUS[type(refusal)])
        for uid, offer, address in zip(asked.uids, offered, addresses, strict=True)
        if isinstance(refusal := askers[offer], ContractError)
    ]
    return [askers[offer] for offer in offered]


async def check_again(dispatch: Dispatch, call: Call) -> None:
    """Behind a wait: its caller's key may be over by now. Raises KeyRefused."""
    if call.caller.key_id and not await dispatch.store.api_keys.is_good(call.caller.key_id):
        call.headers.append((CLIENT_AUTHORIZATION, "refused"))
        raise KeyRefused("This key was revoked meanwhile, or has expired: ask an operator for another one")


async def while_good(dispatch: Dispatch, caller: Caller, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """An answer without an end ends soon after its caller's key does."""
    looked = time.monotonic()
    async for piece in pieces:
        if caller.key_id and time.monotonic() - looked >= LOOK_SECONDS:
            with suppress(Unavailable):
                if not await dispatch.store.api_keys.is_good(caller.key_id):
                    return
            looked = time.monotonic()
        yield piece


def _known(caller: Caller | KeyRefused) -> Caller:
    """For the audit log: whoever offers a key that is over is known by it, and may do nothing."""
    if isinstance(caller, KeyRefused):
        return Caller(caller.key_id, frozenset(), caller.name) if caller.key_id else ANYBODY
    return caller


def _asker(caller: Caller | KeyRefused) -> Caller | ContractError:
    if isinstance(caller, KeyRefused) or caller.scopes & _SUBMIT:
        return caller
    return _lacking(caller, _SUBMIT)


async def _callers(dispatch: Dispatch, offers: Sequence[str]) -> list[Caller | KeyRefused]:
    """Whose the keys are, in one trip."""
    if not dispatch.keys_required:
        return [KeyRefused("API keys aren't in use here")] * len(offers)
    found = await dispatch.store.api_keys.verified(offers)
    return [_caller(offer, key) for offer, key in zip(offers, found, strict=True)]


def _caller(offer: str, key: Key | None) -> Caller | KeyRefused:
    if key is None:
        return KeyRefused(
            "This is no key here: look whether it is whole, or ask an operator for one" if offer else None
        )
    if key.is_over:
        return KeyRefused(
            f"This key {'was revoked' if key.revoked else 'has expired'}: ask an operator for another one",
            key_id=key.id,
            name=key.name,
        )
    return Caller.of(key)


def _lacking(caller: Caller, needed: frozenset[Scope]) -> Forbidden:
    return Forbidden(f"This key is for {_listed(caller.scopes)}, and this needs one for {_listed(needed, ' or ')}")


def _listed(scopes: Set[Scope], between: str = " and ") -> str:
    return between.join(scope for scope in Scope if scope in scopes)


@dataclass(frozen=True)
class Access:
    """`admit` says who calls, or raises why the call may not be answered."""

    dispatch: Dispatch
    token: CoreToken
    without_store: frozenset[str]
    """Paths that are answered while Redis is away."""

    async def admit(self, call: Call) -> None:
        offered = offered_in(call.header("authorization"))
        is_token, is_clients = self.token.opens(offered), CLIENT_AUTHORIZATION in call
        # With an admin's key in place of the token a gateway would open everything to its clients.
        if not is_token and (is_clients or not KEY.fullmatch(offered)):
            raise Unauthorized
        if call.is_from_elsewhere:
            raise Forbidden("Another site's page may not do this")
        if call.path not in self.without_store:
            self.dispatch.store.pulse.check()
        call.client_address = call.header(CLIENT_ADDRESS, call.client_address)
        if not is_token:
            await self._admit_key(call, offered, is_direct=True)
        elif not is_clients:
            call.caller = OPERATOR
        elif self.dispatch.keys_required:
            await self._admit_key(call, offered_in(call.header(CLIENT_AUTHORIZATION)), is_direct=False)
        else:
            right_to(call)

    async def _admit_key(self, call: Call, offered: str, *, is_direct: bool) -> None:
        """A key that opens core itself opens there what it does through a gateway; an admin's everything."""
        [caller] = await _callers(self.dispatch, [offered])
        call.caller = _known(caller)
        if isinstance(caller, KeyRefused):
            call.headers.append((CLIENT_AUTHORIZATION, "refused"))
            raise caller
        if is_direct and caller.is_admin:
            return
        right = right_to(call)
        if not caller.scopes & right.scopes:
            raise _lacking(caller, right.scopes)
        if right.is_own:
            await self._check_owner(call)
        if right.posts is not None:
            await self.dispatch.store.quotas.pace(caller, right.posts)

    async def _check_owner(self, call: Call) -> None:
        """What isn't the caller's is not there."""
        uid, store = call.parts["uid"], self.dispatch.store
        if call.rule.startswith(UPLOADS):
            if not call.caller.may_see(await store.uploads.owner(uid)):
                raise UploadNotFound
        elif not call.caller.may_see(await store.tasks.owner(uid)):
            raise TaskNotFound
