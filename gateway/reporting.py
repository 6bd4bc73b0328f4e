"""What a gateway says of itself: to core, and to Prometheus."""

import _ssl
import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Gauge

from core.client import CoreClient
from core.contract.errors import ContractError
from core.contract.gateway import GatewayReport
from core.contract.presence import REPORT_SECONDS

log = structlog.get_logger()


def expiry(certificate: Path) -> datetime:
    """Of the file's first certificate, which is the server's own. Python has no other way that needs no library."""
    fields = _ssl._test_decode_cert(certificate)  # type: ignore[attr-defined]
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(fields["notAfter"])), UTC)


def note_expiry(registry: CollectorRegistry, expires: datetime) -> None:
    gauge = Gauge(
        "inference_server_certificate_expiry_timestamp_seconds",
        "When the certificate expires that the gateway serves; it has read it when it started",
        registry=registry,
        multiprocess_mode="mostrecent",
    )
    gauge.set(expires.timestamp())


async def report_for_ever(core: CoreClient, report: GatewayReport) -> None:
    """A core of an older version doesn't ask."""
    while True:
        try:
            await core.report_gateway(report)
        except ContractError as error:
            log.info("gateway.unheard", error=str(error))
        await asyncio.sleep(REPORT_SECONDS)
