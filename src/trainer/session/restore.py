"""Chooses a checkpoint: to resume a run from, to start a new run from, or to use its model."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import partial

from torch import nn

from trainer import quoting
from trainer.checkpoints import manifest, store
from trainer.checkpoints.manifest import BadCheckpoint
from trainer.checkpoints.store import Checkpoint
from trainer.errors import TrainerError, UsageError, refusal
from trainer.files.plain_json import has_shape
from trainer.runs import directory, find, vouching
from trainer.runs.directory import RunDirectory
from trainer.session.run_state import RunState, load_weights, put_back, require_length
from trainer.session.status_writer import preprocess_of
from trainer.training.build import Built


def choose(rundir: RunDirectory, asked: str) -> tuple[Checkpoint, str]:
    """Return a checkpoint of a run and its name for the user.

    Args:
        rundir: The run.
        asked: best, last, or a step. Without evaluations, the best one is the last.

    Raises:
        UsageError: There is no such checkpoint, it is damaged, or a file it depends on has been edited.
    """
    try:
        found = checkpoint_of(rundir, asked)
    except BadCheckpoint as error:
        good = [f"--checkpoint {step}" for step in manifest.steps(rundir.checkpoints) if _is_good(rundir, step)]
        raise refusal(f"--checkpoint={asked}", str(error), good) from error
    if found is None:
        raise UsageError(
            f"{rundir.path}: no checkpoint has been saved yet; `trainer resume {rundir.short}` continues training"
        )
    vouching.require(rundir, found.path)
    called = f"step {found.step:,}"
    if found.step == (rundir.read_status().get("best") or {}).get("step"):
        called += ", the best"
    elif found.step == manifest.steps(rundir.checkpoints)[-1]:
        called += ", the last"
    return found, called


def _is_good(rundir: RunDirectory, step: int) -> bool:
    try:
        return bool(manifest.verify(rundir.checkpoints / manifest.name_of(step)))
    except TrainerError:
        return False


def restore(built: Built, rundir: RunDirectory, announce: Callable[[str], None], force: bool = False) -> int:
    """Set a run to its newest good checkpoint, or to its beginning if it has none yet.

    Args:
        built: The run, as built from its settings.
        rundir: Its directory.
        announce: Shows one line to the user.
        force: Whether to start over if every checkpoint is damaged or missing.

    Returns:
        The length of metrics.jsonl at the checkpoint, in bytes.

    Raises:
        UsageError: No checkpoint is good, or it does not fit the settings; nothing has been changed.
    """
    length, damaged = put_at_newest(built, rundir, announce, force)
    for step in damaged:
        announce(f"set aside as {store.set_aside(rundir.checkpoints / manifest.name_of(step))}")
    return length


def put_at_newest(
    built: Built, rundir: RunDirectory, announce: Callable[[str], None], force: bool = False
) -> tuple[int, list[int]]:
    """Do what `restore` does, but write nothing; arguments and errors are the same.

    Returns:
        The length of metrics.jsonl at the checkpoint, in bytes, and the steps of later, damaged checkpoints.
    """
    found, problems = store.newest(rundir.checkpoints)
    for problem in problems:
        announce(f"warning: {problem}")
    length, good = 0, -1
    same = vouching.same_data(rundir, built.settings)
    recomputed = vouching.sum_of_preprocess(preprocess_of(built)) if same else None
    vouching.require_resumable(rundir, None if found is None else found.path, force, announce, recomputed)
    if found is not None:
        require_length(built, found.step)
        put_back(built, found, announce)
        length, good = found.training["metrics_bytes"], found.step
        if problems:
            announce(f"warning: step {found.step:,} is the newest good checkpoint")
    else:
        if not force:
            _require_beginning(rundir, bool(problems))
        if built.settings.init_from is not None:
            start_from(built.run.model, built.settings.init_from)
        if rundir.read_status().get("segments"):
            announce("no checkpoint to resume from: starting over")
    return length, [step for step in manifest.steps(rundir.checkpoints) if step > good]


def _require_beginning(rundir: RunDirectory, broken: bool) -> None:
    """Refuse to start over silently if that loses work."""
    status = rundir.read_status()
    over = f"trainer resume {shlex.quote(rundir.short)} --force, which starts over from step 0"
    if broken:
        raise refusal(f"{rundir.path}", "none of its checkpoints is good", f"{over} and sets them aside")
    if status.get("state") in ("done", "stopped"):
        raise refusal(f"{rundir.path}", f"its checkpoints are missing, and it was {status['state']}", over)


def start_from(model: nn.Module, source: str) -> None:
    """Load the weights of another run's best checkpoint into a model.

    Raises:
        UsageError: There is no such run, or its weights do not fit the model.
    """
    rundir = directory.require_run(find.find(source), f"init_from={source}", partial(quoting.typed, "init_from"))
    try:
        found = checkpoint_of(rundir, "best")
    except BadCheckpoint as error:
        raise refusal(f"init_from={source}", str(error)) from error
    if found is None:
        raise refusal(f"init_from={source}", "that run has no checkpoint yet")
    load_weights(model, found.weights, f"init_from={source}")


def checkpoint_of(rundir: RunDirectory, which: str) -> Checkpoint | None:
    """Return the checkpoint that a word names, None if the run has none yet.

    Args:
        rundir: The run's directory.
        which: last, best or a step. Without evaluations, the best one is the last.

    Raises:
        UsageError: There is no checkpoint of that step.
        BadCheckpoint: The checkpoint is damaged; no other one takes its place.
    """
    folder, saved = rundir.checkpoints, manifest.steps(rundir.checkpoints)
    if not saved:
        return None
    if which not in ("best", "last"):
        step = int(which) if re.fullmatch("[0-9]{1,12}", which) else -1
        if step not in saved:
            allowed = ["best", "last", *map(str, saved)]
            raise refusal(f"--checkpoint={which}", f"{rundir.short} has no such checkpoint", allowed)
        return store.load(folder / manifest.name_of(step))
    last = store.load(folder / manifest.name_of(saved[-1]))
    if which == "last" or _ended_best(rundir, last.step):
        return last
    best = last.training["state"].get("best_step") if has_shape(RunState)(last.training) else None
    return store.load(folder / manifest.name_of(best)) if best in saved else last


def _ended_best(rundir: RunDirectory, last: int) -> bool:
    """Return whether the best evaluation is that of the last step; only status.json, if not edited, can tell."""
    best = rundir.read_status().get("best") or {}
    return best.get("step") == last and vouching.edited_status(rundir) is None
