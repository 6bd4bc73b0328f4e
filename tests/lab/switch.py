"""A switch that joins hosts of the lab, in a network namespace of its own: no address of it meets the machine's."""

import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from tests.lab.host import Host, entered

NETWORK: Final = "192.168.77"


class Switch:
    """The n-th host is at NETWORK.n; a thread that has `entered` is another machine on this network."""

    def __init__(self) -> None:
        self._namespace = f"lab-{secrets.token_hex(4)}"

    network: Final = f"{NETWORK}.0/24"

    @staticmethod
    def address(number: int) -> str:
        return f"{NETWORK}.{number}"

    @contextmanager
    def joining(self, hosts: Sequence[Host]) -> Iterator[None]:
        """The hosts are up already; they go before it or with it."""
        _ip("netns", "add", self._namespace)
        try:
            self._ip("link", "add", "lan", "type", "bridge")
            self._ip("address", "add", f"{self.address(254)}/24", "dev", "lan")
            self._ip("link", "set", "lan", "up")
            for number, host in enumerate(hosts, 1):
                port = f"port{number}"
                self._ip("link", "add", port, "type", "veth", "peer", "name", "lan", "netns", host.namespace)
                self._ip("link", "set", port, "master", "lan", "up")
                _ip("-n", host.namespace, "address", "add", f"{self.address(number)}/24", "dev", "lan")
                _ip("-n", host.namespace, "link", "set", "lan", "up")
            yield
        finally:
            _ip("netns", "delete", self._namespace)

    @contextmanager
    def cut(self, number: int) -> Iterator[None]:
        """The host's cable is out: nothing arrives, nobody is told."""
        self._ip("link", "set", f"port{number}", "nomaster")
        try:
            yield
        finally:
            self._ip("link", "set", f"port{number}", "master", "lan")

    @contextmanager
    def entered(self) -> Iterator[None]:
        with entered(self._namespace):
            yield

    def _ip(self, *arguments: str) -> None:
        _ip("-n", self._namespace, *arguments)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
