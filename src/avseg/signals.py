"""End on SIGTERM and SIGHUP as on Ctrl-C: clean up, print one line, and exit with the usual code."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_PATIENCE = 5.0
"""Seconds of clean-up during which further signals are ignored: a closed terminal sends two, systemd another kind."""


class Terminated(SystemExit):
    """The process got a signal.

    Args:
        signal_number: The signal.

    Attributes:
        number: The exit code, 128 + the number of the signal.
        name: Its name, such as ``SIGTERM``.
    """

    def __init__(self, signal_number: int) -> None:
        self.number, self.name = 128 + signal_number, signal.Signals(signal_number).name
        super().__init__(self.number)


@contextmanager
def terminating() -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM and SIGHUP inside the block, in the main thread.

    A signal that is ignored, as by ``nohup``, or has a handler keeps it.
    """
    first: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if not first or time.monotonic() - first[0] > _PATIENCE:
            first.append(time.monotonic())
            raise Terminated(number)

    with _handled(handle):
        yield


@contextmanager
def default_handlers() -> Iterator[None]:
    """Give SIGTERM its default action inside the block: Lightning saves a run at SIGTERM only if nothing handles it."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL) if main else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    main = threading.current_thread() is threading.main_thread()
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if main and signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
