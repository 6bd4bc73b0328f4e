"""The system at a glance: what core knows, and what Redis and RabbitMQ tell it now."""

from contextlib import suppress

from core.contract import VERSION
from core.contract.errors import Unavailable
from core.contract.http import Readiness
from core.contract.needs import ANY
from core.contract.options import Priority
from core.contract.overview import Memory, Overview, Queue
from core.dispatch import Dispatch
from core.store.connection import soon


def readiness(dispatch: Dispatch) -> Readiness:
    """From what is known of Redis and RabbitMQ: it asks nobody. While RabbitMQ is away tasks are taken, and rung later:
    to take core out of service then would turn a delay into a failure.
    """
    missing = {"redis": words} if (words := dispatch.store.pulse.missing) else {}
    degraded = (
        {"rabbitmq": f"{words}: tasks are taken, and start when it is back"}
        if (words := dispatch.broker.missing)
        else {}
    )
    return Readiness(ready=not missing, missing=missing, degraded=degraded)


async def overview(dispatch: Dispatch) -> Overview:
    """Whatever is away."""
    ready = readiness(dispatch).model_dump()
    pulse = dispatch.store.pulse
    redis = pulse.memory and Memory(
        used_bytes=pulse.memory.used,
        limit_bytes=pulse.memory.limit,
        reserve_bytes=int(pulse.memory.limit * dispatch.store.room.reserve_percent / 100),
    )
    found = Overview(version=VERSION, keys_required=dispatch.keys_required, redis=redis, **ready)
    needs = {ANY}
    with suppress(Unavailable):
        async with soon():
            needs = await dispatch.needs()
            waiting, oldest_seconds = await dispatch.store.waiting.figures(needs)
        found = found.model_copy(update={"waiting": waiting, "oldest_seconds": oldest_seconds})
    with suppress(Unavailable):
        settings = dispatch.broker.settings
        names = {settings.finished_job_queue, *(settings.gpu_queue_for(rank) for rank in Priority)}
        names |= {settings.queue_for(need, rank) for need in needs for rank in Priority}
        depths = {name: await dispatch.broker.depth(name) for name in sorted(names)}
        queues = {name: Queue(messages=depth.messages, consumers=depth.consumers) for name, depth in depths.items()}
        found = found.model_copy(update={"queues": queues})
    return found
