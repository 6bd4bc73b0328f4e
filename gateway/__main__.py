"""`python -m gateway` serves the public API over HTTPS."""

import asyncio
from typing import Final

from core.certificate import Certificate, CertificateRefused
from core.client import CoreClient
from core.contract import VERSION
from core.contract.gateway import GatewayReport
from core.exposition import exposed, forget_process, note_build, shared_figures
from core.observe import set_up_logs
from core.serving import run, serve
from core.workers import is_worker
from gateway import hsts, redirect
from gateway.app import make_app
from gateway.reporting import report_for_ever
from gateway.settings import Settings

KEEP_ALIVE_SECONDS: Final = 20.0


async def main(settings: Settings) -> None:
    certificate = _certificate(settings)

    def report() -> GatewayReport:
        return GatewayReport(
            name=settings.gateway_name,
            version=VERSION,
            certificate_expires=certificate.expires,
            certificate_refused=certificate.refused,
        )

    async with CoreClient.open(settings) as core, asyncio.TaskGroup() as group:
        app = make_app(
            core,
            allow_public_post_model=settings.allow_public_post_model != "",
            allow_operators=settings.allow_operators != "",
        )
        app.standing = hsts.standing(settings.hsts_days)
        note_build(app.figures, "gateway")
        app.connections.most = settings.max_connections
        app.connections.most_of_one = settings.max_connections_per_address
        listener = group.create_task(app.bells.listen(core.ended), name="bells")
        reporter = group.create_task(report_for_ever(core, report), name="report")
        async with exposed(settings, app.figures), redirect.to_https(settings, app.connections):
            await serve(
                app,
                host=settings.gateway_host,
                port=settings.gateway_port,
                keep_alive_seconds=KEEP_ALIVE_SECONDS,
                certificate=certificate,
            )
        listener.cancel()
        reporter.cancel()


def _certificate(settings: Settings) -> Certificate:
    try:
        return Certificate(settings.tls_cert_file, settings.tls_key_file, client_ca=settings.tls_client_ca_file)
    except CertificateRefused as error:
        raise SystemExit(f"TLS_CERT_FILE, TLS_KEY_FILE and TLS_CLIENT_CA_FILE can't be served: {error}") from error


if __name__ == "__main__":
    set_up_logs("gateway")
    settings = Settings()
    processes = settings.gateway_workers
    with shared_figures(processes=processes if settings.metrics_port else 1):
        if is_worker(processes, ended=forget_process):
            run(main(settings))
