"""What a server counts of its requests, for Prometheus, and the lines that it logs of those that didn't go well."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

log = structlog.get_logger()

BUCKETS: Final = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 15, 60)
"""Seconds: from a poll's to those of an upload over a slow line."""

OF_SERVERS: Final = range(500, 550)
"""Statuses that a server is to blame for; those from 550 on are version 1's words for the state of a task."""

SLOW_SECONDS: Final = 5.0
LARGE_BYTES: Final = 2**20
"""A body of more takes its time."""

LINES_PER_MINUTE: Final = 60
WATCH_SECONDS: Final = 1.0


class Traffic:
    """One server's, which `registry` has. What happens with each request costs microseconds."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers = Histogram(
            "inference_server_http_request_duration_seconds",
            "From a request's headers to the first byte of its answer, by route; what may wait for an event has a route"
            " of its own, ending in ?wait. Status 499: the client went away first",
            ["method", "route", "status"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.received = Counter("inference_server_http_received_bytes", "Of requests' bodies", registry=registry)
        self.sent = Counter("inference_server_http_sent_bytes", "Of answers' bodies", registry=registry)
        self._in_flight = Gauge(
            "inference_server_http_requests_in_flight",
            "Requests whose answer isn't sent to its end, seen once a second",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._lag = Histogram(
            "inference_server_event_loop_lag_seconds",
            "How late the event loop got to something that was due, asked once a second",
            buckets=(0.01, 0.05, 0.25, 1, 5),
            registry=registry,
        )
        self._known: dict[tuple[str, str, int], Histogram] = {}
        self._minute = 0
        self._lines = 0

    def note(self, method: str, route: str, status: int, seconds: float, *, is_patient: bool, received: int) -> None:
        """A request is over. `received` are its body's bytes; one that `is_patient` asked to wait."""
        answers = self._known.get((method, route, status))
        if answers is None:
            answers = self._known[method, route, status] = self._answers.labels(method, route, str(status))
        answers.observe(seconds)
        if status in OF_SERVERS:
            self._log("request.unserved", method, route, status, seconds)
        elif seconds > SLOW_SECONDS and not is_patient and received < LARGE_BYTES:
            self._log("request.slow", method, route, status, seconds)

    def _log(self, event: str, method: str, route: str, status: int, seconds: float) -> None:
        """Not each: while a part is away, thousands a second fail."""
        minute = int(self._clock() / 60)
        if minute != self._minute:
            if self._lines > LINES_PER_MINUTE:
                log.warning("requests.unlogged", count=self._lines - LINES_PER_MINUTE)
            self._minute, self._lines = minute, 0
        self._lines += 1
        if self._lines <= LINES_PER_MINUTE:
            log.warning(event, method=method, route=route, status=status, seconds=round(seconds, 3))

    async def watch(self, in_flight: Callable[[], int]) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + WATCH_SECONDS
            await asyncio.sleep(WATCH_SECONDS)
            self._lag.observe(max(0.0, loop.time() - due))
            self._in_flight.set(in_flight())
