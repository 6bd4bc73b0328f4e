"""Logs: structlog, one JSON object a line on stdout (or readable lines in a terminal)."""

import logging
import os
import sys

import structlog


def set_up_logs(service: str) -> None:
    """Call once at start. Events are dotted facts in the past tense with keys, never prose and never user data."""
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
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
