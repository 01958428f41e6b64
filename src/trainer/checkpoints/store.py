"""Checkpoints: written atomically, verified when loaded, the newest few and the best kept. No pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from trainer.checkpoints import tensors as tensor_file
from trainer.checkpoints import tree
from trainer.checkpoints.manifest import (
    FORMAT,
    MANIFEST,
    MODEL,
    STATE,
    TRAINING,
    BadCheckpoint,
    name_of,
    require_place,
    require_sum,
    seal,
    steps,
    sum_of_file,
    verifying,
)
from trainer.checkpoints.tensors import Image
from trainer.errors import RunFailed
from trainer.files import plain_json, reading, writing
from trainer.files.plain_json import as_indented_json, has_shape
from trainer.files.sums import sha256


class _State(TypedDict):
    """The content of state.json."""

    format: int
    step: int
    aliases: dict[str, str]
    extra: dict[str, Any]
    training: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory: the weights by state_dict name, and the rest of the training state as a tree."""

    path: Path
    step: int
    weights: dict[str, Any]
    training: dict[str, Any]


@dataclass(frozen=True)
class PackedCheckpoint:
    """A checkpoint ready to be written: files of copied tensors, and the content of state.json."""

    step: int
    model: Image
    training: Image
    state: dict[str, Any]
    run: Mapping[str, Any] | None = None


def pack(
    step: int,
    weights: dict[str, Any],
    training: dict[str, Any],
    spent: PackedCheckpoint | None = None,
    run: Mapping[str, Any] | None = None,
) -> PackedCheckpoint:
    """Copy the content of a checkpoint, so that training can continue while it is written.

    Args:
        step: Finished optimizer steps.
        weights: The model's state_dict.
        training: The rest of the training state, as a tree of containers, tensors and plain values.
        spent: A checkpoint no longer needed, whose memory is reused: allocating costs more than copying.
        run: The sums of the run's other files, for the manifest.

    Raises:
        RunFailed: A weight is not finite.
    """
    for name, value in weights.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not _is_finite(value):
            raise RunFailed(f"the weights {name} are not finite after step {step}; that step is not saved")
    model, aliases, extra = _separate(weights)
    tensors: dict[str, Tensor] = {}
    state = {
        "format": FORMAT,
        "step": step,
        "aliases": aliases,
        "extra": tree.pack(extra, "extra", tensors),
        "training": tree.pack(training, "training", tensors),
    }
    used = (None, None) if spent is None else (spent.model, spent.training)
    return PackedCheckpoint(step, tensor_file.image(model, used[0]), tensor_file.image(tensors, used[1]), state, run)


def write(folder: Path, packed: PackedCheckpoint) -> Path:
    """Write a checkpoint, which becomes visible only once it is complete and on disk; return its path.

    Args:
        folder: The run's checkpoints folder.
        packed: The checkpoint.

    Raises:
        OSError: The disk failed; earlier checkpoints are unchanged.
    """
    files: dict[str, bytes | memoryview] = {
        MODEL: packed.model.content,
        TRAINING: packed.training.content,
        STATE: as_indented_json(packed.state),
    }
    files[MANIFEST] = seal(files, packed.run)

    staged, final = folder / f".staged-{name_of(packed.step)}", folder / name_of(packed.step)
    writing.require_space(folder, sum(map(len, files.values())))
    try:
        writing.make_folders(staged)
        for name, content in files.items():
            writing.write(staged / name, content)
        writing.sync_folder(staged)
        writing.rename(staged, final)
    except OSError:
        writing.remove_tree(staged)  # frees space on a full disk
        raise
    return final


def load(path: Path) -> Checkpoint:
    """Read a checkpoint and verify every byte against its manifest.

    Raises:
        BadCheckpoint: A file is missing or has changed.
        NewerFormat: A later version wrote the checkpoint.
    """
    with verifying(path) as expected, ThreadPoolExecutor() as threads:
        files = threads.map(lambda name: _tensors(path / name, expected[name]), (MODEL, TRAINING))
        content = reading.content(path / STATE, reading.MOST_JSON)
        require_sum(path / STATE, sha256(content), expected[STATE])
        stored, tensors = files
    try:
        plain_json.require_few(content)
        state = plain_json.decoded(content.decode())
        if not has_shape(_State)(state):
            raise BadCheckpoint(f"{path / STATE} lacks required fields or has fields of the wrong type")
        require_place(path, state)
        weights: dict[str, Any] = dict(stored)
        weights.update({alias: weights[name] for alias, name in state["aliases"].items()})
        weights.update(tree.unpack(state["extra"], tensors))
        return Checkpoint(path, state["step"], weights, tree.unpack(state["training"], tensors))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadCheckpoint(f"{path} can't be read: {type(error).__name__}: {error}") from error


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest good checkpoint, and the problems of the damaged ones after it.

    Raises:
        NewerFormat: A later version wrote the newest checkpoint.
    """
    problems: list[str] = []
    for step in reversed(steps(folder)):
        try:
            return load(folder / name_of(step)), problems
        except BadCheckpoint as error:
            problems.append(str(error))
    return None, problems


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Delete all checkpoints except the newest `keep` and the one of step `best`."""
    kept = {*steps(folder)[-keep:], best}
    for step in steps(folder):
        if step not in kept:
            remove(folder / name_of(step))


def remove(path: Path) -> None:
    """Delete a checkpoint; it is renamed first, so that no reader sees part of it."""
    hidden = path.with_name(f".removed-{path.name}")
    writing.rename(path, hidden)
    writing.remove_tree(hidden)


def set_aside(path: Path) -> Path:
    """Rename an unreadable checkpoint, so that its step can be saved again; return the new path.

    It is not deleted, because the error may be temporary and parts of it may still be useful.
    """
    aside = path.with_name(f"broken-{path.name}")
    writing.remove_tree(aside)
    writing.rename(path, aside)
    return aside


def tidy(folder: Path) -> None:
    """Delete leftovers of interrupted saves and removals."""
    for path in folder.glob(".*-step-*"):
        writing.remove_tree(path)


def _tensors(path: Path, expected: dict[str, Any]) -> dict[str, Tensor]:
    try:
        tensors, found = tensor_file.read(path)
    except (ValueError, RuntimeError) as error:
        require_sum(path, sum_of_file(path), expected)  # reports damage as damage, even if it breaks the format
        raise BadCheckpoint(f"{path} can't be read: {error}") from error
    require_sum(path, found, expected)
    return tensors


def _is_finite(value: Tensor) -> bool:
    """Return whether all numbers are finite; a finite sum proves it at a tenth of the cost of testing each one."""
    if value.itemsize == 1:  # 8-bit types can't be summed
        value = value.float()
    return math.isfinite(value.sum()) or bool(torch.isfinite(value).all())


def _separate(weights: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Any]]:
    """Return (tensors to store, names that share a stored tensor, values that are not tensors)."""
    model: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    extra: dict[str, Any] = {}
    owner: dict[tuple[Any, ...], str] = {}
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            extra[name] = value
            continue
        place = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if value.numel() and place in owner:
            aliases[name] = owner[place]
        else:
            owner[place] = name
            model[name] = value
    return model, aliases, extra
