"""Figures for Prometheus at a port of their own: of services whose own port isn't the operator's, or that have none."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from pydantic import Field
from pydantic_settings import BaseSettings

from core.contract import VERSION

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
TASK_BUCKETS: Final = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
"""Seconds."""

_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client, which reads no other setting, has the figures of several processes."""

disable_created_metrics()  # they would be a second series of each counter, which nobody asks for


class MetricsPort(BaseSettings):
    """`METRICS_PORT`: 0 is none. Plain HTTP and no token, so by default for this host only."""

    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535)


@contextmanager
def shared_figures(*, processes: int) -> Iterator[None]:
    """Figures that are made in it by processes that are forked in it are summed up. One process keeps its own."""
    if processes == 1:
        yield
        return
    folder, owner = tempfile.mkdtemp(prefix="inference-server-figures-"), os.getpid()
    os.environ[_FOLDER] = folder
    values.ValueClass = values.get_value_class()  # it has looked for the folder when it was imported
    try:
        yield
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder)


def forget_process(pid: int) -> None:
    """What a process that has ended still said of itself: what it has counted stays."""
    if _is_shared():
        mark_process_dead(pid)


def phases(registry: CollectorRegistry) -> Histogram:
    """Of which core knows some, and an agent the others."""
    return Histogram(
        "inference_server_task_phase_duration_seconds",
        "How long a phase of a task took: core has 'queued', from its post to its first claim; an agent has, of each"
        " attempt, 'ready', until the container could start, 'running', and 'output', until core had it",
        ["phase", "model"],
        buckets=TASK_BUCKETS,
        registry=registry,
    )


def note_build(registry: CollectorRegistry, service: str) -> None:
    """Which version a service is; on Linux also what the process takes, unless it is one of several."""
    if not _is_shared():
        ProcessCollector(registry=registry)
    build = Gauge(
        "inference_server_build_info",
        "Always 1; of which version a service is",
        ["service", "version"],
        registry=registry,
        multiprocess_mode="mostrecent",
    )
    build.labels(service, VERSION).set(1)


@asynccontextmanager
async def exposed(port: MetricsPort, registry: CollectorRegistry) -> AsyncIterator[None]:
    """`/metrics`, of this process or of all that share their figures. These share the port as well: any may answer."""
    if not port.metrics_port:
        yield
        return
    app = web.Application()
    app.router.add_get("/metrics", lambda _: _answer(registry))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, port.metrics_host, port.metrics_port, reuse_port=_is_shared()).start()
        except OSError as error:
            raise SystemExit(f"METRICS_HOST and METRICS_PORT must be an address that is free here: {error}") from error
        yield
    finally:
        await runner.cleanup()


async def _answer(registry: CollectorRegistry) -> web.Response:
    if _is_shared():
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})


def _is_shared() -> bool:
    return _FOLDER in os.environ
