"""The running system: its containers, what they say of themselves, and what Redis and RabbitMQ hold."""

import hashlib
import json
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from deploy.compose import gateway_url
from deploy.doctor.finding import Finding, broken, ok, warning
from deploy.doctor.site import Container, Site
from tls.certs import Certificates

CALL_SECONDS: Final = 5.0
RABBITMQ_SECONDS: Final = 20.0
"""Each of its commands starts an Erlang of its own."""

OURS: Final = ("core", "gateway", "gpu_agent")
RESTARTS: Final = 3
FULL_PERCENT: Final = 80
LINE_CHARACTERS: Final = 160
_TROUBLE: Final = re.compile(r"\b(error|critical|fatal|panic|refused|denied|exception|can't|cannot)\b", re.IGNORECASE)
_DEAD_LETTERS: Final = "dead_letters"


def containers(site: Site) -> Iterator[Finding]:
    """Compose's; a swarm looks after its own, and docker.swarm after the swarm."""
    if not site.engine.is_well or site.of_swarm:
        return
    if not site.containers:
        if site.engine_info.get("Swarm", {}).get("LocalNodeState") != "active":
            yield ok("nothing runs; `just up` starts it")
        return
    wanted = site.run("docker", "compose", "config", "--services").out.split()
    for service in sorted({*wanted, *site.containers}):
        container = site.containers.get(service)
        yield judge_container(service, container, _last_words(site, container)) if container else _missing(service)
        if container and container.status == "running" and service in OURS:
            yield from judge_code(service, _code_in(site, container), site.folder)


def judge_container(service: str, container: Container, last_words: str) -> Finding:
    said = f'; last words: "{last_words}"' if last_words else ""
    logs = f"`just logs {service}` says why"
    match container.status, container.health:
        case "running", "healthy" | "":
            if container.restarts > RESTARTS:
                return warning(f"{service} runs, after {container.restarts} restarts{said}", logs)
            return ok(f"{service} runs{', healthy' if container.health else ''}")
        case "running", "starting":
            return warning(f"{service} is starting", f"wait a moment; if it stays, {logs}")
        case "running", health:
            return broken(f"{service} runs, and is {health}{said}", f"`docker compose restart {service}`; {logs}")
        case "restarting", _:
            return broken(f"{service} restarts over and over, {container.restarts} times by now{said}", logs)
        case status, _:
            return broken(f"{service} is {status} (exit code {container.exit_code}){said}", f"`just up`; {logs}")


def _missing(service: str) -> Finding:
    return broken(f"{service} has no container, while others have", "`just up`")


def judge_code(service: str, inside: Mapping[str, str], folder: Path) -> Iterator[Finding]:
    """Whether a container runs what stands in the checkout: `inside` are its files' SHA-256 by path."""
    packages = {Path(name).parts[0] for name in inside}
    files = [path for package in packages for path in (folder / package).rglob("*") if path.is_file()]
    here = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if "__pycache__" not in path.parts
    }
    other = sorted(name for name in inside.keys() | here.keys() if inside.get(name) != here.get(name))
    if other:
        yield warning(f"{service} runs another version than this checkout: {len(other)} files differ", "`just up`")


def _code_in(site: Site, container: Container) -> Mapping[str, str]:
    """Empty if the container can't be asked."""
    list_files = "cd /app && find * -type f -not -path '*/__pycache__/*' -exec sha256sum {} +"
    said = site.run("docker", "exec", container.id, "sh", "-c", list_files)
    return {name: digest for digest, _, name in (line.partition("  ") for line in said.out.splitlines())}


def _last_words(site: Site, container: Container) -> str:
    """Of its health check, or of its log the last line that tells of trouble, or else the very last; nothing of a
    container that is well.
    """
    if container.health == "unhealthy" and container.complaint:
        return last_trouble(container.complaint.splitlines())
    if container.status == "running" and container.restarts <= RESTARTS:
        return ""
    said = site.run("docker", "logs", "--tail", "100", container.id)
    return last_trouble((said.out + "\n" + said.error).splitlines())


def last_trouble(lines: Sequence[str]) -> str:
    said = [line.strip() for line in lines if line.strip()]
    troubles = [line for line in said if _TROUBLE.search(line)]
    return (troubles or said or [""])[-1][:LINE_CHARACTERS]


def answers(site: Site) -> Iterator[Finding]:
    """What core and gateway say of being ready, from where operators and clients call them."""
    if _runs(site, "core") and (port := site.port("OPERATOR_PORT")):
        yield _judge_ready(site.core_url(port), site.core_trust)
    if site.setting("TLS_CLIENT_CA_FILE"):
        return  # it answers clients that show a certificate, and the doctor has none
    if _runs(site, "gateway") and (port := site.port("HTTPS_PORT")):
        own = Certificates(site.certificates).ca_cert
        context = ssl.create_default_context(cafile=str(own) if own.exists() else None)
        for name in dict.fromkeys(("localhost", site.setting("DOMAIN") or "localhost")):
            yield _judge_ready(gateway_url(name, port), context)


def _judge_ready(url: str, context: ssl.SSLContext | None) -> Finding:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=CALL_SECONDS, context=context) as answer:  # noqa: S310
            return judge_ready(url, json.load(answer))
    except urllib.error.HTTPError as error:
        return judge_ready(url, _json(error.read()))
    except urllib.error.URLError as error:
        return judge_unreached(url, error.reason)
    except OSError as error:
        return judge_unreached(url, error)


def judge_ready(url: str, said: Mapping[str, Any]) -> Finding:
    missing, degraded = said.get("missing") or {}, said.get("degraded") or {}
    words = ", ".join(f"{part} {state}" for part, state in {**missing, **degraded}.items())
    fix = f"`just up` starts what was stopped; `just logs {next(iter({**missing, **degraded}), 'core')}` says why"
    if missing or not said.get("ready"):
        return broken(f"{url} isn't ready: {words or said}", fix)
    return warning(f"{url} takes tasks, but {words}", fix) if degraded else ok(f"{url} is ready")


def judge_unreached(url: str, reason: object) -> Finding:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return broken(
            f"{url}: its certificate isn't accepted: {reason.verify_message}", "see what is said of the certificate"
        )
    if isinstance(reason, socket.gaierror):
        return warning(
            f"{url}: the name is unknown on this host", "have your DNS name this host, or add it to /etc/hosts"
        )
    return broken(f"{url} doesn't answer: {reason}", "`just ps` shows what runs, `just logs` what it says")


def agents(site: Site) -> Iterator[Finding]:
    """Those that core has heard of. A core that doesn't know the question is an older one."""
    port = site.port("OPERATOR_PORT")
    if not (_runs(site, "core") and port):
        return
    request = urllib.request.Request(  # noqa: S310
        f"{site.core_url(port)}/api/agents/", headers={"Authorization": f"Bearer {site.secret('core_token')}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=CALL_SECONDS, context=site.core_trust) as answer:  # noqa: S310
            yield from judge_agents(json.load(answer))
    except urllib.error.HTTPError as error:
        if error.code == 401:
            yield broken(
                "core refuses the token in secrets/core_token: it was started with another", "`just down && just up`"
            )
    except OSError:
        return  # `answers` says so


def judge_agents(heard: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    if not any(agent["is_there"] for agent in heard):
        yield broken("core hears of no agent: tasks wait", "`just up` starts it; `just logs gpu_agent` says more")
    for agent in heard:
        name = agent["name"]
        if not agent["is_there"]:
            seen = f"{datetime.fromisoformat(agent['seen']):%Y-%m-%d %H:%M} UTC"
            yield warning(
                f"the agent {name} was last heard of on {seen}", "start it, unless it was taken away on purpose"
            )
            continue
        troubles = list((agent.get("problems") or {}).values())
        troubles += [f"{gpu['uuid']}: {gpu['problem']}" for gpu in agent.get("gpus") or () if gpu.get("problem")]
        for trouble in troubles:
            yield broken(f"the agent {name}: {trouble}", f"look at its host, {agent.get('host') or 'unknown'}")
        if not troubles:
            yield ok(f"the agent {name}: {agent.get('slots', 0)} slots, {len(agent.get('running') or ())} tasks")


def redis(site: Site) -> Iterator[Finding]:
    if not _runs(site, "redis"):
        return
    environment = {"REDISCLI_AUTH": site.secret("redis_password")}
    shell = ("docker", "exec", "--env", "REDISCLI_AUTH", site.containers["redis"].id, "sh", "-c")
    said = site.run(*shell, "redis-cli $REDIS_CLI_TLS --no-auth-warning INFO", environment=environment)
    figures = dict(line.split(":", 1) for line in said.out.splitlines() if ":" in line)
    if "redis_version" not in figures:
        words = (said.out or said.error).strip().splitlines() or ["nothing"]
        fix = "`just down && just up`" if "AUTH" in words[-1] else "`just logs redis` says why"
        yield broken(f"Redis answers: {words[-1]}", fix)
        return
    yield from judge_redis(figures)


def judge_redis(figures: Mapping[str, str]) -> Iterator[Finding]:
    """By what INFO says."""
    if figures.get("loading") == "1":
        yield warning(f"Redis loads its data, for {figures.get('loading_eta_seconds')} more seconds", "wait")
        return
    used, limit = int(figures["used_memory"]), int(figures["maxmemory"])
    seen = f"Redis {figures['redis_version']} uses {used >> 20} of {limit >> 20} MiB"
    if not limit:
        yield broken(
            f"{seen}: it has no limit, and takes all memory of the host", "set REDIS_MAXMEMORY in .env; then `just up`"
        )
    elif used * 100 >= limit * FULL_PERCENT:
        fix = "a larger REDIS_MAXMEMORY or a smaller KEEP_OUTPUTS_HOURS in .env; then `just up`"
        yield warning(f"{seen}: uploads are refused when it is full", fix)
    else:
        yield ok(seen)
    if figures.get("aof_enabled") != "1":
        yield broken("Redis keeps nothing on disk: appendonly is off", "`just up` gives it deploy/redis.conf")
    elif figures.get("aof_last_write_status") != "ok":
        yield broken(
            "Redis can't write its file, and refuses writes",
            "make room on the engine's disk; `just logs redis` says more",
        )
    elif figures.get("aof_last_bgrewrite_status") != "ok":
        yield warning("Redis couldn't rewrite its file, which grows", "see memory and disk; `just logs redis` says why")


def rabbitmq(site: Site) -> Iterator[Finding]:
    if not _runs(site, "rabbitmq"):
        return
    ask = ("docker", "exec", site.containers["rabbitmq"].id, "rabbitmqctl", "--quiet", "--formatter", "json")
    status = site.run(*ask, "status", seconds=RABBITMQ_SECONDS)
    queues = site.run(*ask, "list_queues", "name", "messages", "consumers", seconds=RABBITMQ_SECONDS)
    if not (status.is_well and queues.is_well):
        words = (status.error or queues.error or "nothing").splitlines()
        yield broken(
            f"RabbitMQ doesn't answer: {words[0]}", "`docker compose restart rabbitmq`; `just logs rabbitmq` says why"
        )
        return
    yield from judge_rabbitmq(json.loads(status.out), json.loads(queues.out))


def judge_rabbitmq(status: Mapping[str, Any], queues: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    waiting = {queue["name"]: queue["messages"] for queue in queues}
    shown = ", ".join(f"{count} in {name}" for name, count in sorted(waiting.items()) if count) or "all queues empty"
    if alarms := status.get("alarms"):
        words = json.dumps(alarms)
        yield broken(
            f"RabbitMQ takes no messages, for an alarm: {words}", "see memory and disk; tasks start when it is over"
        )
    else:
        yield ok(f"RabbitMQ {status.get('rabbitmq_version', '')}: {shown}")
    if dead := waiting.get(_DEAD_LETTERS):
        yield warning(
            f"{dead} dead letters: messages that no agent could read, or that the queue had no room for",
            "look at them; then `docker compose exec rabbitmq rabbitmqctl purge_queue dead_letters`",
        )


def _runs(site: Site, service: str) -> bool:
    container = site.containers.get(service)
    return container is not None and container.status == "running"


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
