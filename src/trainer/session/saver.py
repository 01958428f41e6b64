"""What a checkpoint holds of a run, when it is saved, and how a run is set back to it."""

from __future__ import annotations

import copy
import re
import shlex
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypedDict

import torch
from torch import Tensor, nn

from trainer import randomness
from trainer.checkpoints import manifest, store
from trainer.checkpoints.manifest import BadCheckpoint
from trainer.checkpoints.store import Checkpoint, Packed
from trainer.config.secrets import is_secret
from trainer.errors import UsageError, refusal
from trainer.files.plain_json import has_shape
from trainer.runs import find, vouching
from trainer.runs.directory import RunDir
from trainer.session.log_file import log
from trainer.session.metrics_writer import MetricsFile
from trainer.session.status_writer import preprocess_of
from trainer.training.build import Built, optimizer_like
from trainer.training.loop import Run


class Saver:
    """Saves a checkpoint when one is due, and keeps the newest few and the best.

    What is to be saved is copied while training waits, and written by a thread while it goes on; a save waits for the
    one before. Entered as a context, it has nothing left to write when that is over, however it ends.

    The best one is kept in memory until the next is due: evaluations may be far more frequent than a disk can take,
    and a run that is killed before goes on from an older checkpoint and meets the same best again.

    Args:
        rundir: Where to.
        built: The run.
        metrics: Its rows are on the disk before the checkpoint that records their length.
    """

    def __init__(self, rundir: RunDir, built: Built, metrics: MetricsFile) -> None:
        self._folder, self._built, self._metrics = rundir.checkpoints, built, metrics
        self._settings, self._sums = built.settings.checkpoint, vouching.kept(rundir)
        self._best: Packed | None = None
        self._last = time.monotonic()
        self._thread = ThreadPoolExecutor(1)
        self._write: Future[None] | None = None
        self._written: list[Packed] = []  # what that writes
        self._spent: list[Packed] = []  # memory to be used again

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last save; one that failed raises, unless something else has."""
        self._thread.shutdown()
        if kind is None:
            self._wait()
        elif self._write is not None and (failure := self._write.exception()) is not None:
            log.error("the last save has failed as well: %s", failure)

    def __call__(self, due: bool) -> None:
        """Save if `due` or if the last save is long enough ago.

        Raises:
            RunFailed: A weight is not finite.
            OSError: This save or the one before has failed.
        """
        state, seconds = self._built.run.state, self._settings.seconds
        if self._write is not None and self._write.done():
            self._wait()  # a run that can't be saved must not go on until the next save
        if due or (seconds is not None and time.monotonic() - self._last >= seconds):
            self._save()
        elif self._settings.best and state.best_step == state.step:
            self._best = self._pack(self._best)

    def keep_best(self) -> None:
        """Save the best checkpoint that waits in memory, if one does: a run that fails may not meet it again.

        To be called when the context is over.
        """
        saved = manifest.steps(self._folder)
        for best in filter(None, (self._best, *self._written)):
            if best.step not in saved and best.step == self._built.run.state.best_step:
                self._metrics.sync()
                store.write(self._folder, best)

    def _save(self) -> None:
        self._wait()
        state, packed = self._built.run.state, []
        if state.step not in manifest.steps(self._folder):
            is_kept = self._best is not None and self._best.step == state.best_step != state.step
            packed = [self._pack(None if is_kept else self._best)]
            if self._best is not None and is_kept:
                packed.insert(0, self._best)
        best_step = state.best_step if self._settings.best else None
        self._best, self._last = None, time.monotonic()
        self._written, self._write = packed, self._thread.submit(self._to_disk, packed, best_step)

    def _to_disk(self, packed: list[Packed], best_step: int | None) -> None:
        """Write checkpoints and delete those that need not be kept any more; runs in the thread."""
        if packed:
            self._metrics.sync()
        for one in packed:
            store.write(self._folder, one)
        store.prune(self._folder, self._settings.keep, best_step)

    def _wait(self) -> None:
        """Return when what was to be saved is on the disk."""
        write, self._write = self._write, None
        if write is not None:
            write.result()
            self._spent += self._written
            self._written = []

    def _pack(self, spent: Packed | None) -> Packed:
        """Copy what a checkpoint holds, into memory that is no longer needed if there is some."""
        run = self._built.run
        if spent is None and not self._spent and len(self._written) > 1:
            self._wait()  # a third copy would be one too many for the memory
        if spent is None and self._spent:
            spent = self._spent.pop()
        length = self._metrics.flush()
        recorded: vouching.Recorded = {**self._sums, "metrics": {"size": length, "sha256": self._metrics.sum}}
        return store.pack(run.state.step, run.model.state_dict(), dict(snapshot(run, length)), spent, recorded)


class Snapshot(TypedDict):
    """All that a run needs besides its weights to go on with the same bits."""

    state: dict[str, Any]
    epoch: int
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    watched: list[str | None]
    generators: dict[str, Any]
    metrics_bytes: int


def snapshot(run: Run, metrics_bytes: int) -> Snapshot:
    """Return what a checkpoint of a run holds besides the weights."""
    return {
        "state": run.state.state_dict(),
        "epoch": run.epoch,
        "loss": run.loss.state_dict(),
        "optimizer": _without_secrets(run.optimizer.state_dict()),
        "schedule": run.schedule.state_dict(),
        "watched": [run.monitor, run.mode],
        "generators": run.random(),
        "metrics_bytes": metrics_bytes,
    }


def _without_secrets(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state without settings that are secrets; they come from the configuration again."""
    groups = [{k: value for k, value in group.items() if not is_secret(str(k))} for group in optimizer["param_groups"]]
    return {**optimizer, "param_groups": groups}


def restore(built: Built, rundir: RunDir, announce: Callable[[str], None], force: bool = False) -> int:
    """Set a run to its newest good checkpoint, or to its beginning if it has none yet.

    Args:
        built: The run, as its settings build it.
        rundir: Its directory.
        announce: Tells the user something in one line.
        force: Start over if there should be a good checkpoint and is none.

    Returns:
        The length metrics.jsonl had then.

    Raises:
        UsageError: There is no good checkpoint, or it does not fit the settings; nothing has been changed.
    """
    found, problems = store.newest(rundir.checkpoints)
    for problem in problems:
        announce(f"warning: {problem}")
    length, good = 0, -1
    same = vouching.same_data(rundir, built.settings)
    anew = vouching.sum_of_preprocess(preprocess_of(built)) if same else None
    vouching.require_resumable(rundir, None if found is None else found.path, force, announce, anew)
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
            announce("no checkpoint to go on from: starting over")
    for step in manifest.steps(rundir.checkpoints):
        if step > good:
            announce(f"set aside as {store.set_aside(rundir.checkpoints / manifest.name_of(step))}")
    return length


def require_length(built: Built, step: int) -> None:
    """Refuse settings that end a run before the step it has reached."""
    settings, steps = built.settings, built.run.steps
    if steps < step:
        what = f"steps={steps}" if settings.epochs is None else f"epochs={settings.epochs} ({steps:,} steps)"
        raise refusal(what, f"the run has done {step:,} steps already", f"steps={step} or more")


def _require_beginning(rundir: RunDir, broken: bool) -> None:
    """Refuse to start over where work would be lost without a word."""
    status = rundir.read_status()
    over = f"trainer resume {shlex.quote(rundir.short)} --force, which starts over from step 0"
    if broken:
        raise refusal(f"{rundir.path}", "none of its checkpoints is good", f"{over} and sets them aside")
    if status.get("state") in ("done", "stopped"):
        raise refusal(f"{rundir.path}", f"its checkpoints are gone, and it was {status['state']}", over)


def put_back(built: Built, found: Checkpoint, announce: Callable[[str], None]) -> None:
    """Set the parts of a run to a checkpoint.

    Raises:
        UsageError: It is that of other parts.
    """
    run, saved = built.run, found.training
    length = saved.get("metrics_bytes")
    whole = has_shape(Snapshot)(saved) and type(length) is int and length >= 0
    if not whole or saved["state"].get("step") != found.step:
        raise UsageError(f"{found.path} does not hold what a checkpoint must")
    load_weights(run.model, found.weights, str(found.path))
    try:
        run.loss.load_state_dict(saved["loss"])
        load_optimizer(built, saved["optimizer"], announce)
        run.state.load_state_dict(saved["state"])
        if saved["watched"] == [run.monitor, run.mode]:
            run.schedule.load_state_dict(saved["schedule"])
        else:  # the values of another metric can't be compared
            run.state.best_step, run.state.best_value, run.state.stale = None, None, 0
        randomness.load_state_dict(saved["generators"])
    except (LookupError, ArithmeticError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{found.path} does not fit this run: {type(error).__name__}: {reason}") from error


def load_optimizer(built: Built, saved: dict[str, Any], announce: Callable[[str], None]) -> None:
    """Set the optimizer to a saved state; its settings stay those of the configuration.

    One that now keeps more of a weight than was saved (amsgrad switched on, say) starts afresh.
    """
    optimizer, fresh = built.run.optimizer, [dict(group) for group in built.run.optimizer.param_groups]
    typed = {key for key in built.settings.optim if key != "_target_"}
    pairs = list(zip(saved["param_groups"], fresh, strict=True))
    changed = any(old.get(key) != new.get(key) for old, new in pairs for key in typed - {"lr"})
    if changed and (lacking := _lacking(built, saved)):
        announce(f"warning: the optimizer starts afresh: the checkpoint lacks its {', '.join(sorted(lacking))}")
        return
    optimizer.load_state_dict(saved)
    for group, new in zip(optimizer.param_groups, fresh, strict=True):
        group.update({key: new[key] for key in new if key in typed or key not in group or key == "initial_lr"})
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    for index, kept in saved["state"].items():
        optimizer.state[weights[index]] = _in_saved_dtypes(optimizer.state[weights[index]], kept)


def _lacking(built: Built, saved: dict[str, Any]) -> set[str]:
    """Return what the optimizer keeps of the weights after a step and `saved` has not kept."""
    trial = optimizer_like(built, copy.deepcopy(built.run.model))
    weights = [w for group in trial.param_groups for w in group["params"]]
    for w in weights:
        w.grad = torch.zeros_like(w)
    with randomness.isolated(0):
        trial.step(lambda: 0.0)
    kept = {index: state.keys() for index, state in saved["state"].items() if state}
    return {str(key) for index, keys in kept.items() for key in trial.state[weights[index]].keys() - keys}


def _in_saved_dtypes(loaded: Any, saved: Any) -> Any:
    """Return loaded optimizer state in the dtypes it was saved in.

    torch casts it to those of the weights, and what is kept in float32 beside float64 weights would go on otherwise.
    """
    if isinstance(loaded, Tensor) and isinstance(saved, Tensor):
        return saved.to(loaded.device)
    if isinstance(loaded, dict) and isinstance(saved, dict):
        return {key: _in_saved_dtypes(value, saved.get(key)) for key, value in loaded.items()}
    if isinstance(loaded, list) and isinstance(saved, list):
        return [_in_saved_dtypes(one, value) for one, value in zip(loaded, saved, strict=True)]
    return loaded


def start_from(model: nn.Module, source: str) -> None:
    """Load the weights of another run's best checkpoint into a model.

    Raises:
        UsageError: There is no such run, or its weights are those of another model.
    """
    path = find.find(source)
    if find.is_sweep(path):
        jobs = [f"init_from={RunDir(job).short}" for job in find.jobs(path)]
        raise refusal(f"init_from={source}", "is a sweep of several jobs", jobs[:8])
    try:
        found = chosen(RunDir(path), "best")
    except BadCheckpoint as error:
        raise refusal(f"init_from={source}", str(error)) from error
    if found is None:
        raise refusal(f"init_from={source}", "that run has no checkpoint yet")
    load_weights(model, found.weights, f"init_from={source}")


def chosen(rundir: RunDir, which: str) -> Checkpoint | None:
    """Return the checkpoint of a run that a word means, None if the run has none yet.

    Args:
        rundir: The run's directory.
        which: last, best (of a run that held no rows out, the last) or a step.

    Raises:
        UsageError: There is none of that step.
        BadCheckpoint: It is damaged; another one would not be what was asked for.
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
    best = last.training["state"].get("best_step") if has_shape(Snapshot)(last.training) else None
    return store.load(folder / manifest.name_of(best)) if which == "best" and best in saved else last


def load_weights(model: nn.Module, weights: dict[str, Any], what: str) -> None:
    """Load a state_dict whose names and shapes must be the model's.

    Raises:
        UsageError: They differ; names the first that do.
    """
    own = model.state_dict()
    for name in [*own, *weights]:
        if name not in weights or name not in own:
            side = "the model" if name in weights else "the checkpoint"
            raise UsageError(f"{what}: other weights than the model's: {name}: {side} lacks it")
        there, here = weights[name], own[name]
        if isinstance(here, Tensor) and (not isinstance(there, Tensor) or here.shape != there.shape):
            found = list(there.shape) if isinstance(there, Tensor) else type(there).__name__
            raise UsageError(
                f"{what}: other weights than the model's: {name}: {found} in the checkpoint,"
                f" {list(here.shape)} in the model"
            )
    model.load_state_dict(weights)
