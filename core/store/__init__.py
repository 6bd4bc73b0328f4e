"""Redis, the truth: tasks, models and zips. The only importer of redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.store.blobs import Blobs
from core.store.connection import Connection, connect
from core.store.models import Models
from core.store.tasks import Tasks


@dataclass(frozen=True)
class Store:
    """Everything that outlives a process. Each method raises Unavailable when Redis doesn't answer in time."""

    tasks: Tasks
    models: Models
    blobs: Blobs
    connection: Connection

    async def ping(self) -> None:
        await self.connection.ping()


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[Store]:
    """Returns at once; the first call connects."""
    connection = connect(url)
    try:
        yield Store(Tasks(connection), Models(connection), Blobs(connection), connection)
    finally:
        await connection.aclose(close_connection_pool=True)
