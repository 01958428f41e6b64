"""Whether the files that a run's data came from are still what they were. Without torch."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_HASHED = 2**30  # bytes of a file up to which every one of them counts
_SAMPLES, _SAMPLE = 256, 2**20


def of(path: Path) -> dict[str, Any]:
    """Return the size and SHA-256 of a file; of one above 1 GiB that of 256 MiB spread evenly over it."""
    stat = path.stat()
    return {"bytes": stat.st_size, "sha256": _sum(path, stat.st_size, stat.st_mtime_ns)}


def of_all(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return the fingerprints of files by their paths."""
    return {str(path): of(path) for path in paths}


def changed(recorded: Mapping[str, Any]) -> list[str]:
    """Return those of the recorded files that are there and have changed."""
    return [path for path, before in recorded.items() if Path(path).is_file() and of(Path(path)) != before]


@functools.lru_cache(maxsize=8)  # the jobs of a sweep have the same files
def _sum(path: Path, size: int, version: int) -> str:
    with open(path, "rb") as file:
        if size <= _HASHED:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for index in range(_SAMPLES):
            file.seek((size - _SAMPLE) * index // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
        return digest.hexdigest()
