"""What the compose file needs beside the repository: .env, secrets/, tls/certs/. Nothing that is there is replaced.

The files of secrets/ are mounted into containers of several users, so that everybody may read them; on the host nobody
but their owner enters the folder.
"""

import base64
import hashlib
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from demo.stack import REPOSITORY
from deploy.compose import ENVIRONMENT, DeploymentError, has_inner_tls, parse_env
from tls import certs

SECRETS: Final = REPOSITORY / "secrets"
EXAMPLE: Final = REPOSITORY / ".env.example"
DEFINITIONS: Final = REPOSITORY / "deploy" / "rabbitmq-definitions.json"
CONFIGURATIONS: Final = tuple(
    REPOSITORY / "deploy" / name for name in ("redis.conf", "rabbitmq.conf", "rabbitmq-tls.conf")
)
DRIVER: Final = Path("/proc/driver/nvidia")
PASSWORDS: Final = ("core_token", "redis_password", "rabbitmq_password")
INNER: Final = (SECRETS / "inner_ca", SECRETS / "inner_cert", SECRETS / "inner_key")
"""What deploy/tls.yaml gives to services: an authority, and the certificate of those that others connect to."""
READ_AT_START: Final[Mapping[str, Sequence[Path]]] = {
    "redis": (CONFIGURATIONS[0], SECRETS / "redis_users", *INNER),
    "rabbitmq": (*CONFIGURATIONS[1:], SECRETS / "rabbitmq_definitions", *INNER),
    "core": (*(SECRETS / name for name in PASSWORDS), *INNER),
    "gateway": (SECRETS / "core_token", INNER[0]),
    "gpu_agent": (SECRETS / "core_token", SECRETS / "rabbitmq_password", INNER[0]),
}
"""Which files a service reads once: it is to be started anew when one of them has changed."""
GiB: Final = 2**30


def prepare(domain: str) -> Iterator[str]:
    """Make what is missing, for the domain that .env says once there is one; yields a line for each thing.

    Raises certs.DomainError before anything is written, and certs.CertificatesInTheWayError.
    """
    if ENVIRONMENT.exists():
        domain = settings().get("DOMAIN", domain)
    certs.check(domain)
    if ENVIRONMENT.exists():
        yield f"{_shown(ENVIRONMENT)}  kept; it says DOMAIN={domain}"
    else:
        text = filled_in(EXAMPLE.read_text(), {"DOMAIN": domain, **_seen_here()})
        _write(ENVIRONMENT, text, mode=0o644)
        yield f"{_shown(ENVIRONMENT)}  made: look through it"
    SECRETS.mkdir(mode=0o700, exist_ok=True)
    for name in PASSWORDS:
        path = SECRETS / name
        if path.exists():
            yield f"{_shown(path)}  kept"
        else:
            _write(path, secrets.token_urlsafe(), mode=0o644)
            yield f"{_shown(path)}  made"
    yield f"{_shown(certs.FOLDER)}  {_certificate(domain)}"
    derive()


def derive() -> None:
    """Write what Redis and RabbitMQ get instead of their passwords: hashes, and what else stands in those files; and
    for each service the digest of what it reads, without which Compose wouldn't see that a file has changed.
    """
    for name in PASSWORDS:
        if not (SECRETS / name).exists():
            raise DeploymentError(f"{_shown(SECRETS / name)} is missing: just init DOMAIN makes it.")
    for path in CONFIGURATIONS:
        path.chmod(0o644)  # a strict umask would keep it from the containers' users
    for name, made_of, derived in _DERIVED:
        _keep_up(SECRETS / name, derived((SECRETS / made_of).read_text().strip()))
    if has_inner_tls(os.environ.get("COMPOSE_FILE") or settings().get("COMPOSE_FILE", "")):
        _ensure_inner()
    for service, paths in READ_AT_START.items():
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths if path.exists())).hexdigest()
        _keep_up(SECRETS / f"{service}.env", f"READ_AT_START={digest[:12]}\n")


def _ensure_inner() -> None:
    """Made once, of the authority in tls/certs, unless all three are there: they may be the operator's own."""
    if all(path.exists() for path in INNER):
        return
    files = certs.Certificates(certs.FOLDER)
    authority, cert, key = INNER
    try:
        certs.issue_inner(files, cert, key, mode=0o644)
    except certs.NoAuthorityError as error:
        raise DeploymentError(
            f"deploy/tls.yaml: {error}. Put a certificate for {', '.join(certs.INNER_NAMES[:4])} into "
            f"{', '.join(map(_shown, INNER))} (its authority, itself, its key; mode 644)."
        ) from error
    authority.write_bytes(files.ca_cert.read_bytes())
    authority.chmod(0o644)


def settings() -> dict[str, str]:
    """What .env says."""
    return parse_env(ENVIRONMENT.read_text())


def requires_keys() -> bool:
    """Whether clients need an API key, or may whoever reaches the gateway post tasks."""
    return settings().get("API_KEYS") == "required"


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """The text of .env.example with these values instead of its own."""
    for name, value in values.items():
        text, count = re.subn(rf"^{name}=.*$", lambda _, line=f"{name}={value}": line, text, flags=re.MULTILINE)  # type: ignore[misc]
        assert count == 1, f".env.example has no {name}"  # noqa: S101
    return text


def redis_users(password: str) -> str:
    """Redis's users: who has the password may do everything, the health check may say PING."""
    hashed = hashlib.sha256(password.encode()).hexdigest()
    return f"user default on #{hashed} ~* &* +@all\nuser health on nopass -@all +ping\n"


def rabbitmq_definitions(password: str) -> str:
    """The template with the password's hash, which is the same each time: an unchanged file isn't imported again."""
    salt = hashlib.sha256(b"salt of " + password.encode()).digest()[:4]  # the password is random enough
    hashed = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    return DEFINITIONS.read_text().replace("PASSWORD_HASH", hashed)


_DERIVED: Final[tuple[tuple[str, str, Callable[[str], str]], ...]] = (
    ("redis_users", "redis_password", redis_users),
    ("rabbitmq_definitions", "rabbitmq_password", rabbitmq_definitions),
)


def _seen_here() -> dict[str, str]:
    """What .env says of this host."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GiB
    files = ["docker-compose.yaml", *(["deploy/gpu.yaml"] if DRIVER.exists() else [])]
    return {
        "REDIS_MAXMEMORY": f"{max(int(memory_gb / 2 * 1024), 256)}mb",
        "REDIS_MEMORY_LIMIT": f"{max(int(memory_gb * 3 / 4 * 1024), 512)}mb",
        "CERTS_GROUP": str(os.getgid()),
        "AGENT_NAME": socket.gethostname(),
        "COMPOSE_FILE": ":".join(files),
    }


def _certificate(domain: str) -> str:
    files = certs.Certificates(certs.FOLDER)
    if files.cert.exists() and not files.ca_key.exists():
        return f"kept: your own certificate; group {os.getgid()} has to be able to read its key"
    if files.cert.exists() and certs.names(files.cert, domain):
        return "kept"
    certs.make(certs.FOLDER, domain)
    certs.FOLDER.chmod(0o755)  # the gateway's user goes in; its files say who reads what
    return f"made: a certificate for {domain}; clients trust {_shown(files.ca_cert)}"


def _keep_up(path: Path, text: str) -> None:
    """A file that is as it should be isn't touched."""
    if not path.exists() or path.read_text() != text:
        path.unlink(missing_ok=True)
        _write(path, text, mode=0o644)


def _write(path: Path, text: str, *, mode: int) -> None:
    """Readable as `mode` says from its first moment, whatever the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        os.fchmod(descriptor, mode)


def _shown(path: Path) -> str:
    return os.path.relpath(path)
