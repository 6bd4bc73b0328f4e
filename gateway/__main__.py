"""`python -m gateway` serves the public API over HTTPS."""

import asyncio
from typing import Final

from core.client import CoreClient
from core.observe import set_up_logs
from core.serving import run, serve
from core.workers import is_worker
from gateway.app import make_app
from gateway.settings import Settings

KEEP_ALIVE_SECONDS: Final = 20.0


async def main(settings: Settings) -> None:
    async with CoreClient.open(settings) as core, asyncio.TaskGroup() as group:
        app = make_app(core, allow_public_post_model=settings.allow_public_post_model != "")
        listener = group.create_task(app.bells.listen(core.ended), name="bells")
        await serve(
            app,
            host=settings.gateway_host,
            port=settings.gateway_port,
            keep_alive_seconds=KEEP_ALIVE_SECONDS,
            tls=(str(settings.tls_cert_file), str(settings.tls_key_file)),
        )
        listener.cancel()


if __name__ == "__main__":
    set_up_logs("gateway")
    settings = Settings()
    if is_worker(settings.gateway_workers):
        run(main(settings))
