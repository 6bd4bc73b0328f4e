"""The names and the declaration of the queues.

The body of a message is the raw uid. Version 1's consumers declare the queues durable and without arguments; any
argument of ours would refuse theirs, so that limits and queue types are the server's configuration.
"""

from typing import Final, TypedDict

from core.contract.needs import Need
from core.contract.options import Priority

UNFINISHED: Final = "unfinished_job_queue"
FINISHED: Final = "finished_job_queue"
FINISHED_EXPIRE_MS: Final = 24 * 3600 * 1000
"""Nobody need read the finished queue: what lies there for a day goes."""


class Declaration(TypedDict):
    durable: bool
    exclusive: bool
    auto_delete: bool


DECLARATION: Final[Declaration] = {"durable": True, "exclusive": False, "auto_delete": False}


IN_TURN: Final = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
"""Agents look for messages in this order."""


def for_gpus(unfinished: str, priority: Priority = Priority.NORMAL) -> str:
    """Where tasks wait that a CPU-only agent met and must not run. Only agents with a GPU listen there."""
    return _of(priority, f"{unfinished}.gpu")


def for_need(unfinished: str, need: Need, priority: Priority = Priority.NORMAL) -> str:
    """Where tasks of a need are rung. What not just any GPU meets has a queue of its own, on which only those agents
    listen that can serve it.
    """
    return _of(priority, f"{unfinished}.gpu.{need.name}" if need.name else unfinished)


def _of(priority: Priority, queue: str) -> str:
    """Queues of their own, because RabbitMQ's priorities are an argument of the declaration, or only two."""
    return queue if priority is Priority.NORMAL else f"{queue}.{priority}"
