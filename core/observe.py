"""Logs: structlog, one JSON object a line on stdout (or readable lines in a terminal). The id of the request on whose
behalf something happens, which all its lines have.
"""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import structlog

REQUEST: Final = ContextVar("request", default="")
"""Its id; empty where nobody asked, as in a sweep. What is begun on the way inherits it."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id(offered: str) -> str:
    """The id that somebody sent, or nothing if it isn't fit for headers, labels and logs."""
    return offered if _REQUEST_ID.fullmatch(offered) else ""


@contextmanager
def on_behalf_of(request: str, **about: object) -> Iterator[None]:
    """What happens in it is that request's, and its lines say what it is about."""
    token = REQUEST.set(request)
    try:
        with structlog.contextvars.bound_contextvars(**about):
            yield
    finally:
        REQUEST.reset(token)


def set_up_logs(service: str) -> None:
    """Call once at start. Events are dotted facts in the past tense with keys, never prose and never user data."""
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_request,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stdout.isatty():
        processors.append(structlog.dev.ConsoleRenderer())
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(
            file=os.fdopen(sys.stdout.fileno(), "w", buffering=1, closefd=False)
        ),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(levelname)s %(name)s %(message)s")
    # It reports each failed try to connect as an error; core/amqp.py says so once, as an event.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    # Of each malformed form a line that is no JSON, so that any client could fill the log.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


def _name_request(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if request := REQUEST.get():
        event.setdefault("request", request)
    return event
