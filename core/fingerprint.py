"""Whether what is posted again under the same uid is the same."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator

from core.contract.options import Options


class Fingerprint:
    """Of a model's name, the options, and the zip that passes through `taken`."""

    def __init__(self, model: str, options: Options) -> None:
        self._hash = hashlib.sha256(f"{model}\n{options.model_dump_json()}\n".encode())

    async def taken(self, zip: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for piece in zip:
            self._hash.update(piece)
            yield piece

    def hex(self) -> str:
        """After the last piece."""
        return self._hash.hexdigest()
