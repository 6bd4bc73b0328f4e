"""The token that opens core's private API, and how another one takes its place while everything runs."""

import hmac
import time
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import structlog
from pydantic import SecretStr, model_validator

from core.secrets import SecretsInFiles

log = structlog.get_logger()

LOOK_SECONDS: Final = 2.0
"""How old what is known of a file may be. A token that isn't known is looked for at once."""


class CoreToken(SecretsInFiles):
    """`CORE_TOKEN`, or `CORE_TOKEN_FILE` with the token in it, or with two, apart by blanks: either opens core, and the
    first is sent.
    """

    core_token: SecretStr = SecretStr("")
    core_token_file: Path | None = None

    @model_validator(mode="after")
    def _is_set(self) -> Self:
        if not self.core_token.get_secret_value().split():
            raise ValueError("core's token is missing: set CORE_TOKEN, or CORE_TOKEN_FILE to a file that holds it")
        return self

    def opens(self, offered: str) -> bool:
        return self.tokens.opens(offered)

    @cached_property
    def tokens(self) -> "Tokens":
        return Tokens(self.core_token.get_secret_value().split(), self.core_token_file)


class Tokens:
    """What opens core just now. A file is looked at again when somebody wants to know, and its content counts from then
    on; one that is empty, or can't be read, changes nothing.
    """

    def __init__(self, known: list[str], file: Path | None) -> None:
        self._known = known
        self._file = file
        self._seen: tuple[int, ...] = ()
        self._looked = -LOOK_SECONDS

    @property
    def sent(self) -> str:
        self._look_if_late()
        return self._known[0]

    def opens(self, offered: str) -> bool:
        """Takes the same time whatever is offered. Whoever sends a file as it is offers both at once."""
        self._look_if_late()
        words = offered.split(maxsplit=1)
        return self._is_known(words) or (self._look() and self._is_known(words))

    def _is_known(self, words: list[str]) -> bool:
        found = [hmac.compare_digest(token.encode(), word.encode()) for token in self._known for word in words]
        return any(found)

    def _look_if_late(self) -> None:
        if self._file and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._look()

    def _look(self) -> bool:
        """Whether there are others than before."""
        if self._file is None:
            return False
        self._looked = time.monotonic()
        try:
            status = self._file.stat()
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            known = self._known if seen == self._seen else self._file.read_text().split()
        except OSError as error:
            log.warning("token.unreadable", error=str(error))
            return False
        self._seen = seen
        if not known or known == self._known:
            return False
        self._known = known
        log.info("token.changed", valid=len(known))
        return True
