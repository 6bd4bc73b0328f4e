"""Redis, the truth: tasks, models and zips. The only importer of redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.contract.agent import Agent
from core.contract.gateway import Gateway
from core.retention import HOUR_SECONDS, UPLOADS_HOURS
from core.store import keys
from core.store.api_keys import ApiKeys
from core.store.audit import AuditTrail
from core.store.blobs import Blobs
from core.store.connection import Connection, connected
from core.store.erasures import Erasures
from core.store.logs import Logs
from core.store.models import Models
from core.store.pulse import Pulse
from core.store.quotas import Quotas
from core.store.reported import Reported
from core.store.room import Room
from core.store.submissions import Submissions
from core.store.tasks import Tasks
from core.store.uploads import Uploads
from core.store.waiting import Waiting
from core.store.webhooks import Webhooks


@dataclass(frozen=True)
class Store:
    """Everything that outlives a process. Each method raises Unavailable when Redis doesn't answer in time."""

    tasks: Tasks
    waiting: Waiting
    webhooks: Webhooks
    models: Models
    agents: Reported[Agent]
    gateways: Reported[Gateway]
    api_keys: ApiKeys
    quotas: Quotas
    blobs: Blobs
    logs: Logs
    room: Room
    submissions: Submissions
    uploads: Uploads
    erasures: Erasures
    audit: AuditTrail
    pulse: Pulse
    connection: Connection


@asynccontextmanager
async def open_store(
    url: str, *, reserve_percent: float, keep_uploads_hours: float = UPLOADS_HOURS
) -> AsyncIterator[Store]:
    """Returns within seconds, whether Redis answers or not."""
    # The pulse has a connection of its own: it mustn't wait behind transfers for one.
    async with connected(url) as connection, connected(url) as own:
        pulse = Pulse(own, reserve_percent)
        async with pulse.beating():
            room = Room(connection, reserve_percent)
            tasks = Tasks(connection)
            blobs = Blobs(connection)
            yield Store(
                tasks,
                Waiting(connection),
                Webhooks(connection, tasks),
                Models(connection),
                Reported(connection, keys.AGENTS, Agent),
                Reported(connection, keys.GATEWAYS, Gateway),
                ApiKeys(connection),
                Quotas(connection),
                blobs,
                Logs(connection, reserve_percent),
                room,
                Submissions(connection, room),
                Uploads(connection, blobs, room, keep_seconds=keep_uploads_hours * HOUR_SECONDS),
                Erasures(connection),
                AuditTrail(connection),
                pulse,
                connection,
            )
            await tasks.noted()
