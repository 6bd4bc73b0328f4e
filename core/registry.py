"""Models that are registered already: changed, switched off and on, deleted. Tasks that run go on as they are."""

import time
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Final

import structlog

from core import erasing
from core.contract.errors import InvalidParameters, ModelChanged, ModelNotFound
from core.contract.model import Limits, Model, ModelSpec
from core.contract.task import Blob
from core.dispatch import Dispatch
from core.store.erasures import Erasure
from core.store.models import Seen
from core.store.room import Announced
from core.watch import LONGEST_SECONDS

log = structlog.get_logger()

OLD_ZIP_SECONDS: Final = 3600.0
"""An agent that has claimed a task just now fetches the zip that its model had then."""


@dataclass(frozen=True)
class Registry:
    """Each change is a compare-and-set of the whole model. Zips are loose while they come and when they are replaced:
    the sweep asks the model which one is its own.
    """

    dispatch: Dispatch

    async def seen(self, uid: str) -> Seen:
        seen = await self.dispatch.store.models.seen_by_uid(uid)
        if seen is None:
            raise ModelNotFound
        return seen

    async def revise(
        self, seen: Seen, spec: ModelSpec, limits: Limits, zip: AsyncIterable[bytes] | None, announced: Announced
    ) -> Model:
        """With another zip, if one comes. Raises ModelChanged if somebody else was quicker."""
        old = seen.model
        new = old.model_copy(
            update={**spec.model_dump(), **limits.model_dump(), "revision": old.revision + 1, "digest": None}
        )
        if new.human_readable_id != old.human_readable_id:
            raise InvalidParameters.wrong("query", "human_readable_id", "a model keeps its name")
        if new.need != old.need:
            words = "the model's tasks wait where agents have what it needs: register another one to need other GPUs"
            raise InvalidParameters.wrong("query", "use_gpu", words)
        self.dispatch.images.check(spec.container_tag)
        if zip is not None and not spec.model_available:
            raise InvalidParameters.wrong("query", "model_available", "a zip was sent, so this must be true")
        if zip is None and spec.model_available and old.zip is None:
            raise InvalidParameters.missing("body", "zip_file")
        if zip is None:
            new = await self._change(seen, new, old.zip if spec.model_available else None)
        else:
            async with self.dispatch.incoming(old.uid, announced) as upload:
                blob = await self.dispatch.received(upload, zip)
                async with upload.offered():
                    new = await self._change(seen, new, blob)
        log.info("model.revised", model=new.human_readable_id, revision=new.revision)
        return new

    async def _change(self, seen: Seen, new: Model, zip: Blob | None) -> Model:
        old = seen.model.zip
        if old and old != zip:
            await self.dispatch.store.blobs.loosen([old], seconds=OLD_ZIP_SECONDS)
        new = new.model_copy(update={"zip": zip})
        await self.dispatch.store.models.change(seen, new)
        return new

    async def enable(self, uid: str, *, enabled: bool) -> Model:
        """Whether it takes new tasks; those that wait go on."""
        while (seen := await self.seen(uid)).model.enabled is not enabled:
            try:
                await self.dispatch.store.models.change(seen, seen.model.model_copy(update={"enabled": enabled}))
            except ModelChanged:
                continue
            log.info("model.switched", model=seen.model.human_readable_id, enabled=enabled)
        return seen.model

    async def delete(self, uid: str) -> Model:
        """The model as it was. The sweep ends its tasks that wait."""
        seen = await self.seen(uid)
        erasure = Erasure.of_model(seen.model)
        await self.dispatch.store.erasures.begin(erasure)
        if seen.model.zip:
            await self.dispatch.store.blobs.loosen([seen.model.zip], seconds=OLD_ZIP_SECONDS)
        try:
            await self.dispatch.store.models.change(seen, None)
        except ModelChanged:
            return await self.delete(uid)
        log.info("model.deleted", model=seen.model.human_readable_id, uid=uid)
        await erasing.show(self.dispatch.store, erasure)
        await self.dispatch.store.tasks.bring_forward(until=time.time() + LONGEST_SECONDS)
        return seen.model
