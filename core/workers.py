"""Several processes of a service on one port: each has a loop, a heap and a listener of its own (SO_REUSEPORT)."""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

log = structlog.get_logger()

AGAIN_SECONDS: Final = 1.0
"""Before a worker that died is replaced: one that dies at its start mustn't keep a CPU busy."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG: Final = 1


def is_worker(count: int, *, ended: Callable[[int], None]) -> bool:
    """Forks so many processes, in which this returns True. In the one that called, which stays as their parent, it
    returns False, when all have ended: a signal to end is passed on to them, and one that dies by itself is replaced.
    `ended` is told each that has ended, by its pid.

    One is this process itself. Call it before there are threads or a loop.
    """
    return count == 1 or _Workers(ended).are_worked_by(count)


class _Workers:
    def __init__(self, ended: Callable[[int], None]) -> None:
        self._ended = ended
        self._pids: set[int] = set()
        self._is_ending = False

    def are_worked_by(self, count: int) -> bool:
        for number in _SIGNALS:
            signal.signal(number, self._end)
        while not self._is_ending or self._pids:
            while len(self._pids) < count and not self._is_ending:
                if self._fork():
                    return True
            pid, status = os.wait()
            self._pids.discard(pid)
            self._ended(pid)
            if not self._is_ending:
                log.error("worker.died", pid=pid, exit_code=os.waitstatus_to_exitcode(status))
                time.sleep(AGAIN_SECONDS)
        return False

    def _fork(self) -> bool:
        """True in the new process, which ends with its parent: it would hold the port."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        parent = os.getpid()
        pid = os.fork() if not self._is_ending else None
        if pid:
            self._pids.add(pid)
        elif pid == 0:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return pid == 0

    def _end(self, number: int, _: object) -> None:
        self._is_ending = True
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
