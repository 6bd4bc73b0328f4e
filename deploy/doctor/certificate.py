"""The gateway's certificate and key: whether clients will accept them, and the gateway can read them."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from deploy.compose import has_inner_tls
from deploy.doctor.finding import Finding, broken, ok, warning
from deploy.doctor.site import Site
from tls.certs import RENEW_BEFORE, Certificates, names

GATEWAY_UID: Final = 10001
"""Of the gateway in its image; docker-compose.yaml gives it CERTS_GROUP as its group."""


def check(site: Site) -> Iterator[Finding]:
    files = Certificates(site.certificates)
    domain = site.setting("DOMAIN") or "localhost"
    missing = [path.name for path in (files.cert, files.key) if not path.exists()]
    if missing:
        yield broken(
            f"tls/certs has no {' and no '.join(missing)}", f"`just certs {domain}`, or put your own files there"
        )
        return
    try:
        cert = x509.load_pem_x509_certificate(files.cert.read_bytes())
    except ValueError:
        yield broken(
            "tls/certs/server.crt is no certificate in PEM", f"`just certs {domain} --force`, or put your own there"
        )
        return
    renewal = f"`just certs {domain}`" if files.ca_key.exists() else "put the renewed server.crt and server.key there"
    renewal += "; the gateway serves it within seconds, in a swarm after just swarm-update"
    yield judge_dates(cert.not_valid_before_utc, cert.not_valid_after_utc, datetime.now(UTC), renewal)
    if not names(files.cert, domain):
        yield broken(f"it isn't for DOMAIN, {domain}, but for {', '.join(host_names(cert)) or 'no name'}", renewal)
    yield from _key(cert, files.key, renewal)
    yield from judge_readable([site.certificates, files.cert, files.key], site.setting("CERTS_GROUP"), site.folder)


def inner(site: Site) -> Iterator[Finding]:
    """Of core, Redis and RabbitMQ, where deploy/tls.yaml is in use."""
    cert = site.secrets / "inner_cert"
    if not has_inner_tls(site.setting("COMPOSE_FILE")) or not cert.exists():
        return
    its, renewal = x509.load_pem_x509_certificate(cert.read_bytes()), "`rm secrets/inner_*`; then `just up`"
    found = judge_dates(its.not_valid_before_utc, its.not_valid_after_utc, datetime.now(UTC), renewal)
    yield replace(found, seen=f"inside, secrets/inner_cert: {found.seen}")


def judge_dates(begin: datetime, end: datetime, now: datetime, renewal: str) -> Finding:
    if now > end:
        return broken(f"it expired on {end:%Y-%m-%d at %H:%M} UTC", renewal)
    if now < begin:
        return broken(
            f"it isn't valid before {begin:%Y-%m-%d %H:%M} UTC, and this host has {now:%Y-%m-%d %H:%M}",
            f"see the clock; if it is right, {renewal}",
        )
    left = f"valid until {end:%Y-%m-%d}, {(end - now) // timedelta(days=1)} more days"
    return warning(left, renewal) if end - now < RENEW_BEFORE else ok(left)


def judge_readable(paths: Collection[Path], group: str, folder: Path) -> Iterator[Finding]:
    """The gateway, who is GATEWAY_UID and in this group, may read the files and enter their folder."""
    if not group.isdecimal():
        return  # the settings' check says so
    for path in paths:
        status = path.stat()
        mode = status.st_mode >> (6 if status.st_uid == GATEWAY_UID else 3 if status.st_gid == int(group) else 0)
        needed, right = (0o5, "g+rx") if path.is_dir() else (0o4, "g+r")
        if mode & needed != needed:
            shown = path.relative_to(folder)
            yield broken(
                f"{shown} can't be read by the gateway, whose group is CERTS_GROUP, {group}",
                f"`sudo chgrp {group} {shown} && sudo chmod {right} {shown}`",
            )


def host_names(cert: x509.Certificate) -> list[str]:
    try:
        found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found if isinstance(name, x509.DNSName | x509.IPAddress)]


def _key(cert: x509.Certificate, path: Path, renewal: str) -> Iterator[Finding]:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except TypeError:
        yield broken("tls/certs/server.key needs a password, which the gateway hasn't", "put it there without one")
    except ValueError:
        yield broken("tls/certs/server.key is no key in PEM", renewal)
    except PermissionError:
        yield warning("tls/certs/server.key isn't yours to read, so it wasn't looked at", "`sudo just doctor`")
    else:
        if key.public_key() != cert.public_key():
            yield broken("tls/certs/server.key isn't the key of server.crt", renewal)
