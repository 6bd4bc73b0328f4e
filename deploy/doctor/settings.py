"""What the operator wrote: .env and secrets/."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from core.settings import Settings as Core
from deploy.doctor.finding import Finding, broken, ok, warning
from deploy.doctor.site import Site, size
from deploy.ports import port_of
from deploy.preparation import PASSWORDS
from gateway.settings import Settings as Gateway
from gpu_agent.settings import Settings as Agent

FIELDS: Final[Mapping[str, FieldInfo]] = {
    name.upper(): field for kind in (Core, Gateway, Agent) for name, field in kind.model_fields.items()
}
_OF_OTHERS: Final = re.compile(r"(COMPOSE|DOCKER|BUILDKIT|PYTHON|MALLOC)_.*|(HTTPS?|NO)_PROXY|TZ")


_NO: Final = frozenset({"no", "false", "0", "off"})
_RULES: Final[Mapping[str, tuple[Callable[[str], object], str]]] = {
    "HTTPS_PORT": (port_of, "a port, 1 to 65535"),
    "OPERATOR_PORT": (port_of, "a port, 1 to 65535"),
    "REDIS_MAXMEMORY": (size, "a size, as 4gb or 512mb"),
    "REDIS_MEMORY_LIMIT": (size, "a size, as 4gb or 512mb"),
    "CERTS_GROUP": (str.isdecimal, "a group's number, as id -g says it"),
    "WORK_DIR": (lambda value: value.startswith("/"), "a path from the root"),
}


def env(site: Site) -> Iterator[Finding]:
    if not site.env_file.exists():
        yield broken("there is no .env", "`just init DOMAIN`, with the name that clients will use")
        return
    wrong = [*judge_missing(site.env, site.example), *judge_names(site.env, _known(site)), *judge_values(site.env)]
    yield from wrong or [ok(f".env: {len(site.env)} settings")]
    yield from judge_openness(site.env)
    for name, value in site.env.items():
        if os.environ.get(name, value) != value:
            yield warning(
                f"{name} is {os.environ[name]!r} in this shell, which Compose takes before .env's", f"`unset {name}`"
            )


def judge_missing(env: Mapping[str, str], example: Mapping[str, str]) -> Iterator[Finding]:
    for name in example:
        if not env.get(name):
            yield broken(f"{name} isn't set in .env", f"`{name}={example[name]}`, as in .env.example; then `just up`")


def judge_names(env: Mapping[str, str], known: frozenset[str]) -> Iterator[Finding]:
    for name in sorted(env.keys() - known):
        if not _OF_OTHERS.fullmatch(name):
            alike = get_close_matches(name, known, n=1)
            fix = f"is {alike[0]} meant? If not, remove it" if alike else "remove it"
            yield warning(f"{name} in .env: no such setting", fix)


def judge_values(env: Mapping[str, str]) -> Iterator[Finding]:
    for name, (is_right, what) in _RULES.items():
        if (value := env.get(name)) and not is_right(value):
            yield broken(f"{name}={value} in .env: it has to be {what}", f"correct {name} in .env; then `just up`")
    for name, field in FIELDS.items():
        if name in env and name not in _RULES and (why := _complaint(field, env[name])):
            yield broken(f"{name}={env[name]} in .env: {why}", f"correct {name} in .env; then `just up`")
    if env.get("HTTPS_PORT") and env.get("HTTPS_PORT") == env.get("OPERATOR_PORT"):
        yield broken("HTTPS_PORT and OPERATOR_PORT are the same", "give them different values in .env; then `just up`")


def judge_openness(env: Mapping[str, str]) -> Iterator[Finding]:
    if not env.get("API_KEYS"):
        yield warning(
            "API keys aren't required: whoever reaches the gateway may post tasks",
            "make keys (`just keys make NAME`), then `API_KEYS=required` in .env; then `just up`",
        )
    if (value := env.get("ALLOW_PUBLIC_POST_MODEL", "")).lower() in _NO:
        yield warning(
            f"ALLOW_PUBLIC_POST_MODEL={value} in .env lets the public register models",
            "any value allows it; remove the line, then `just up`",
        )


def _complaint(field: FieldInfo, value: str) -> str:
    kind: Any = Annotated[field.annotation, field]
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        return error.errors()[0]["msg"]
    return ""


def _known(site: Site) -> frozenset[str]:
    compose = site.folder.glob("*.yaml")
    variables = {name for file in compose for name in re.findall(r"\$\{([A-Z_]+)", file.read_text())}
    return frozenset(site.example.keys() | FIELDS.keys() | variables)


def secrets(site: Site) -> Iterator[Finding]:
    """The files are for everybody to read, because containers have users of their own; the folder is what keeps others
    of this host out.
    """
    domain = site.setting("DOMAIN") or "DOMAIN"
    if not site.secrets.is_dir():
        yield broken("there is no secrets/", f"`just init {domain}`")
        return
    mode = site.secrets.stat().st_mode & 0o777
    if mode & 0o077:
        yield broken(f"secrets/ is open to other users of this host (mode {mode:o})", "`chmod 700 secrets`")
    elif not os.access(site.secrets, os.X_OK):
        yield warning("secrets/ isn't yours to read, so it wasn't looked at", "`sudo just doctor`")
        return
    found = [
        _judge_secret(site, name, f"`just init {domain}`; then `just down && just up`, for what runs has the old one")
        for name in PASSWORDS
    ]
    yield from filter(None, found)
    if not any(found):
        yield ok(f"secrets/ has {', '.join(PASSWORDS)}")


def _judge_secret(site: Site, name: str, renewal: str) -> Finding | None:
    path = site.secrets / name
    if not path.exists():
        return broken(f"secrets/{name} is missing", renewal)
    if not site.secret(name):
        return broken(f"secrets/{name} is empty", f"`rm secrets/{name}`, {renewal}")
    if not path.stat().st_mode & 0o004:
        return broken(
            f"secrets/{name} can't be read in containers, whose users are others", f"`chmod a+r secrets/{name}`"
        )
    return None
