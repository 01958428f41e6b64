"""Identifies a process beyond its pid, so that another process can tell whether it still runs."""

from __future__ import annotations

import functools
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TEXT = re.compile(r"pid ([0-9]{1,9}) started ([0-9]{1,18}|unknown) on (\S.*)")


@dataclass(frozen=True)
class Process:
    """A process, identified beyond its pid, which a later process may get.

    Args:
        pid: The pid.
        started: Start time of the process in clock ticks since boot; None if the system does not provide it.
        place: Where the pid is valid: host name, boot id and pid namespace, as far as known.
    """

    pid: int
    started: int | None
    place: str

    @classmethod
    def me(cls) -> Self:
        """Return this process."""
        return cls(os.getpid(), started(os.getpid()), place())

    @classmethod
    def from_text(cls, line: str) -> Self | None:
        """Return the process that a `text` describes, None if it is none."""
        if (found := _TEXT.fullmatch(line)) is None:
            return None
        return cls(int(found[1]), None if found[2] == "unknown" else int(found[2]), found[3])

    @property
    def text(self) -> str:
        """The process in one line."""
        return f"pid {self.pid} started {'unknown' if self.started is None else self.started} on {self.place}"

    @property
    def is_me(self) -> bool:
        """Whether it is this process."""
        return self.pid == os.getpid() and self.place == place()

    @property
    def is_here(self) -> bool:
        """Whether its pid is valid in this process."""
        return all(theirs == ours for theirs, ours in zip(self.place.split(), place().split(), strict=False))

    @property
    def is_gone(self) -> bool:
        """Whether it has ended; False if that can't be known, as of a process on another machine."""
        if not self.is_here:
            here, there = place().split(), self.place.split()
            return len(there) > 1 and there[0] == here[0] and there[1:2] != here[1:2]  # the machine was restarted
        if self.started is not None:
            return started(self.pid) != self.started
        try:
            os.kill(self.pid, 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False


def started(pid: int) -> int | None:
    """Return the start time of a process, None if it has ended or the system does not provide it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # the name may contain spaces
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@functools.cache
def place() -> str:
    """Return where the pids of this process are valid."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
