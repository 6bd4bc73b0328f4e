"""Agents in Redis: what each said of itself last."""

from datetime import UTC, datetime, timedelta
from typing import Final

from core.contract import codec
from core.contract.agent import Agent, AgentReport
from core.store import keys
from core.store.connection import Connection

FORGOTTEN_AFTER: Final = timedelta(days=1)


class Agents:
    """A handful, so that reading them all is a small thing."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    async def note(self, report: AgentReport) -> None:
        agent = Agent(**report.model_dump(), seen=datetime.now(UTC))
        await self._redis.note("HSET", keys.AGENTS, agent.name, codec.pack(agent))

    async def all(self) -> list[Agent]:
        """By name. Who has said nothing for a day is forgotten."""
        packed = await self._redis.ask("HVALS", keys.AGENTS)
        agents = sorted((codec.unpack(Agent, record) for record in packed), key=lambda agent: agent.name)
        before = datetime.now(UTC) - FORGOTTEN_AFTER
        if gone := [agent.name for agent in agents if agent.seen < before]:
            await self._redis.call("HDEL", keys.AGENTS, *gone)
        return [agent for agent in agents if agent.seen >= before]
