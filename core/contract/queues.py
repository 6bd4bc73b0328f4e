"""The names and the declaration of the queues.

The body of a message is the raw uid. Version 1's consumers declare the queues durable and without arguments; any
argument of ours would refuse theirs, so that limits and queue types are the server's configuration.
"""

from typing import Final, TypedDict

from core.contract.needs import Need

UNFINISHED: Final = "unfinished_job_queue"
FINISHED: Final = "finished_job_queue"
FINISHED_EXPIRE_MS: Final = 24 * 3600 * 1000
"""Nobody need read the finished queue: what lies there for a day goes."""


class Declaration(TypedDict):
    durable: bool
    exclusive: bool
    auto_delete: bool


DECLARATION: Final[Declaration] = {"durable": True, "exclusive": False, "auto_delete": False}


def for_gpus(unfinished: str) -> str:
    """Where tasks wait that a CPU-only agent met and must not run. Only agents with a GPU listen there."""
    return f"{unfinished}.gpu"


def for_need(unfinished: str, need: Need) -> str:
    """Where tasks of a need are rung. What not just any GPU meets has a queue of its own, on which only those agents
    listen that can serve it.
    """
    return f"{for_gpus(unfinished)}.{need.name}" if need.name else unfinished
