"""For whom the gateway calls core. What clients offer it passes on: core alone judges it."""

from typing import Final

from core.calls import Call, offered_in
from core.client import speak_for
from core.contract.errors import Forbidden
from core.contract.key import KEY

LONGEST_OFFER: Final = 4096
UNREADABLE: Final = "-"


async def guard(call: Call) -> None:
    """From here on each call to core is on behalf of this client. A browser that knows a key by itself sends it along
    with other sites' forms, too.
    """
    speak_for(offered_by(call), call.client_address)
    if "authorization" in call and call.is_from_elsewhere:
        raise Forbidden("Another site's page may not do this")


def offered_by(call: Call) -> str:
    """Its Authorization, if it may be one: it goes on as a header, and in bodies."""
    offered = call.header("authorization")
    return offered if offered.isprintable() and len(offered) <= LONGEST_OFFER else UNREADABLE


def key_of(call: Call) -> str:
    """What looks like a key: with it core is called where it must be the client's right alone that opens, and never the
    gateway's token. Empty: there is none.
    """
    key = offered_in(offered_by(call))
    return key if KEY.fullmatch(key) else ""
