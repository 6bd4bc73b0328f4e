"""Ways of a test's own to the servers, whether they are single ones or clusters."""

from typing import cast
from urllib.parse import urlsplit

import aiormq
from aiormq.abc import AbstractConnection
from redis import Redis, RedisCluster
from redis.cluster import ClusterNode


def redis_at(url: str) -> "Redis | RedisCluster":
    """Use it as a context, or close it."""
    parts = urlsplit(url)
    if parts.scheme != "redis+cluster":
        return Redis.from_url(url)
    nodes = [host.rpartition(":") for host in parts.netloc.split(",")]
    return RedisCluster(
        startup_nodes=[
            ClusterNode(host, int(port))  # type: ignore[no-untyped-call]
            for host, _, port in nodes
        ]
    )


def keys_in(redis: "Redis | RedisCluster", pattern: str = "*") -> set[str]:
    """On all servers: redis-py asks one of a cluster's unless it is told otherwise."""
    where = {"target_nodes": RedisCluster.PRIMARIES} if isinstance(redis, RedisCluster) else {}
    return {key.decode() for key in cast(list[bytes], redis.keys(pattern, **where))}


async def rabbitmq_at(urls: str) -> AbstractConnection:
    """The first node that answers."""
    *others, last = urls.split(",")
    for url in others:
        try:
            return await aiormq.connect(url)
        except (aiormq.exceptions.AMQPError, OSError):
            continue
    return await aiormq.connect(last)
