"""Opens a file that data come from: links are followed, and what they lead to must be a file on a disk. Without torch.

Its path may stand in a configuration that somebody else wrote. So it is opened once, a pipe is not waited for, a
device not read, and whoever reads on gets the open file, not the path.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from pathlib import Path
from typing import Any

_SYSTEM = ("/proc", "/sys", "/dev")  # what is called a regular file there may wait for ever, or have no end
_IN_MEMORY = "/dev/shm"  # these are files like others
_BUFFER = 2**18  # bytes


def opened(path: str | Path) -> io.BufferedReader:
    """Open a file to be read from its beginning, up to the size that it has now.

    Raises:
        OSError: It can't be opened, or is no regular file, or one that the system makes up.
    """
    _require_regular(os.stat(path), path)  # to open some devices already does something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        _require_regular(found, path)
        place = _place(descriptor, path)
        if _is_below(place, _SYSTEM) and not _is_below(place, (_IN_MEMORY,)):
            raise OSError(errno.EINVAL, f"it lies in {place.parent}, where no data are kept", str(path))
    except OSError:
        os.close(descriptor)
        raise
    return io.BufferedReader(_Sized(descriptor, found.st_size), _BUFFER)


def name_of(file: io.BufferedReader, path: str | Path) -> str:
    """Return what opens the same file once more, whatever stands at its path by now, as far as the system has that."""
    return f"/proc/self/fd/{file.fileno()}" if sys.platform == "linux" else str(path)


class _Sized(io.FileIO):
    """A file that ends where it ended when it was opened."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__(descriptor)
        self._size = size

    def readinto(self, buffer: Any) -> int | None:
        return super().readinto(memoryview(buffer).cast("B")[: max(self._size - self.tell(), 0)])

    def readall(self) -> bytes:
        chunks = iter(lambda: self.read(max(self._size - self.tell(), 0)), b"")  # the system reads 2 GiB at most
        return b"".join(chunk for chunk in chunks if chunk)


def _require_regular(found: os.stat_result, path: str | Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def _place(descriptor: int, path: str | Path) -> Path:
    """Return where an open file lies, links followed."""
    if sys.platform == "linux":
        return Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    return Path(os.path.realpath(path))


def _is_below(path: Path, folders: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
