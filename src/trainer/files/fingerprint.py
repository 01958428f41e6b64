"""Whether the files that a run's data came from are still what they were. Without torch."""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainer.files import data_file

_HASHED = 2**30  # bytes of a file up to which every one of them counts
_SAMPLES, _SAMPLE = 256, 2**20


def of(path: Path) -> dict[str, Any]:
    """Return the size and SHA-256 of a file; of one above 1 GiB that of 256 MiB spread evenly over it.

    Raises:
        OSError: It can't be read.
    """
    with data_file.opened(path) as file:
        found = os.fstat(file.fileno())
        known = _sums(path, found.st_size, found.st_mtime_ns, found.st_ino)
        if not known:
            known.append(_sum(file, found.st_size))
        return {"bytes": found.st_size, "sha256": known[0]}


def of_all(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return the fingerprints of files by their paths."""
    return {str(path): of(path) for path in paths}


def changed(recorded: Mapping[str, Any]) -> list[str]:
    """Return those of the recorded files that are there and have changed, or are none that can be read by now."""
    return [path for path, before in recorded.items() if _has_changed(Path(path), before)]


def _has_changed(path: Path, before: Any) -> bool:
    try:
        return bool(of(path) != before)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):  # a pipe or a device in its place, a path that can be none
        return True


@functools.lru_cache(maxsize=8)  # the jobs of a sweep have the same files
def _sums(path: Path, size: int, *version: int) -> list[str]:
    """Return where the sum of a file is kept, empty until it is known."""
    return []


def _sum(file: io.BufferedReader, size: int) -> str:
    if size <= _HASHED:
        return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for index in range(_SAMPLES):
        file.seek((size - _SAMPLE) * index // (_SAMPLES - 1))
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()
