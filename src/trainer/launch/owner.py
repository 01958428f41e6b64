"""The process that a worker works for: a worker ends soon after its owner."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trainer.files.process import Process

_POLL_SECONDS = 0.25
_LEAVE_SECONDS = 30.0  # the time that a job has to save when its owner has ended
_at_work = threading.RLock()  # held while this process runs a job
_watching: set[tuple[int, Owner]] = set()  # with the pid, because a fork inherits the set but not the thread


@dataclass(frozen=True)
class Owner(Process):
    """A process that others work for."""

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
