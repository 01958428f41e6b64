"""Signals that stop training: the first one after the current step, a second interrupt at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ASKED = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP") if hasattr(signal, name)
]
_ASKED_SECONDS = 1.0


class BrokenOff(KeyboardInterrupt):
    """A signal interrupted work that need not be finished."""


class Stopping:
    """Tells whether training should stop. Catches signals while it is entered, in the main thread only.

    If one is entered while another is active, both get the signal.

    Args:
        on_signal: Called at each signal.
        asked: Returns whether training should stop for another reason; called about once a second, counts as SIGTERM.
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
        """Return whether a signal has come."""
        if self.signal is None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _ASKED_SECONDS
            self.signal = signal.SIGTERM if self._asked() else None
        return self.signal is not None

    def __enter__(self) -> Stopping:
        """Start catching signals."""
        if threading.current_thread() is threading.main_thread():
            # Ignored signals stay ignored: nohup lets a run outlive its terminal. cli.py enables SIGINT.
            caught = [n for n in ASKED if signal.getsignal(n) not in (signal.SIG_IGN, None)]
            self._before = {number: signal.signal(number, self._catch) for number in caught}
            outer = [one for handler in self._before.values() if (one := _owner(handler))]
            self.signal = self.signal or next((one.signal for one in outer if one.signal), None)
        return self

    def __exit__(self, *error: object) -> None:
        """Restore the earlier signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """Let a signal raise BrokenOff in a block, such as loading data, that does not check for signals itself."""
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
        os.write(2, b"\nexited at once; saved checkpoints are intact\n" + show_cursor)
    os._exit(128 + signal.SIGINT)


def _owner(handler: Any) -> Stopping | None:
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Stopping) else None
