"""The format of a checkpoint folder: its name, its files, and the manifest with their sums. Without torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError, UsageError
from trainer.files import plain_json, reading
from trainer.files.plain_json import as_indented_json
from trainer.files.sums import is_sealed, sealed, sha256

FORMAT = 1
MODEL, TRAINING, STATE, MANIFEST = "model.safetensors", "training.safetensors", "state.json", "manifest.json"
FILES = (MODEL, TRAINING, STATE)
_KEYS = frozenset({"format", "files", "run"})  # later additions go into `run`, which includes its own sum
_NAME = re.compile(r"step-(\d{12})")


class BadCheckpoint(TrainerError):
    """The checkpoint is damaged; the message names the file and the problem."""


class NewerFormat(UsageError):
    """The checkpoint is intact but from a later version; an older checkpoint must not replace it."""


def name_of(step: int) -> str:
    """Return the folder name of the checkpoint of a step."""
    return f"step-{step:012d}"


def step_of(name: str) -> int:
    """Return the step in a folder name."""
    return int(name.removeprefix("step-"))


def steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint, in ascending order."""
    if not folder.is_dir():
        return []
    found = (_NAME.fullmatch(name) for name in os.listdir(folder))
    return sorted(int(match[1]) for match in found if match)


def seal(files: Mapping[str, bytes | memoryview], run: Mapping[str, Any] | None = None) -> bytes:
    """Return the content of manifest.json.

    Args:
        files: The content of the checkpoint's files, whose sizes and sums it records.
        run: The sums of the run's files next to the checkpoints.
    """
    sums = {name: {"size": len(data), "sha256": sha256(data)} for name, data in files.items()}
    return as_indented_json({"format": FORMAT, "files": sums, **({} if run is None else {"run": sealed(run)})})


def verify(path: Path) -> int:
    """Compare the files of a checkpoint with its manifest and return their total size in bytes.

    Raises:
        BadCheckpoint: A file differs from the manifest.
        NewerFormat: A later version wrote the checkpoint.
    """
    from concurrent.futures import ThreadPoolExecutor  # not needed to list runs

    with verifying(path) as expected, ThreadPoolExecutor() as threads:
        sums = list(threads.map(lambda name: sum_of_file(path / name), FILES))
        for name, found in zip(FILES, sums, strict=True):
            require_sum(path / name, found, expected[name])
        require_place(path, plain_json.json_data(path / STATE))
        return sum(expected[name]["size"] for name in FILES)


def sum_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with reading.summed(path) as file:
        file.skip(file.size)
        return file.sum


@contextmanager
def verifying(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the manifest's entry for each file after checking the sizes; read errors in the block count as damage.

    Raises:
        BadCheckpoint: A file is missing, unreadable or of the wrong size.
        NewerFormat: A later version wrote the checkpoint.
    """
    try:
        manifest = plain_json.json_data(path / MANIFEST)
        if manifest["format"] != FORMAT:
            _require_damage(path, manifest["format"])
            raise BadCheckpoint(f"{path / MANIFEST} has changed: its format is {manifest['format']}")
        if not _KEYS.issuperset(manifest) or ("run" in manifest and not is_sealed(manifest["run"])):
            raise BadCheckpoint(f"{path / MANIFEST} has changed: its entry for the run doesn't match its SHA-256")
        expected: dict[str, Any] = manifest["files"]
        for name in FILES:
            size = (path / name).lstat().st_size
            if size != expected[name]["size"]:
                raise BadCheckpoint(f"{path / name} has {size} bytes instead of {expected[name]['size']}")
        yield expected
    except FileNotFoundError as error:
        raise BadCheckpoint(f"{error.filename} is missing") from error
    except OSError as error:
        raise BadCheckpoint(f"{error.filename or path} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadCheckpoint(f"{path / MANIFEST} can't be read: {type(error).__name__}: {error}") from error


def require_sum(path: Path, found: str, expected: Mapping[str, Any]) -> None:
    """Raise BadCheckpoint unless the SHA-256 of a file matches the manifest's."""
    if found != expected["sha256"]:
        raise BadCheckpoint(f"{path} has changed: its SHA-256 differs from the manifest's")


def require_place(path: Path, state: Mapping[str, Any]) -> None:
    """Raise BadCheckpoint if the format or the step in state.json doesn't match the folder."""
    if state["format"] != FORMAT:
        raise BadCheckpoint(f"{path / STATE} has format {state['format']}, but its manifest has {FORMAT}")
    if name_of(state["step"]) != path.name:
        raise BadCheckpoint(f"{path} is the checkpoint of step {state['step']}")


def _require_damage(path: Path, format_: Any) -> None:
    """Raise NewerFormat if state.json has the same unknown format; in a damaged manifest it would differ."""
    if plain_json.json_data(path / STATE)["format"] == format_:
        raise NewerFormat(
            f"{path} has format {format_}, but this version reads {FORMAT}; use the version that wrote it"
        )
