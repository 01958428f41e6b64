"""File operations whose effect survives a crash; everything a checkpoint does to the disk goes through here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Create a file and return when its content is on the disk."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def rename(source: Path, target: Path) -> None:
    """Rename within a folder and return when the new name is on the disk."""
    os.rename(source, target)
    sync_folder(target.parent)


def replace(path: Path, content: bytes) -> None:
    """Replace a file whole: a reader sees the old content or the new."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.unlink(missing_ok=True)
    write(staged, content)
    os.replace(staged, path)
    sync_folder(path.parent)


def make_folders(path: Path) -> None:
    """Create a folder, and those above it, unless they are there already; return when their names are on the disk."""
    if not path.is_dir():
        make_folders(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Return when the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Delete a folder and what is in it; what can't be deleted stays, for nothing depends on it."""
    shutil.rmtree(path, ignore_errors=True)
