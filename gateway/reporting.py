"""What a gateway says of itself to core."""

import asyncio
from collections.abc import Callable

import structlog

from core.client import CoreClient
from core.contract.errors import ContractError
from core.contract.gateway import GatewayReport
from core.contract.presence import REPORT_SECONDS

log = structlog.get_logger()


async def report_for_ever(core: CoreClient, report: Callable[[], GatewayReport]) -> None:
    """A core of an older version doesn't ask."""
    while True:
        try:
            await core.report_gateway(report())
        except ContractError as error:
            log.info("gateway.unheard", error=str(error))
        await asyncio.sleep(REPORT_SECONDS)
