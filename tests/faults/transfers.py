"""Zips too large to be in flight as a whole: the kernel holds some ten megabytes of a connection."""

import random
from typing import cast

from redis import Redis

from core.store import keys
from tests.zips import zip_of

MiB = 2**20
FILES = {f"{number}.bin": random.Random(number).randbytes(16 * MiB) for number in (1, 2)}
LARGE = zip_of(FILES)
BEGUN_BYTES = 4 * MiB


def loose(redis: Redis) -> dict[str, float]:
    """Id of each blob without an owner → epoch second at which the sweep looks at it."""
    members = cast(list[tuple[bytes, float]], redis.zrange(keys.LOOSE, 0, -1, withscores=True))
    return {blob.decode(): due for blob, due in members}


def let_time_pass(redis: Redis) -> None:
    """Whoever wrote the blobs that are loose is late, and no core that died keeps the others from sweeping."""
    for ticket in cast(list[bytes], redis.hkeys(keys.INCOMING)):
        redis.hset(keys.INCOMING, ticket.decode(), "0 1")
    redis.delete(keys.REAPER)
    for blob in loose(redis):
        redis.zadd(keys.LOOSE, {blob: 0}, xx=True)
