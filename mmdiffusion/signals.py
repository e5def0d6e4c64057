"""Signals that ask a training to stop: heard at once, answered between two steps; before the first, at once."""

import logging
import os
import signal
import threading
from types import FrameType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send before they end a job: SIGTERM, or SIGUSR1 by SLURM's --signal."""
HEARD = (*ENDING, signal.SIGINT)
"""Those, and Ctrl-C."""
EXIT_STATUS = 75
"""Of a process that stopped and can go on: EX_TEMPFAIL of sysexits.h, which no crash ends with."""

_log = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818 - no error: it was asked for
    """A training has stopped between two steps, because a signal asked for it, and can go on."""


def end_when_asked() -> None:
    """Until a training listens, end at once when a scheduler asks: no step has been made, so the command goes on."""
    for number in ENDING:
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    message = f"mmdiffusion: {name}: stopped, with no step at hand; the same command goes on\n"
    os.write(2, message.encode())  # not through the buffer of stderr, which may be in use just now
    os._exit(EXIT_STATUS)  # an exception could be caught by what is being imported, or wait for other processes


class Signals:
    """Remembers that this process was asked to stop; asked a second time, it ends as if nobody had listened."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Hear signals from now on, if not already; only the main thread can."""
        if self._before:
            return
        self.name = None
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in HEARD}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        _log.warning("%s: stopping after this step", self.name)
        for heard in HEARD:
            signal.signal(heard, signal.default_int_handler if heard == signal.SIGINT else signal.SIG_DFL)

    def forget(self) -> None:
        """Leave signals to whoever had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
