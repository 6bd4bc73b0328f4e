"""Commands as redis-py packs them, only sooner."""

from typing import Any, cast

import pytest
from redis import exceptions
from redis.asyncio.connection import Connection

from core.store.lean import SMALL_BYTES, lean

LARGE = b"x" * (SMALL_BYTES + 1)


@pytest.mark.parametrize(
    "command",
    [
        ("PING",),
        ("SET", "key", "ä€"),
        ("ZADD", b"key", 1.5, "member", 10**15, 1e-7, 1795415087.123456),
        ("EVALSHA", "0" * 40, 1, "key", b"", b"\r\n$1\r\n", ""),
        ("CLIENT LIST", "TYPE", "normal"),
        ("SET", "key", LARGE),
        ("SET", "key", memoryview(b"piece")),
    ],
)
def test_it_is_packed_as_by_redis_py(command: tuple[Any, ...]) -> None:
    packed = lean(Connection)().pack_command(*command)
    assert b"".join(packed) == b"".join(Connection().pack_command(*command))


@pytest.mark.parametrize("piece", [LARGE, memoryview(LARGE)])
def test_what_is_large_is_not_copied(piece: bytes | memoryview) -> None:
    assert any(part is piece for part in lean(Connection)().pack_command("SET", "key", piece))


def test_what_is_no_part_of_a_command_is_refused() -> None:
    """As by redis-py."""
    with pytest.raises(exceptions.DataError):
        lean(Connection)().pack_command("SET", "key", cast(Any, None))
