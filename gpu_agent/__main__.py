"""`python -m gpu_agent` takes tasks until SIGTERM."""

import asyncio
import fcntl
import signal
from contextlib import AbstractAsyncContextManager, suppress

import structlog

from core.amqp import Broker
from core.client import CoreClient
from core.contract.errors import Unauthorized
from core.exposition import exposed, note_build
from core.observe import set_up_logs
from gpu_agent import metrics
from gpu_agent.agent import Agent
from gpu_agent.engine import Engine
from gpu_agent.gpus import DriverHangs, Gpus
from gpu_agent.host import answering
from gpu_agent.pool import Pool, Slot
from gpu_agent.settings import Settings

log = structlog.get_logger()


async def main() -> None:
    settings = Settings()
    settings.work_dir.mkdir(parents=True, exist_ok=True)
    with (settings.work_dir / f"{settings.agent_name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(
                f"An agent named {settings.agent_name} runs on this host: set another AGENT_NAME"
            ) from None
        await _run(settings)


async def _run(settings: Settings) -> None:
    gpus = await _gpus(settings)
    slots = [Slot(gpu.uuid, gpu) for gpu in gpus.all]
    pool = Pool(slots or (Slot(f"cpu-{number}") for number in range(1, settings.cpu_slots + 1)))
    note_build(metrics.FIGURES, "gpu_agent")
    metrics.note_slots(len(pool.slots), lambda: pool.working)
    async with (
        exposed(settings, metrics.FIGURES),
        CoreClient.open(settings) as core,
        Broker.open(settings) as broker,
        _engine(settings, slots=len(pool.slots)) as engine,
    ):
        agent = Agent(settings, gpus, pool, core, broker, engine)
        running = asyncio.create_task(agent.run(), name="agent")
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            try:
                return running.result()
            except* Unauthorized:
                raise SystemExit("Core refuses this agent: give it core's own CORE_TOKEN") from None
        await agent.drain(settings.drain_seconds)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        log.info("agent.stopped")


def _engine(settings: Settings, *, slots: int) -> AbstractAsyncContextManager[Engine]:
    return Engine.open(
        settings.docker_host,
        slots=slots,
        pull_stall_seconds=settings.pull_stall_seconds,
        gpu_devices=settings.gpu_devices,
    )


async def _gpus(settings: Settings) -> Gpus:
    """Those of this host's driver; an engine that is elsewhere is asked for its own."""
    discovered: tuple[str, ...] = ()
    if not settings.docker_host.startswith("unix:"):
        async with _engine(settings, slots=1) as engine:
            await answering(engine)
            discovered = engine.gpus
    try:
        return await Gpus.of(settings, discovered=discovered)
    except DriverHangs as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    set_up_logs("gpu_agent")
    asyncio.run(main())
