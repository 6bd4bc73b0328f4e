"""redis-py's connections, with less work for a small command; what it costs is in docs/performance.md."""

from collections.abc import Iterable
from typing import Any, Final

import hiredis
from redis import exceptions
from redis.asyncio.connection import AbstractConnection

SMALL_BYTES: Final = 2**16
"""What is larger isn't copied, and goes the long way. It is also what asyncio takes before anybody waits."""


class LeanConnection(AbstractConnection):
    """Packs with hiredis, as redis-py does where it isn't asynchronous, and sends without a task of its own."""

    def pack_command(self, *args: Any) -> list[bytes]:
        if " " in str(args[0]):  # two words
            return super().pack_command(*args)
        for part in args:
            if isinstance(part, memoryview) or (isinstance(part, bytes) and len(part) > SMALL_BYTES):
                return super().pack_command(*args)
        try:
            return [hiredis.pack_command(args)]
        except TypeError as error:
            raise exceptions.DataError(str(error)) from error

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """A connection has one command at a time, so that a small one finds its buffer empty: nothing to wait for, and
        no time to bound.
        """
        writer = self._writer
        if writer is None or not isinstance(command, list) or sum(map(len, command)) > SMALL_BYTES:
            return await super().send_packed_command(command, check_health)
        try:
            writer.writelines(command)
        except OSError as error:
            await self.disconnect(nowait=True)
            raise exceptions.ConnectionError(f"Error while writing to Redis: {error}") from error
        except BaseException:
            await self.disconnect(nowait=True)
            raise


def lean(connection_class: type[AbstractConnection]) -> type[AbstractConnection]:
    """For TCP, TLS or a socket's file."""
    return type(f"Lean{connection_class.__name__}", (LeanConnection, connection_class), {})
