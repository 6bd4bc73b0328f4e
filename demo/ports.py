"""The ports of one stack, all on 127.0.0.1."""

import secrets
import socket
from dataclasses import astuple, dataclass, fields

# Below the range that Linux gives to outgoing connections, which could take a port between choice and use.
CHOICE = range(20_000, 32_000)


@dataclass(frozen=True)
class Ports:
    gateway: int
    core: int
    redis: int
    rabbitmq: int
    rabbitmq_dist: int
    epmd: int

    @classmethod
    def free(cls) -> "Ports":
        """Ports that nobody listens on now, chosen at random."""
        return cls(*free_ports(len(fields(cls))))

    def taken(self) -> list[int]:
        return [port for port in astuple(self) if not is_free(port)]


def free_ports(wanted: int) -> list[int]:
    candidates = secrets.SystemRandom().sample(CHOICE, 10 * wanted)
    free = (port for port in candidates if is_free(port))
    return [next(free) for _ in range(wanted)]


def is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT don't matter
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
