"""HTTP Strict Transport Security: browsers that were here once come by https alone (RFC 6797)."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from hypercorn.typing import HTTPScope

LOCAL: Final = (b"localhost", b".localhost")
"""Developers' name for everything: a browser would want TLS of whatever else they run, at any port."""


def standing(days: int) -> Callable[[HTTPScope], Sequence[tuple[bytes, bytes]]]:
    """The header for as many days, for `App.standing`. Other hosts below the same name aren't ours to speak for."""
    if not days:
        return lambda _: ()
    seconds = timedelta(days=days) // timedelta(seconds=1)
    strict = ((b"strict-transport-security", f"max-age={seconds}".encode()),)

    def of(scope: HTTPScope) -> Sequence[tuple[bytes, bytes]]:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        name, _, _ = host.lower().partition(b":")
        return () if name == LOCAL[0] or name.endswith(LOCAL[1]) else strict

    return of
