"""File operations that survive a crash; saving goes through this module only."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_ONCE = 16  # files synced at the same time
_put_off = ContextVar("put_off", default=False)


@contextmanager
def together(folder: Path) -> Iterator[None]:
    """Sync a new folder once at the end of a block instead of file by file, which is much faster for many files."""
    before = _put_off.set(True)
    try:
        yield
    finally:
        _put_off.reset(before)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(_sync_path, _paths(folder)):
            pass  # raises the errors of the threads


def write(path: Path, content: bytes | memoryview) -> None:
    """Create a file and return once its content is on disk."""
    descriptor = os.open(path, _NEW, 0o666)
    try:
        _write_all(descriptor, content)
        _sync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path, content: bytes) -> None:
    """Append to a file, created if missing; on failure, remove the part that was written."""
    file = Appending(path)
    try:
        file.write(content)
    finally:
        file.close()


class Appending:
    """A file open for appending.

    Args:
        path: The file; created if missing.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, _APPEND, 0o666)
        self.size = os.fstat(self._descriptor).st_size
        self.closed = False

    def write(self, content: bytes) -> None:
        """Append to the file; on failure, remove the part that was written."""
        try:
            _write_all(self._descriptor, content)
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(content)

    def sync(self) -> None:
        """Return once the content is on disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file if it is still open."""
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a hidden file that replaces another at the end of the block, unless the block fails."""
    staged = _hidden(path)
    try:
        with open(os.open(staged, _NEW, 0o666), "wb") as file:
            yield file
            file.flush()
            _sync(file.fileno())
        os.replace(staged, path)
    except BaseException:
        with suppress(OSError):
            staged.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def new_folder(path: Path) -> Path:
    """Create a hidden folder with a new name next to another, with the permissions of the umask."""
    while True:
        name = _hidden(path)
        with suppress(FileExistsError):
            name.mkdir()
            return name


def rename(source: Path, target: Path) -> None:
    """Rename within a folder and return once the new name is on disk."""
    os.rename(source, target)
    sync_folder(target.parent)


def replace(path: Path, content: bytes) -> None:
    """Replace a file atomically: a reader sees the old content or the new."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.unlink(missing_ok=True)
    try:
        write(staged, content)
        os.replace(staged, path)
    except BaseException:  # a signal, too
        with suppress(OSError):  # a leftover is deleted when the run is resumed
            staged.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folders(path: Path) -> None:
    """Create a folder and its parents where missing, and return once their names are on disk."""
    if not path.is_dir():
        make_folders(path.parent)
        try:
            path.mkdir()
        except FileExistsError as error:
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
        sync_folder(path.parent)


def sync(path: Path) -> None:
    """Return once a file and its name are on disk."""
    _sync_path(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Return once the names in a folder are on disk."""
    if not _put_off.get():
        _sync_path(path)


def require_space(folder: Path, size: int) -> None:
    """Raise OSError if a file system has less than `size` bytes free."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < size:
        raise OSError(errno.ENOSPC, f"{size:,} bytes are needed and {free:,} are free", str(folder))


def remove_tree(path: Path) -> None:
    """Delete a folder and its contents; anything that can't be deleted is left, since nothing depends on it."""
    shutil.rmtree(path, ignore_errors=True)


def _paths(folder: Path) -> Iterator[str]:
    """Yield a folder and everything in it except empty folders, which hold nothing to lose."""
    for place, folders, files in os.walk(folder):
        if folders or files:
            yield place
        yield from (os.path.join(place, name) for name in files)


def _sync_path(path: Path | str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    if not _put_off.get():
        os.fsync(descriptor)


def _write_all(descriptor: int, content: bytes | memoryview) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}")
