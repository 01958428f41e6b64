"""A signal asks the loop to finish its step, save and end; a second interrupt leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

ASKED = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP") if hasattr(signal, name)
]
_ASKED_SECONDS = 1.0


class BrokenOff(KeyboardInterrupt):
    """A signal came while what was done was not worth being finished."""


class Stopping:
    """Says whether a signal has asked to stop; catches them while it is entered, in the main thread only.

    Args:
        on_signal: Called at each signal. One that is entered within another hands its signals on.
        asked: Another way to ask, looked at about once a second; counts as SIGTERM.
        leave: Called at a second interrupt.
    """

    def __init__(
        self,
        on_signal: Callable[[], None] = lambda: None,
        asked: Callable[[], bool] = lambda: False,
        leave: Callable[[], None] | None = None,
    ) -> None:
        self._on_signal, self._asked, self._leave = on_signal, asked, leave or _exit_at_once
        self._next = time.monotonic()
        self.signal: signal.Signals | None = None
        self._before: dict[int, Any] = {}
        self._breaks_off = False

    def __call__(self) -> bool:
        """Return True from the first signal on."""
        if self.signal is None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _ASKED_SECONDS
            self.signal = signal.SIGTERM if self._asked() else None
        return self.signal is not None

    def __enter__(self) -> Stopping:
        """Start to catch."""
        if threading.current_thread() is threading.main_thread():
            # Ignored signals stay so: nohup wants the run to outlive its terminal. The command line heeds SIGINT.
            caught = [n for n in ASKED if signal.getsignal(n) not in (signal.SIG_IGN, None)]
            self._before = {number: signal.signal(number, self._catch) for number in caught}
            outer = [one for handler in self._before.values() if (one := _owner(handler))]
            self.signal = self.signal or next((one.signal for one in outer if one.signal), None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let signals do what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """Let a signal end a block at once by BrokenOff: nothing looks whether one has come while data are read."""
        try:
            self._breaks_off = True
            yield
        finally:
            self._breaks_off = False

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            self._leave()
        self.signal = signal.Signals(number)
        self._on_signal()
        if outer := _owner(self._before.get(number)):
            outer._catch(number, frame)
        if self._breaks_off:
            raise BrokenOff


def _exit_at_once() -> None:
    show_cursor = b"\x1b[?25h" if sys.stderr.isatty() else b""
    with contextlib.suppress(OSError):
        os.write(2, b"\nleft at once; what was saved before is intact\n" + show_cursor)
    os._exit(128 + signal.SIGINT)


def _owner(handler: Any) -> Stopping | None:
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Stopping) else None
