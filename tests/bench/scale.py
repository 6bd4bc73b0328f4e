"""How much is measured: the whole, and the little that shows that the suite works."""

from dataclasses import dataclass

MiB = 2**20
GiB = 2**30


@dataclass(frozen=True)
class Scale:
    rounds: int = 5
    tasks: int = 20
    """One after the other, and in a queue."""
    queueing_seconds: int = 4
    """How long the first task of a queue runs, while the others are posted."""
    small_bytes: int = 64 * MiB
    large_bytes: int = GiB
    at_once: int = 8
    load_seconds: int = 5
    """How long requests are sent without a pause."""
    polled: int = 100
    """Tasks, at random."""
    waiting: int = 1000
    """Clients."""
    slow: int = 1000
    """Clients, too."""
    coming_seconds: float = 30.0
    """For them to come: longer than it takes to hang up on one that is slow."""
    ended: int = 100
    """Of the tasks that clients wait for."""
    listening_seconds: float = 30.0
    """Two heartbeats (core/live.py)."""
    idle_seconds: float = 30.0
    """Long enough for the sweep to look at each task that waits (core/reaper.py)."""
    queued: tuple[int, ...] = (10, 1_000, 100_000)
    finished: int = 10_000
    calls: int = 100
    """Of each kind, at each size of the queue."""


LITTLE = Scale(
    rounds=1,
    tasks=2,
    queueing_seconds=1,
    small_bytes=2 * MiB,
    large_bytes=4 * MiB,
    at_once=2,
    load_seconds=1,
    polled=10,
    waiting=10,
    slow=12,
    coming_seconds=0.5,
    ended=2,
    idle_seconds=0.5,
    listening_seconds=0.5,
    queued=(5, 20),
    finished=10,
    calls=5,
)
