"""`python -m demo`: the whole system on this machine, and the main job on it."""

import argparse
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import requests

from demo import engine, image, job
from demo.ports import Ports
from demo.stack import REPOSITORY, NotReadyError, Stack
from demo.supervision import SupervisorError
from tls.certs import FOLDER as CERTIFICATES
from tls.certs import Certificates, CertificatesInTheWayError

FOLDER = REPOSITORY / ".run"
# Apart from the servers' usual ports, which the machine's own may have.
PORTS = Ports(gateway=8443, core=7000, redis=7379, rabbitmq=7672, rabbitmq_dist=7673, epmd=7369)
SETTINGS = {"ALLOW_PUBLIC_POST_MODEL": "yes"}  # the gateway listens on 127.0.0.1 only
# What the user can act on; anything else is a bug and shows its traceback.
EXPECTED = (
    NotReadyError,
    SupervisorError,
    LookupError,
    CertificatesInTheWayError,
    engine.NoEngineError,
    image.ImageError,
    job.JobError,
    requests.RequestException,
)


def demo_stack() -> Stack:
    # An operator's own certificate in tls/certs is no use on localhost: the demo makes another one then.
    own = Certificates(CERTIFICATES)
    certificates = None if own.cert.exists() and not own.ca_key.exists() else CERTIFICATES
    return Stack(FOLDER, PORTS, settings=SETTINGS, certificates=certificates, daemon=True)


def up(stack: Stack, _: argparse.Namespace) -> None:
    started = time.monotonic()
    stack.up()
    say(f"up after {time.monotonic() - started:.1f} s: {stack.gateway_url}")


def down(stack: Stack, _: argparse.Namespace) -> None:
    stack.down()
    say(f"the demo is down; its data, if any, stays in {shown(stack.folder)}")


def run(stack: Stack, _: argparse.Namespace) -> None:
    outcome = job.run(stack)
    say("\nThe result:")
    for name, size in outcome.files.items():
        say(f"  {size:>8} B  {name}")
    say("\nHow long it took:")
    for step, seconds in outcome.steps.items():
        say(f"  {seconds:>8.2f} s  {step}")
    curl = f"curl --cacert {shown(stack.certificates.ca_cert)}"
    say(f"""
Try it yourself:
  {curl} {stack.gateway_url}/api/models/
  {curl} -F zip_file=@{shown(outcome.posted)} '{stack.gateway_url}/api/tasks/?model_human_readable_id={job.MODEL}'
  {curl} -o result.zip {stack.gateway_url}/api/tasks/{outcome.task}

Whoever reaches it may post tasks; it listens on this machine only. With keys: docs/keys.md.
It stays up. just ps, just logs show it; just down stops it, just reset-demo deletes its data, too.""")


def status(stack: Stack, _: argparse.Namespace) -> None:
    for process in stack.status():
        pid = f"pid {process.pid}" if process.pid else ""
        say(f"{process.name:<12}{process.state:<10}{pid:<14}{timedelta(seconds=process.up_seconds)}")
    if not stack.is_up():
        say("the demo is down; just demo starts it")


def logs(stack: Stack, arguments: argparse.Namespace) -> None:
    """Becomes tail, which follows the logs until it is interrupted."""
    files = [stack.log(arguments.name)] if arguments.name else stack.logs()
    if not files or not all(path.exists() for path in files):
        raise LookupError(f"no log of that name in {[path.stem for path in stack.logs()]}")
    os.execvp("tail", ["tail", "--lines=20", "--follow=name", *map(str, files)])  # noqa: S606


def reset(stack: Stack, arguments: argparse.Namespace) -> None:
    question = f"Stop the demo and delete {shown(stack.folder)} with all its data? [y/N] "
    if not arguments.yes and input(question).strip().lower() not in ("y", "yes"):
        say("nothing was changed")
        return
    stack.down()
    if docker_host := engine.machine_engine():
        image.remove(docker_host)
    stack.delete()
    say("down, and its data is gone")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def shown(path: Path) -> str:
    """As the user would type it here."""
    return os.path.relpath(path)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    commands = parser.add_subparsers(required=True)
    described = {
        up: "start everything and wait until it is ready",
        run: "register the example model, post a zip, fetch the result",
        down: "stop everything that up started; the data stays",
        status: "what runs",
        logs: "follow the logs of all processes, or of one",
        reset: "down, and delete the data",
    }
    parsers = {}
    for command, text in described.items():
        parsers[command] = commands.add_parser(command.__name__, help=text)
        parsers[command].set_defaults(command=command)
    parsers[logs].add_argument("name", nargs="?")
    parsers[reset].add_argument("--yes", action="store_true", help="don't ask")
    arguments = parser.parse_args()
    try:
        arguments.command(demo_stack(), arguments)
    except EXPECTED as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
