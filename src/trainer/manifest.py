"""What makes a folder a checkpoint: its name, its files, and the manifest that vouches for them. Without torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer import reading
from trainer.errors import TrainerError, UsageError

FORMAT = 1
MODEL, TRAINING, STATE, MANIFEST = "model.safetensors", "training.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"step-(\d{12})")


class BadCheckpoint(TrainerError):
    """A checkpoint that can't be trusted; the message names the file and what is wrong with it."""


class NewerFormat(UsageError):
    """A checkpoint of a later version: nothing is wrong with it, so an older one must not take its place."""


def name_of(step: int) -> str:
    """Return the folder name of a step's checkpoint."""
    return f"step-{step:012d}"


def steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint, rising."""
    if not folder.is_dir():
        return []
    found = (_NAME.fullmatch(name) for name in os.listdir(folder))
    return sorted(int(match[1]) for match in found if match)


def seal(files: Mapping[str, bytes]) -> bytes:
    """Return the manifest of files: the size and SHA-256 of each."""
    sums = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    return as_json({"format": FORMAT, "files": sums})


def verify(path: Path) -> dict[str, bytes]:
    """Return the content of a checkpoint's files after comparing them with the manifest.

    Raises:
        BadCheckpoint: They differ from it.
        NewerFormat: A later version has written them.
    """
    try:
        manifest = reading.json_data(path / MANIFEST)
        if manifest["format"] != FORMAT:
            _require_damage(path, manifest["format"])
            raise BadCheckpoint(f"{path / MANIFEST} has changed: its format is {manifest['format']}")
        contents = {}
        for name in (MODEL, TRAINING, STATE):
            expected, size = manifest["files"][name], (path / name).lstat().st_size
            if size != expected["size"]:
                raise BadCheckpoint(f"{path / name} has {size} bytes instead of {expected['size']}")
            contents[name] = reading.content(path / name, reading.MOST_JSON if name == STATE else size)
            if hashlib.sha256(contents[name]).hexdigest() != expected["sha256"]:
                raise BadCheckpoint(f"{path / name} has changed: its SHA-256 differs from the manifest's")
    except FileNotFoundError as error:
        raise BadCheckpoint(f"{error.filename} is missing") from error
    except OSError as error:
        raise BadCheckpoint(f"{error.filename or path} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadCheckpoint(f"{path / MANIFEST} can't be read: {type(error).__name__}: {error}") from error
    return contents


def as_json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def _require_damage(path: Path, format_: Any) -> None:
    """Raise NewerFormat if state.json names the same other format; a damaged manifest is alone with it."""
    if reading.json_data(path / STATE)["format"] == format_:
        raise NewerFormat(
            f"{path} has format {format_}, and this version reads {FORMAT}; use the version that wrote it"
        )
