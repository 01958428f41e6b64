"""Fingerprints of data files, which show whether a run's data have changed. Without torch."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainer.files import data_file

WHOLE = 2**30  # bytes; a larger file is sampled
_SAMPLES, _SAMPLE = 256, 2**20
_known: dict[tuple[Any, ...], str] = {}  # the jobs of a sweep share their files


def of(path: Path) -> dict[str, Any]:
    """Return the size and SHA-256 of a file; above 1 GiB, the SHA-256 of 256 MiB spread evenly over it.

    Raises:
        OSError: The file can't be read.
    """
    with data_file.opened(path) as file:
        found = os.fstat(file.fileno())
        version = path, found.st_size, found.st_mtime_ns, found.st_ino
        if version not in _known:
            _known[version] = _sum(file, found.st_size)
        return {"bytes": found.st_size, "sha256": _known[version]}


def of_all(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return the fingerprints of files by path."""
    return {str(path): of(path) for path in paths}


def changed(recorded: Mapping[str, Any]) -> list[str]:
    """Return the recorded files that exist but have changed or can no longer be read."""
    return [path for path, before in recorded.items() if _has_changed(Path(path), before)]


def _has_changed(path: Path, before: Any) -> bool:
    try:
        return bool(of(path) != before)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):  # replaced by a pipe or a device, or not a valid path
        return True


def _sum(file: io.BufferedReader, size: int) -> str:
    if size <= WHOLE:
        return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for index in range(_SAMPLES):
        file.seek((size - _SAMPLE) * index // (_SAMPLES - 1))
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()
