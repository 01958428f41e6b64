"""The process that a worker works for: once it is gone, whatever has ended it, the worker ends as well."""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.25
_LEAVE_SECONDS = 30.0  # that a job is given to save when nobody wants it any more
_at_work = threading.RLock()  # held while this process is at a job
_watching: set[tuple[int, Owner]] = set()  # by which process: a fork takes the set over, and not the thread


@dataclass(frozen=True)
class Owner:
    """A process, told from a later one that gets the same number by when it started.

    Args:
        pid: Its number.
        started: When it started, in ticks since the machine did; None where the system does not say.
        place: Where the number means this process: a machine since it was started, and a namespace there.
    """

    pid: int
    started: int | None
    place: str

    @classmethod
    def me(cls) -> Owner:
        """Return this process."""
        return cls(os.getpid(), _started(os.getpid()), _place())

    @property
    def is_me(self) -> bool:
        """Whether it is this process."""
        return self.pid == os.getpid() and self.place == _place()

    @property
    def is_gone(self) -> bool:
        """Whether it has ended; of a process in another place, as on another machine, nothing is known."""
        if self.place != _place():
            return False
        if self.started is not None:
            return _started(self.pid) != self.started
        try:
            os.kill(self.pid, 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False

    @contextmanager
    def working(self) -> Iterator[None]:
        """Be at a job of the owner's for the duration of a block; without one, a worker ends soon after its owner."""
        if self.is_me:
            yield
            return
        self._watch()
        with _at_work:
            yield

    def _watch(self) -> None:
        """Let a thread end this process when the owner is gone, unless there is such a thread."""
        if (os.getpid(), self) not in _watching:
            _watching.add((os.getpid(), self))
            threading.Thread(target=self._end_with, name="owner", daemon=True).start()

    def _end_with(self) -> None:
        while not self.is_gone:
            time.sleep(_POLL_SECONDS)
        _at_work.acquire(timeout=_LEAVE_SECONDS)
        os._exit(1)


def _started(pid: int) -> int | None:
    """Return when a process started, None if it has ended or the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # its name may have spaces
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@functools.cache
def _place() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
