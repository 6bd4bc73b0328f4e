"""Agents in Redis: what each said of itself last."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from core.contract import codec
from core.contract.agent import Agent, AgentReport
from core.store import keys
from core.store.connection import Connection

log = structlog.get_logger()

FORGOTTEN_AFTER: Final = timedelta(days=1)


class Agents:
    """A handful, so that reading them all is a small thing."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    async def note(self, report: AgentReport) -> None:
        """Who has said nothing for a day is forgotten."""
        agent = Agent(**report.model_dump(), seen=datetime.now(UTC))
        await self._redis.note("HSET", keys.AGENTS, agent.name, codec.pack(agent))
        if gone := [agent.name for agent in await self._every() if _is_gone(agent)]:
            await self._redis.call("HDEL", keys.AGENTS, *gone)

    async def all(self) -> list[Agent]:
        """By name, those who have said something within a day."""
        return sorted((agent for agent in await self._every() if not _is_gone(agent)), key=lambda agent: agent.name)

    async def _every(self) -> list[Agent]:
        """A record that can't be read is a later version's: its agent is there for the cores of that version."""
        packed: Mapping[bytes, bytes] = await self._redis.ask("HGETALL", keys.AGENTS)
        agents = []
        for name, record in packed.items():
            try:
                agents.append(codec.unpack(Agent, record))
            except ValueError as error:
                log.warning("agent.unreadable", agent=name.decode(), error=repr(error))
        return agents


def _is_gone(agent: Agent) -> bool:
    return agent.seen < datetime.now(UTC) - FORGOTTEN_AFTER
