"""`python -m core` serves the private API and sweeps."""

import asyncio

import structlog

from core.amqp import Broker
from core.app import make_app
from core.audit import Audit
from core.certificate import Certificate, CertificateRefused
from core.client import IDLE_SECONDS
from core.contract.images import ImageAllowance
from core.dispatch import Dispatch
from core.live import Live
from core.observe import set_up_logs
from core.reaper import sweep_for_ever
from core.serving import end_soon, run, serve
from core.settings import Settings
from core.store import open_store
from core.webhooks import Guard, Postman
from core.zipcheck import ZipCheck

log = structlog.get_logger()


async def main() -> None:
    settings = Settings()
    async with (
        open_store(
            settings.redis_url_with_password,
            reserve_percent=settings.redis_reserve_percent,
            keep_uploads_hours=settings.keep_uploads_hours,
        ) as store,
        Broker.open(settings) as broker,
    ):
        dispatch = Dispatch(
            store=store,
            broker=broker,
            lease_seconds=settings.lease_seconds,
            max_upload_bytes=settings.max_upload_bytes,
            check_zip=ZipCheck(store.blobs, settings.zip_limits),
            keep=settings.keep,
            log_bytes=settings.log_bytes,
            guard=Guard.of(settings.webhook_allow),
            images=ImageAllowance.of(settings.image_allow),
            keys_required=settings.api_keys == "required",
        )
        if not dispatch.keys_required:
            log.warning("keys.off", advice="set API_KEYS=required: now anybody who reaches a gateway may post tasks")
        async with Postman.open(store.webhooks, dispatch.guard) as postman, asyncio.TaskGroup() as group:
            sweeper = group.create_task(sweep_for_ever(dispatch), name="reaper")
            telling = group.create_task(postman.deliver_for_ever(), name="webhooks")
            audit = Audit(store.audit, kept=settings.audit_entries)
            auditing = group.create_task(audit.store_for_ever(), name="audit")
            live = Live(dispatch)
            app = make_app(dispatch, live, settings, audit)
            listeners = [
                group.create_task(app.bells.listen(store.tasks.ended), name="bells"),
                group.create_task(live.news.listen(store.logs.news), name="news"),
            ]
            # A reaper that dies takes the process along: it is restarted, and seen.
            sweeper.add_done_callback(lambda ended: None if ended.cancelled() else end_soon(1))
            await serve(
                app,
                host=settings.core_host,
                port=settings.core_port,
                keep_alive_seconds=2 * IDLE_SECONDS,
                certificate=_certificate(settings),
            )
            await audit.stored()
            auditing.cancel()
            sweeper.cancel()
            telling.cancel()
            for listener in listeners:
                listener.cancel()


def _certificate(settings: Settings) -> Certificate | None:
    """None: plain HTTP."""
    if not (settings.core_tls_cert_file and settings.core_tls_key_file):
        return None
    try:
        return Certificate(settings.core_tls_cert_file, settings.core_tls_key_file)
    except CertificateRefused as error:
        raise SystemExit(f"CORE_TLS_CERT_FILE and CORE_TLS_KEY_FILE can't be served: {error}") from error


if __name__ == "__main__":
    set_up_logs("core")
    run(main())
