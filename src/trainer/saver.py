"""What a checkpoint holds of a run, when it is saved, and how a run is set back to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from trainer import checkpoint, generators, runs
from trainer.build import Built
from trainer.errors import UsageError, refusal
from trainer.loop import Run
from trainer.metrics import MetricsFile
from trainer.rundir import RunDir


class Saver:
    """Saves a checkpoint when one is due, and keeps the newest few and the best.

    Args:
        rundir: Where to.
        built: The run.
        metrics: Its rows are on the disk before the checkpoint that records their length.
    """

    def __init__(self, rundir: RunDir, built: Built, metrics: MetricsFile) -> None:
        self._folder, self._built, self._metrics = rundir.checkpoints, built, metrics
        self._settings = built.settings.checkpoint
        self._saved_step = built.run.state.step if built.run.state.step in checkpoint.steps(self._folder) else -1
        self._last = time.monotonic()

    def __call__(self, due: bool) -> None:
        """Save if `due` or if the last save is long enough ago."""
        run, seconds = self._built.run, self._settings.seconds
        late = seconds is not None and time.monotonic() - self._last >= seconds
        if not (due or late) or run.state.step == self._saved_step:
            return
        checkpoint.save(self._folder, run.state.step, run.model.state_dict(), snapshot(run, self._metrics.sync()))
        best = run.state.best_step if self._settings.best else None
        checkpoint.prune(self._folder, self._settings.keep, best)
        self._saved_step, self._last = run.state.step, time.monotonic()


def snapshot(run: Run, metrics_bytes: int) -> dict[str, Any]:
    """Return all that a run needs besides its weights to go on with the same bits."""
    return {
        "state": run.state.state_dict(),
        "epoch": run.epoch,
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        "generators": generators.state_dict(),
        "metrics_bytes": metrics_bytes,
    }


def restore(built: Built, rundir: RunDir, announce: Callable[[str], None]) -> int:
    """Set a run to its newest good checkpoint, if it has one; return the length metrics.jsonl had then."""
    run = built.run
    found, problems = checkpoint.newest(rundir.checkpoints)
    for problem in problems:
        announce(f"warning: {problem}")
    if found is None:
        if rundir.read_status().get("segments"):
            announce("no checkpoint to go on from: starting over")
        return 0
    announce(f"going on from step {found.step:,}{', the newest good checkpoint' if problems else ''}")
    for step in checkpoint.steps(rundir.checkpoints):
        if step > found.step:
            checkpoint.remove(rundir.checkpoints / checkpoint.name_of(step))
    load_weights(run.model, found.weights, str(found.path))
    fresh = [dict(group) for group in run.optimizer.param_groups]
    run.optimizer.load_state_dict(found.training["optimizer"])
    typed = {key for key in built.settings.optim if key != "_target_"}
    for group, new in zip(run.optimizer.param_groups, fresh, strict=True):
        group.update({key: new[key] for key in new if key in typed or key == "initial_lr"})
    run.schedule.load_state_dict(found.training["schedule"])
    run.state.load_state_dict(found.training["state"])
    generators.load_state_dict(found.training["generators"])
    return int(found.training["metrics_bytes"])


def start_from(model: nn.Module, source: str) -> None:
    """Load the weights of another run's best checkpoint into a model.

    Raises:
        UsageError: There is no such run, or its weights are those of another model.
    """

    folder = RunDir(runs.find(source)).checkpoints
    found, problems = checkpoint.newest(folder)
    if found is None:
        raise refusal(f"init_from={source}", "; ".join(problems) or "that run has no checkpoint yet")
    best = found.training["state"]["best_step"]
    if best is not None and best in checkpoint.steps(folder):
        found = checkpoint.load(folder / checkpoint.name_of(best))
    load_weights(model, found.weights, f"init_from={source}")


def load_weights(model: nn.Module, weights: dict[str, Any], what: str) -> None:
    """Load a state_dict whose names and shapes must be the model's.

    Raises:
        UsageError: They differ; names the first that do.
    """
    own = model.state_dict()
    for name in [*own, *weights]:
        there, here = weights.get(name), own.get(name)
        if there is None or here is None:
            side = "the checkpoint lacks it" if there is None else "the model lacks it"
            raise UsageError(f"{what}: other weights than the model's: {name}: {side}")
        if isinstance(here, Tensor) and here.shape != there.shape:
            shapes = f"{list(there.shape)} in the checkpoint, {list(here.shape)} in the model"
            raise UsageError(f"{what}: other weights than the model's: {name}: {shapes}")
    model.load_state_dict(weights)
