"""One fuzzing process, on atheris: `python -m tests.fuzz.process NAME [LIBFUZZER'S OPTION | CORPUS FOLDER]…`."""

import importlib
import logging
import sys

import atheris
import structlog

OURS = (
    *("core.contract", "core.routes.uploads", "core.routes.downloads", "core.routes.status", "core.routes.parameters"),
    *("core.calls", "core.tus", "core.amqp", "core.observe", "gpu_agent.archive", "gpu_agent.staging"),
    "inference_client.eventstream",
)
THEIRS = ("zipfile", "python_multipart", "werkzeug.http", "urllib.parse")
"""What reads strangers' bytes, and theirs for us: the fuzzer looks for inputs that take new branches there."""


def main(name: str, *options: str) -> None:
    logging.disable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with atheris.instrument_imports(include=[*OURS, *THEIRS]):
        targets = importlib.import_module("tests.fuzz.targets")
    atheris.Setup(["fuzz", *options], targets.TARGETS[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
