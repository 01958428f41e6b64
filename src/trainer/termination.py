"""SIGTERM and SIGHUP end a command as Ctrl-C does, so that files it is writing are removed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Terminated(BaseException):
    """A signal has ended the command.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextmanager
def raising() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise Terminated in a block, unless something else handles or ignores them.

    A run that trains handles them itself; under nohup SIGHUP stays ignored. Further signals don't disturb the cleanup.
    """
    process = os.getpid()
    found = {number for name in _NAMES if (number := getattr(signal, name, None)) is not None}
    caught = {number for number in found if signal.getsignal(number) is signal.SIG_DFL}

    def end(number: int, frame: FrameType | None) -> None:
        for one in caught:
            signal.signal(one, signal.SIG_IGN if os.getpid() == process else signal.SIG_DFL)
        if os.getpid() != process:  # a forked worker ends at once
            os.kill(os.getpid(), number)
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in caught:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)
