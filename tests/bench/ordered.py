"""Clients in a process of their own, beside what measures them: it is ordered what to do, and says when it does."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Self

from demo.stack import REPOSITORY


class Ordered:
    """`python -m module`, given its order as JSON on standard input, a line. It has said that it is `ready` when this
    is made, and is killed when the context ends.
    """

    def __init__(self, module: str, order: Mapping[str, Any], *, ready: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        assert self._line() == ready

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
