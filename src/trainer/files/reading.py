"""Reads files from untrusted run directories: regular files of bounded size, plain data, no symlinks."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Limits that no real run reaches; session/bounds.py refuses to write more than can be read back.
MOST_JSON = 2**23  # bytes of status.json, sweep.json, state.json, a manifest
MOST_PREPROCESS = 2**26  # bytes of preprocess.json, which has numbers for each input
MOST_CODE = 2**25  # total bytes of the user's modules kept with a run
MOST_CONTAINERS = 150_000  # lists and dicts of a JSON file; in memory, a dict of one value takes 30 times its bytes
MOST_VALUES = 1_000_000  # a short string takes 12 times its bytes
MOST_PREPROCESS_VALUES = 3_500_000
LONGEST_ROW = 2**20  # bytes of a line of metrics.jsonl
_LARGE = 2**27
_CHUNK = 2**20  # bytes; small enough to be hashed while still in the processor's cache


class Unreadable(ValueError):
    """A file is not valid in a run directory; the message gives the reason without the path."""


def opened(path: str | Path) -> int:
    """Open a regular file for reading, without following symlinks or waiting for pipes, and return its descriptor.

    Raises:
        OSError: The file can't be opened, isn't a regular file, or is almost entirely a hole.
    """
    descriptor, found = _opened(path)
    try:
        _size(found, None)
    except Unreadable as error:
        os.close(descriptor)
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    return descriptor


def _opened(path: str | Path) -> tuple[int, os.stat_result]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symlink", str(path)) from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor, found


def content(path: str | Path, most: int = MOST_JSON) -> bytes:
    """Return the bytes of a file.

    Raises:
        OSError: The file can't be read.
        Unreadable: The file has more than `most` bytes.
    """
    descriptor, found = _opened(path)
    try:
        size = _size(found, most)
        chunks = []
        while size and (chunk := os.read(descriptor, size)):
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def _size(found: os.stat_result, most: int | None) -> int:
    """Return the size of an open file in bytes, unless it exceeds `most` or the file is almost entirely a hole."""
    if most is not None and found.st_size > most:
        raise Unreadable(f"has {found.st_size:,} bytes, more than the limit of {most:,}")
    if found.st_size > _LARGE and found.st_blocks * 512 < found.st_size // 100:
        raise Unreadable(f"claims {found.st_size:,} bytes, but nearly all of them were never written")
    return found.st_size


class Summed:
    """An open file of `size` bytes, read from its beginning, and the SHA-256 of the bytes read so far."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._descriptor, self._hash = descriptor, hashlib.sha256()

    @property
    def sum(self) -> str:
        """The SHA-256 of the bytes read so far, in hexadecimal digits."""
        return self._hash.hexdigest()

    def into(self, memory: memoryview) -> None:
        """Fill memory with the next bytes.

        Raises:
            OSError: The file can't be read.
            Unreadable: The file ends too early.
        """
        while memory:
            count = os.readv(self._descriptor, [memory[:_CHUNK]])
            if not count:
                raise Unreadable("ends too early")
            self._hash.update(memory[:count])
            memory = memory[count:]

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes; raises the same errors as `into`."""
        data = bytearray(count)
        self.into(memoryview(data))
        return bytes(data)

    def skip(self, to: int) -> None:
        """Read up to an offset, only for the sum; raises the same errors as `into`."""
        memory = memoryview(bytearray(_CHUNK))
        for start in range(os.lseek(self._descriptor, 0, os.SEEK_CUR), to, _CHUNK):
            self.into(memory[: to - start])


@contextmanager
def summed(path: Path) -> Iterator[Summed]:
    """Open a file of any size, to be read together with its SHA-256.

    Raises:
        OSError: The file can't be opened or isn't a regular file.
        Unreadable: The file is almost entirely a hole.
    """
    descriptor, found = _opened(path)
    try:
        yield Summed(descriptor, _size(found, None))
    finally:
        os.close(descriptor)
