"""File operations whose effect survives a crash; all that a save does to the disk goes through here."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_ONCE = 16  # files that a disk is told to write at the same time
_put_off = ContextVar("put_off", default=False)


@contextmanager
def together(folder: Path) -> Iterator[None]:
    """Put off waiting for the disk to the end of a block that fills a new folder: many files at once take far less."""
    before = _put_off.set(True)
    try:
        yield
    finally:
        _put_off.reset(before)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(_sync_path, _paths(folder)):
            pass  # raises what a thread has met


def write(path: Path, content: bytes | memoryview) -> None:
    """Create a file and return when its content is on the disk."""
    descriptor = os.open(path, _NEW, 0o666)
    try:
        _write_all(descriptor, content)
        _sync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path, content: bytes) -> None:
    """Append to a file, which is created if need be, whole or not at all as far as the disk lets it."""
    file = Appending(path)
    try:
        file.write(content)
    finally:
        file.close()


class Appending:
    """A file that grows at its end.

    Args:
        path: The file; created if need be.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, _APPEND, 0o666)
        self.size = os.fstat(self._descriptor).st_size
        self.closed = False

    def write(self, content: bytes) -> None:
        """Append to the file, whole or not at all as far as the disk lets it."""
        try:
            _write_all(self._descriptor, content)
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(content)

    def sync(self) -> None:
        """Return when all of it is on the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file, unless it has been closed already."""
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
        _forget(staged)
        raise
    sync_folder(path.parent)


def new_folder(path: Path) -> Path:
    """Create a hidden folder of a new name beside another, readable for whom the umask lets."""
    while True:
        name = _hidden(path)
        with suppress(FileExistsError):
            name.mkdir()
            return name


def rename(source: Path, target: Path) -> None:
    """Rename within a folder and return when the new name is on the disk."""
    os.rename(source, target)
    sync_folder(target.parent)


def replace(path: Path, content: bytes) -> None:
    """Replace a file whole: a reader sees the old content or the new."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.unlink(missing_ok=True)
    try:
        write(staged, content)
        os.replace(staged, path)
    except OSError:
        _forget(staged)
        raise
    sync_folder(path.parent)


def make_folders(path: Path) -> None:
    """Create a folder, and those above it, unless they are there already; return when their names are on the disk."""
    if not path.is_dir():
        make_folders(path.parent)
        try:
            path.mkdir()
        except FileExistsError as error:
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
        sync_folder(path.parent)


def sync(path: Path) -> None:
    """Return when a file and its name are on the disk."""
    _sync_path(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Return when the names in a folder are on the disk."""
    if not _put_off.get():
        _sync_path(path)


def require_space(folder: Path, size: int) -> None:
    """Raise OSError if a file system has less than `size` bytes left, before anything is written."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < size:
        raise OSError(errno.ENOSPC, f"{size:,} bytes are to be written and {free:,} are free", str(folder))


def remove_tree(path: Path) -> None:
    """Delete a folder and what is in it; what can't be deleted stays, for nothing depends on it."""
    shutil.rmtree(path, ignore_errors=True)


def _paths(folder: Path) -> Iterator[str]:
    """Yield a folder and all that is in it, but for empty folders, which hold nothing that could be lost."""
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
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def _forget(path: Path) -> None:
    with suppress(OSError):  # what stays is tidied away when the run goes on
        path.unlink(missing_ok=True)
