"""API keys in Redis: a hash of records, which know a key by its digest."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Final

import structlog

from core.contract import codec
from core.contract.errors import KeyNotFound, Unavailable
from core.contract.key import KEY, Key, MadeKey, WantedKey
from core.store import keys
from core.store.connection import Connection

log = structlog.get_logger()

NOBODYS: Final = bytes(hashlib.sha256().digest_size)
"""The digest of no key: what isn't known is compared with it, so that it takes the same time."""


class Record(Key):
    digest: bytes
    """SHA-256 of the whole key: 256 random bits can't be guessed, so nothing slower is needed."""

    @property
    def key(self) -> Key:
        return Key.model_validate(self.model_dump(include=set(Key.model_fields)))


class ApiKeys:
    """An installation has tens of keys. Nothing of them is held in memory: who is revoked is out at once."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._noted: dict[str, date] = {}

    async def make(self, wanted: WantedKey) -> MadeKey:
        """The only time that the key itself is seen."""
        id, now = secrets.token_hex(6), datetime.now(UTC)
        key = f"isk_{id}_{secrets.token_urlsafe(32)}"
        expires = None if wanted.expires_days is None else now + timedelta(days=wanted.expires_days)
        terms = wanted.model_dump(exclude={"scope", "expires_days"})
        scopes = tuple(dict.fromkeys(wanted.scope))
        record = Record(**terms, id=id, scopes=scopes, created=now, expires=expires, digest=_digest(key))
        await self._redis.note("HSET", keys.KEYS, id, codec.pack(record), kept=True)
        return MadeKey(**record.key.model_dump(), key=key)

    async def verified(self, offers: Sequence[str]) -> list[Key | None]:
        """In one trip. None: that is no key, or another one. One that is over is returned, too."""
        found = [KEY.fullmatch(offer) for offer in offers]
        ids = list(dict.fromkeys(match[1] for match in found if match))
        packed = await self._redis.ask("HMGET", keys.KEYS, *ids) if ids else []
        records = dict(zip(ids, packed, strict=True))
        verified = [
            _verified(offer, records[match[1]]) if match else None for offer, match in zip(offers, found, strict=True)
        ]
        await self._note_use([key.id for key in verified if key and not key.is_over])
        return verified

    async def is_good(self, id: str) -> bool:
        """Still, of a key that was verified."""
        record = _read(await self._redis.ask("HGET", keys.KEYS, id))
        return record is not None and not record.is_over

    async def _note_use(self, ids: Sequence[str]) -> None:
        """Each core once a day for each key."""
        today = datetime.now(UTC).date()
        if new := [id for id in ids if self._noted.get(id) != today]:
            with suppress(Unavailable):
                entries = [part for id in new for part in (id, today.isoformat())]
                await self._redis.note("HSET", keys.KEYS_USED, *entries)
                self._noted |= dict.fromkeys(new, today)

    async def all(self) -> list[Key]:
        """The newest first, those that are over among them."""
        packed: Mapping[bytes, bytes] = await self._redis.ask("HGETALL", keys.KEYS)
        used: Mapping[bytes, bytes] = await self._redis.ask("HGETALL", keys.KEYS_USED)
        found = [_shown(record.key, used.get(id)) for id, it in packed.items() if (record := _read(it))]
        return sorted(found, key=lambda key: key.created, reverse=True)

    async def revoke(self, id: str) -> Key:
        """From now on it opens nothing. Its record stays. Twice is as once."""
        record = _read(await self._redis.ask("HGET", keys.KEYS, id))
        if record is None:
            raise KeyNotFound
        if record.revoked is None:
            record = record.model_copy(update={"revoked": datetime.now(UTC)})
            await self._redis.note("HSET", keys.KEYS, id, codec.pack(record), kept=True)
        return record.key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _verified(offer: str, packed: bytes | None) -> Key | None:
    record = _read(packed)
    is_it = hmac.compare_digest(record.digest if record else NOBODYS, _digest(offer))
    return record.key if record and is_it else None


def _read(packed: bytes | None) -> Record | None:
    """One that can't be read is a later version's, and opens nothing here."""
    try:
        return codec.unpack(Record, packed) if packed else None
    except ValueError as error:
        log.warning("key.unreadable", error=repr(error))
        return None


def _shown(key: Key, used: bytes | None) -> Key:
    if used is None:
        return key
    return key.model_copy(update={"last_used": datetime.fromisoformat(used.decode()).replace(tzinfo=UTC)})
