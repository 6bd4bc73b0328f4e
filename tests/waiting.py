"""Waiting for conditions instead of sleeping and hoping."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

POLL_SECONDS = 0.02
Value = TypeVar("Value")


def eventually(condition: Callable[[], Value], *, within_seconds: float = 30.0) -> Value:
    """The condition's first true value. The bound only ends a test that would fail anyway."""
    deadline = time.monotonic() + within_seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within_seconds} seconds: {condition}"
        time.sleep(POLL_SECONDS)
    return value


async def eventually_async(condition: Callable[[], Value], *, within_seconds: float = 30.0) -> Value:
    """As `eventually`, where the loop must go on."""
    async with asyncio.timeout(within_seconds):
        while not (value := condition()):
            await asyncio.sleep(POLL_SECONDS)
    return value
