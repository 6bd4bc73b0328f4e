"""JSON bodies: those of agents and gateways, and what core says to agents."""

from pydantic import BaseModel

from core.contract.agent import AgentReport
from core.contract.codec import pack, unpack
from core.contract.errors import InvalidRequest
from core.contract.gateway import GatewayReport
from core.contract.http import Asked, ClaimRequest
from core.contract.live import Said
from core.contract.task import Failure
from core.routes.parameters import parse_body
from tests.fuzz.refusals import check_refusal

KINDS: tuple[type[BaseModel], ...] = (AgentReport, GatewayReport, ClaimRequest, Failure, Asked, Said)


def check(data: bytes) -> None:
    """Refused, or taken: then it can be kept, and said again, and is the same."""
    kind = KINDS[data[0] % len(KINDS)] if data else Asked
    try:
        body = parse_body(kind, data[1:])
    except InvalidRequest as refusal:
        check_refusal(refusal)
        return
    assert unpack(kind, pack(body)) == body
    assert parse_body(kind, body.model_dump_json()) == body
