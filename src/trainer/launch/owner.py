"""The process that a worker works for: a worker ends soon after its owner."""

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
_LEAVE_SECONDS = 30.0  # the time that a job has to save when its owner has ended
_at_work = threading.RLock()  # held while this process runs a job
_watching: set[tuple[int, Owner]] = set()  # with the pid, because a fork inherits the set but not the thread


@dataclass(frozen=True)
class Owner:
    """A process, identified beyond its pid, which a later process may get.

    Args:
        pid: The pid.
        started: Start time of the process in clock ticks since boot; None if the system does not provide it.
        place: Where the pid is valid: host name, boot id and pid namespace.
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
        """Whether it has ended; False for a process in another place, such as another machine."""
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
        """Run a job of the owner in a block: if the owner ends, this worker ends after the block."""
        if self.is_me:
            yield
            return
        self._watch()
        with _at_work:
            yield

    def _watch(self) -> None:
        """Start a thread that ends this process when the owner ends, unless it is running."""
        if (os.getpid(), self) not in _watching:
            _watching.add((os.getpid(), self))
            threading.Thread(target=self._end_with, name="owner", daemon=True).start()

    def _end_with(self) -> None:
        while not self.is_gone:
            time.sleep(_POLL_SECONDS)
        _at_work.acquire(timeout=_LEAVE_SECONDS)
        os._exit(1)


def _started(pid: int) -> int | None:
    """Return the start time of a process, None if it has ended or the system does not provide it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # the name may contain spaces
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
