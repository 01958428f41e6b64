"""Reads files of runs, which somebody else may have made: regular files of bounded size, plain data, no links."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Self

# Bounds that no real run meets; `bounds` keeps a run from writing what is beyond them.
MOST_JSON = 2**23  # bytes of status.json, sweep.json, state.json, a manifest
MOST_PREPROCESS = 2**26  # bytes of preprocess.json, which has numbers for each input
MOST_CODE = 2**25  # bytes of a run's own modules together
MOST_CONTAINERS = 150_000  # lists and dicts of a JSON file: a dict of one value takes 30 times its bytes
MOST_VALUES = 1_000_000  # a short text takes 12 times its bytes
MOST_PREPROCESS_VALUES = 3_500_000
LONGEST_ROW = 2**20  # bytes of a line of metrics.jsonl
_LARGE = 2**27
_CHUNK = 2**20  # bytes that are summed while they are in the processor's cache


class Unreadable(ValueError):
    """A file is not what a run would hold; the message says what is wrong, without the path."""


def opened(path: str | Path) -> int:
    """Open a regular file for reading and return its descriptor; links are not followed, pipes not waited for.

    Raises:
        OSError: It can't be opened, is something else, or nearly none of it was ever written.
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
            raise OSError(errno.ELOOP, "it is a link", str(path)) from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor, found


def content(path: str | Path, most: int = MOST_JSON) -> bytes:
    """Return the bytes of a file.

    Raises:
        OSError: It can't be read.
        Unreadable: It has more than `most` bytes.
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
    """Return how many bytes an open file has, unless they are more than `most` or were never written."""
    if most is not None and found.st_size > most:
        raise Unreadable(f"has {found.st_size:,} bytes, more than the {most:,} that such a file may have")
    if found.st_size > _LARGE and found.st_blocks * 512 < found.st_size // 100:
        raise Unreadable(f"claims {found.st_size:,} bytes, and nearly none of them were ever written")
    return found.st_size


class Summed:
    """A file of any size, read from its beginning on, and the SHA-256 of what has been read.

    Args:
        path: The file.

    Raises:
        OSError: It can't be opened, or is something else than a regular file.
        Unreadable: Nearly none of it was ever written.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._hash = path, hashlib.sha256()
        self._descriptor, found = _opened(path)
        try:
            self.size = _size(found, None)
        except Unreadable:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        os.close(self._descriptor)

    @property
    def sum(self) -> str:
        """The SHA-256 of what has been read, in hexadecimal digits."""
        return self._hash.hexdigest()

    def into(self, memory: memoryview) -> None:
        """Read as many bytes as there is memory.

        Raises:
            OSError: They can't be read.
            Unreadable: The file ends before.
        """
        while memory:
            count = os.readv(self._descriptor, [memory[:_CHUNK]])
            if not count:
                raise Unreadable("ends too early")
            self._hash.update(memory[:count])
            memory = memory[count:]

    def read(self, count: int) -> bytes:
        """Return the next bytes; raises what `into` does."""
        data = bytearray(count)
        self.into(memoryview(data))
        return bytes(data)

    def skip(self) -> None:
        """Read all the rest, for the sum; raises what `into` does."""
        memory = memoryview(bytearray(_CHUNK))
        for start in range(os.lseek(self._descriptor, 0, os.SEEK_CUR), self.size, _CHUNK):
            self.into(memory[: self.size - start])
