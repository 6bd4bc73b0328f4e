"""`python -m deploy`: the whole system in containers on this machine."""

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping

from demo.__main__ import demo_stack
from deploy import audit, dashboard, preparation, resets, rotation, swarm
from deploy.compose import (
    ENVIRONMENT,
    DeploymentError,
    check,
    core_url,
    gateway_url,
    has_inner_tls,
    refuse_on_swarm,
    running,
    say,
    show_compose,
)
from deploy.ports import listening, port_of
from tls import certs

EXPECTED = (DeploymentError, certs.CertificatesInTheWayError, certs.DomainError)
PORTS = {"gateway": "HTTPS_PORT", "core": "OPERATOR_PORT"}


def init(arguments: argparse.Namespace) -> None:
    for line in preparation.prepare(arguments.domain):
        say(line)
    say("\nNext: just up")


def up(_: argparse.Namespace) -> None:
    check()
    refuse_on_swarm("just swarm-update replaces what changed")
    settings = preparation.settings()
    ports, domain = _ports(settings), settings.get("DOMAIN") or "localhost"
    if certs.Certificates(certs.FOLDER).ca_key.exists():
        certs.ensure(certs.FOLDER, domain)
    preparation.derive()
    started = time.monotonic()
    try:
        show_compose("up", "--detach", "--wait", "--build", "--remove-orphans")
    except DeploymentError as error:
        raise DeploymentError(f"{error}: just ps shows which part, just logs NAME why.") from None
    address = gateway_url(domain, ports["HTTPS_PORT"])
    files = settings.get("COMPOSE_FILE", "")
    core, trusting = core_url(ports["OPERATOR_PORT"], files), "--cacert secrets/inner_ca " * has_inner_tls(files)
    open_to_all = "Whoever reaches this address may post tasks: docs/keys.md changes that.\n"
    say(f"""
up after {time.monotonic() - started:.0f} s: {address}
Clients trust tls/certs/ca.crt, unless the certificate is your own. Register a model, then post zips to it:
  curl -sS {trusting}-H @<(printf 'Authorization: Bearer %s' "$(cut -d' ' -f1 secrets/core_token)") -X POST \\
       '{core}/api/models/?human_readable_id=NAME&container_tag=IMAGE&use_gpu=false'
{"" if preparation.requires_keys() else open_to_all}just ps and just logs show what runs; just down stops it.""")


def _ports(settings: Mapping[str, str]) -> dict[str, int]:
    """By setting. Raises DeploymentError when one is no port, or another's."""
    ours, found = running(), {}
    for service, name in PORTS.items():
        value = settings.get(name, "")
        port = port_of(value)
        if port is None:
            raise DeploymentError(f"{name}={value} in .env has to be a port, 1 to 65535.")
        found[name] = port
        if service not in ours and port in listening():
            stop = "just down stops the demo, which runs" if demo_stack().is_up() else "Stop it"
            raise DeploymentError(
                f"Port {port} is taken by another process (sudo ss -ltnp 'sport = :{port}' names it). "
                f"{stop}, or set another {name} in .env."
            )
    return found


def down(_: argparse.Namespace) -> None:
    """Nothing to say where nothing was ever made: this runs for the demo, too."""
    if ENVIRONMENT.exists():
        check()
        show_compose("down", "--remove-orphans")


def ps(_: argparse.Namespace) -> None:
    if ENVIRONMENT.exists():
        check()
        show_compose("ps", "--all")


def logs(arguments: argparse.Namespace) -> None:
    """Follow those of the containers, of the demo, or of both, until interrupted."""
    names = [arguments.name] if arguments.name else []
    followed = []
    if demo_stack().is_up():
        followed.append([sys.executable, "-m", "demo", "logs", *names])
    if running():
        followed.append(["docker", "compose", "logs", "--follow", "--tail=20", *names])
    if not followed:
        raise DeploymentError("Nothing runs: just up or just demo starts it.")
    for process in [subprocess.Popen(command) for command in followed]:
        process.wait()


def reset(arguments: argparse.Namespace) -> None:
    chosen = resets.RESETS[arguments.kind]
    check()
    refuse_on_swarm(
        "docker stack rm inference-server stops it on all hosts, docker volume rm inference-server_rabbitmq deletes "
        "what RabbitMQ holds, docker volume rm inference-server_redis all models and tasks, just swarm-update starts it"
    )
    say(f"Deletes: {chosen.deletes}\nKeeps: {chosen.keeps}")
    if not arguments.yes and not _agreed():
        say("nothing was changed")
        return
    chosen.run()
    if chosen.starts_again:
        up(arguments)


def _agreed() -> bool:
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise DeploymentError("\nThere is nobody to ask: --yes goes on unasked. Nothing was changed.") from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    commands = parser.add_subparsers(required=True)
    described = {
        init: "make .env, the secrets and a certificate; nothing that is there is replaced",
        up: "build the images, start everything and wait until it is ready",
        down: "stop everything and remove the containers; the data stays",
        ps: "what runs",
        logs: "follow the logs of all parts, or of one",
        reset: "start anew, with more or less of what there was",
    }
    parsers = {}
    for command, text in described.items():
        parsers[command] = commands.add_parser(command.__name__, help=text)
        parsers[command].set_defaults(command=command)
    for command, text in {
        swarm.init: "make this host the first of a swarm, and start the system on it",
        swarm.join: "say how a further host joins it",
        swarm.update: "build, push, and replace what changed, one after the other",
    }.items():
        parsers[command] = commands.add_parser(f"swarm-{command.__name__}", help=text)
        parsers[command].set_defaults(command=command)
    parsers[dashboard.show] = commands.add_parser("dashboard", help="where the operator's page is")
    parsers[dashboard.show].set_defaults(command=dashboard.show)
    parsers[audit.show] = commands.add_parser("audit", help="who did what, the newest last")
    parsers[audit.show].set_defaults(command=audit.show)
    parsers[audit.show].add_argument("--since", metavar="TIME", help="as 2030-01-31T12:00Z")
    parsers[audit.show].add_argument("--task", metavar="UID", help="of a task or a model")
    parsers[audit.show].add_argument("--key", metavar="ID", help="of an API key")
    parsers[audit.show].add_argument(
        "--limit", type=int, metavar="N", help="the newest N: 100, and with --since, --task or --key all"
    )
    parsers[audit.show].add_argument("--json", action="store_true", help="an object a line, with requests' ids")
    parsers[rotation.rotate] = commands.add_parser("rotate-token", help="give core another token")
    parsers[rotation.rotate].set_defaults(command=rotation.rotate)
    parsers[rotation.rotate].add_argument("--end", action="store_true", help="the old one opens it no more")
    parsers[swarm.init].add_argument("address", help="where the other hosts reach this one")
    parsers[swarm.init].add_argument("options", nargs=argparse.REMAINDER, help="for docker swarm init")
    parsers[swarm.join].add_argument("role", choices=("worker", "manager"))
    parsers[init].add_argument("domain", help="the name or the IP address that clients will use")
    parsers[logs].add_argument("name", nargs="?")
    parsers[reset].add_argument("kind", choices=resets.RESETS)
    parsers[reset].add_argument("--yes", action="store_true", help="don't ask")
    arguments = parser.parse_args()
    try:
        arguments.command(arguments)
    except EXPECTED as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
