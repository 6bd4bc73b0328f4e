"""Models in Redis: a hash of records, one a human_readable_id."""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from core.contract import codec
from core.contract.errors import ModelChanged, ModelExists
from core.contract.model import Limits, Model, ModelSpec
from core.contract.task import Blob
from core.store import keys
from core.store.connection import Connection, script

log = structlog.get_logger()


@dataclass(frozen=True)
class Seen:
    """A model as it was, parsed and as Redis has it: whoever builds on it has Redis compare."""

    model: Model
    packed: bytes


class Models:
    """An installation has tens of models, so that reading them all is a small thing."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._seen: dict[str, Seen] = {}
        self._change = script(connection, "change_model", kept=True)

    async def add(self, uid: str, spec: ModelSpec, limits: Limits, zip: Blob | None) -> Model:
        """Raises ModelExists. A number that a refused model drew stays unused."""
        number = await self._redis.call("INCR", keys.MODEL_ID, kept=True)
        model = Model(id=number, uid=uid, zip=zip, **spec.model_dump(), **limits.model_dump())
        if not await self._redis.call("HSETNX", keys.MODELS, model.human_readable_id, codec.pack(model), kept=True):
            there = await self.get(model.human_readable_id)
            if there is None or there.uid != uid:
                raise ModelExists
            # This very call was sent before, and only its answer was lost.
        return model

    async def get(self, human_readable_id: str) -> Model | None:
        packed = await self._redis.ask("HGET", keys.MODELS, human_readable_id)
        if packed is None:
            self._seen.pop(human_readable_id, None)
            return None
        model = codec.unpack(Model, packed)
        self._seen[human_readable_id] = Seen(model, packed)
        return model

    async def seen(self, human_readable_id: str) -> Seen | None:
        """As it was when it was last asked for."""
        if human_readable_id not in self._seen:
            await self.get(human_readable_id)
        return self._seen.get(human_readable_id)

    async def all(self) -> list[Model]:
        """In the order of their registration, but those that can't be read: they are another version's."""
        found = [model for model in (await self._by_name()).values() if model]
        return sorted(found, key=lambda model: model.id)

    async def uids(self) -> dict[str, str | None]:
        """By human_readable_id; None: it is there, and can't be read."""
        return {name: model.uid if model else None for name, model in (await self._by_name()).items()}

    async def _by_name(self) -> dict[str, Model | None]:
        packed: Mapping[bytes, bytes] = await self._redis.ask("HGETALL", keys.MODELS)
        return {name.decode(): _read(name, record) for name, record in packed.items()}

    async def by_uid(self, uid: str) -> Model | None:
        seen = await self.seen_by_uid(uid)
        return seen.model if seen else None

    async def seen_by_uid(self, uid: str) -> Seen | None:
        """As it is."""
        records = await self._redis.ask("HVALS", keys.MODELS)
        models = (Seen(codec.unpack(Model, packed), packed) for packed in records)
        return next((seen for seen in models if seen.model.uid == uid), None)

    async def change(self, seen: Seen, model: Model | None) -> None:
        """Into another revision, or None: the model goes. Raises ModelChanged when it isn't any more as it was seen."""
        packed = b"" if model is None else codec.pack(model)
        name = seen.model.human_readable_id
        if not await self._change(keys=[keys.MODELS], args=[name, seen.packed, packed]):
            raise ModelChanged


def _read(name: bytes, packed: bytes) -> Model | None:
    try:
        return codec.unpack(Model, packed)
    except ValueError as error:
        log.warning("model.unreadable", model=name.decode(), error=repr(error))
        return None
