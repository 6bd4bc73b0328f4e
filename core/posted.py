"""What a client posts, and whether it has posted the very same before."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Self

from core.contract.key import OPERATOR, Caller
from core.contract.model import Model
from core.contract.options import PLAIN, Options
from core.contract.task import Blob, new_uid
from core.store.tasks import NewTask


class Fingerprint:
    """Of a model's name, the options, the key that it is posted with, and the zip that passes through `taken`."""

    def __init__(self, model: str, options: Options, owner: str = "") -> None:
        whose = f"{owner}\n" if owner else ""
        self._hash = hashlib.sha256(f"{model}\n{options.model_dump_json(exclude_defaults=True)}\n{whose}".encode())

    async def taken(self, zip: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for piece in zip:
            self._hash.update(piece)
            yield piece

    def hex(self) -> str:
        """After the last piece."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Posted:
    """What a client wants done. The uid is its task's."""

    model: str
    options: Options
    uid: str
    caller: Caller
    fingerprint: Fingerprint | None = None
    """Where the client chose the uid, and so may post it again."""

    @classmethod
    def once(cls, model: str, options: Options = PLAIN, caller: Caller = OPERATOR) -> Self:
        return cls(model, options, new_uid(), caller)

    @classmethod
    def repeatable(cls, model: str, options: Options, uid: str, caller: Caller = OPERATOR) -> Self:
        return cls(model, options, uid, caller, Fingerprint(model, options, caller.key_id))

    def fingerprinted(self, zip: AsyncIterable[bytes]) -> AsyncIterable[bytes]:
        return self.fingerprint.taken(zip) if self.fingerprint else zip

    def task(self, model: Model, input: Blob) -> NewTask:
        """Once the zip has passed."""
        return NewTask.of(model, self.uid, input, self.options, self.task_fingerprint, self.caller.key_id)

    @property
    def task_fingerprint(self) -> str:
        """Once the zip has passed; empty where the client can't post it again."""
        return self.fingerprint.hex() if self.fingerprint else ""
