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


MOST: Final = 2
"""The token, and the one that it takes the place of."""


class CoreToken(SecretsInFiles):
    """`CORE_TOKEN`, as it is, or `CORE_TOKEN_FILE` with the token in it, or with two, apart by blanks: either opens
    core, and the first is sent.
    """

    core_token: SecretStr = SecretStr("")
    core_token_file: Path | None = None

    @model_validator(mode="after")
    def _is_set(self) -> Self:
        found = len(self._known)
        if not found:
            raise ValueError("core's token is missing: set CORE_TOKEN, or CORE_TOKEN_FILE to a file that holds it")
        if found > MOST:
            raise ValueError(
                f"{self.core_token_file} holds {found} words, and each would open core: a token there has no blanks, "
                "and beside it only the one that it takes the place of. `openssl rand -hex 32` makes one"
            )
        return self

    @property
    def _known(self) -> list[str]:
        token = self.core_token.get_secret_value()
        return token.split() if self.core_token_file else [token] if token.strip() else []

    def opens(self, offered: str) -> bool:
        return self.tokens.opens(offered)

    @cached_property
    def tokens(self) -> "Tokens":
        return Tokens(self._known, self.core_token_file)


class Tokens:
    """What opens core just now. A file is looked at again when somebody wants to know, and its content counts from then
    on; one that is empty, or can't be read, or holds too many, changes nothing.
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
        words = offered.split(maxsplit=1) if self._file else [offered]
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
        except (OSError, ValueError) as error:
            log.warning("token.unreadable", error=str(error))
            return False
        if len(known) > MOST:
            log.warning("token.unreadable", error=f"The file holds {len(known)} words, and may hold {MOST}")
            known = self._known
        self._seen = seen
        if not known or known == self._known:
            return False
        self._known = known
        log.info("token.changed", valid=len(known))
        return True
