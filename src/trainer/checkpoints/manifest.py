"""What makes a folder a checkpoint: its name, its files, and the manifest that vouches for them. Without torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError, UsageError
from trainer.files import plain_json, reading
from trainer.files.sums import is_sealed, sealed

FORMAT = 1
MODEL, TRAINING, STATE, MANIFEST = "model.safetensors", "training.safetensors", "state.json", "manifest.json"
FILES = (MODEL, TRAINING, STATE)
_KEYS = frozenset({"format", "files", "run"})  # what comes later stands in `run`, which has a sum of its own
_NAME = re.compile(r"step-(\d{12})")


class BadCheckpoint(TrainerError):
    """A checkpoint that can't be trusted; the message names the file and what is wrong with it."""


class NewerFormat(UsageError):
    """A checkpoint of a later version: nothing is wrong with it, so an older one must not take its place."""


def name_of(step: int) -> str:
    """Return the folder name of a step's checkpoint."""
    return f"step-{step:012d}"


def step_of(name: str) -> int:
    """Return the step whose checkpoint has a folder name."""
    return int(name.removeprefix("step-"))


def steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint, rising."""
    if not folder.is_dir():
        return []
    found = (_NAME.fullmatch(name) for name in os.listdir(folder))
    return sorted(int(match[1]) for match in found if match)


def seal(files: Mapping[str, bytes | memoryview], run: Mapping[str, Any] | None = None) -> bytes:
    """Return the manifest of files: the size and SHA-256 of each, and what the files of the run beside it held."""
    sums = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    return as_json({"format": FORMAT, "files": sums, **({} if run is None else {"run": sealed(run)})})


def verify(path: Path) -> int:
    """Compare a checkpoint's files with the manifest and return their bytes.

    Raises:
        BadCheckpoint: They differ from it.
        NewerFormat: A later version has written them.
    """
    from concurrent.futures import ThreadPoolExecutor  # which those who only list runs do without

    with verifying(path) as expected, ThreadPoolExecutor() as threads:
        sums = list(threads.map(lambda name: sum_of(path / name), FILES))
        for name, found in zip(FILES, sums, strict=True):
            require_sum(path / name, found, expected[name])
        require_place(path, plain_json.json_data(path / STATE))
        return sum(expected[name]["size"] for name in FILES)


def sum_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with reading.Summed(path) as file:
        file.skip()
        return file.sum


@contextmanager
def verifying(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what the manifest says of each file, whose sizes are right; what can't be read in the block is damage.

    Raises:
        BadCheckpoint: A file is missing, can't be read or has another size.
        NewerFormat: A later version has written them.
    """
    try:
        manifest = plain_json.json_data(path / MANIFEST)
        if manifest["format"] != FORMAT:
            _require_damage(path, manifest["format"])
            raise BadCheckpoint(f"{path / MANIFEST} has changed: its format is {manifest['format']}")
        if not _KEYS.issuperset(manifest) or ("run" in manifest and not is_sealed(manifest["run"])):
            raise BadCheckpoint(f"{path / MANIFEST} has changed: what it says of the run is not what it said")
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
    """Raise BadCheckpoint unless the SHA-256 of a file is the one that its manifest has."""
    if found != expected["sha256"]:
        raise BadCheckpoint(f"{path} has changed: its SHA-256 differs from the manifest's")


def require_place(path: Path, state: Mapping[str, Any]) -> None:
    """Raise BadCheckpoint if state.json is of another format or of a step that the folder is not named after."""
    if state["format"] != FORMAT:
        raise BadCheckpoint(f"{path / STATE} has format {state['format']}, and its manifest {FORMAT}")
    if name_of(state["step"]) != path.name:
        raise BadCheckpoint(f"{path} is the checkpoint of step {state['step']}")


def as_json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def _require_damage(path: Path, format_: Any) -> None:
    """Raise NewerFormat if state.json names the same other format; a damaged manifest is alone with it."""
    if plain_json.json_data(path / STATE)["format"] == format_:
        raise NewerFormat(
            f"{path} has format {format_}, and this version reads {FORMAT}; use the version that wrote it"
        )
