"""Evaluates a model: the loss over some rows, and the metrics for its kind of target."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainer.checkpoints.store import Checkpoint
from trainer.config.settings import Settings
from trainer.data import Batches
from trainer.errors import RunFailed, TrainerError, refusal
from trainer.files import fingerprint
from trainer.files.plain_json import finite
from trainer.losses import OVER_PROBABILITIES
from trainer.runs import moved_files
from trainer.runs.directory import RunDirectory
from trainer.session.prepare import kept_preprocess
from trainer.session.run_state import load_weights
from trainer.training.build import Built, build, evaluation_batches
from trainer.training.instantiate import reason_of
from trainer.training.loop import evaluate


def rows_of(rundir: RunDirectory, stored: Settings, changed: Settings, found: Checkpoint) -> tuple[Built, Batches, str]:
    """Return a run with the weights of a checkpoint, the rows to evaluate, and a description of these rows.

    Args:
        rundir: The run.
        stored: Its settings.
        changed: The settings to evaluate with; if the data are not the run's, all rows are evaluated.
        found: The checkpoint.
    """
    recorded = rundir.read_status().get("data", {}).get("files", {})
    left = moved_files.left(recorded, stored.data, changed.data)
    read = {path: sums for path, sums in recorded.items() if path not in left}
    others = not moved_files.is_same(recorded, stored.data, changed.data) or bool(fingerprint.changed(read))
    if others:  # it is unknown which of their rows were held out
        changed = dataclasses.replace(changed, data={**changed.data, **_all_rows(changed)})
    built = _built(rundir, changed, found.weights)
    width, learned = built.data.facts().get("width"), rundir.read_status().get("data", {}).get("width")
    if width is not None and width != learned:
        raise refusal(f"data.path={changed.data['path']}", f"has {width} columns, but the run learned from {learned}")
    run = built.run
    run.state.step = found.step  # a model that draws random numbers draws those of the evaluation at that step
    if run.validation is not None:
        return built, run.validation, "held out"
    every = evaluation_batches(run.batches.source, built.data, run.batches)
    return built, every, "of these data" if others else "used for training; none were held out"


@dataclass(frozen=True)
class Report:
    """The result of an evaluation.

    `predictions` and `targets` are numbers in the targets' own units (rows, targets), or indices of `classes` (rows,).
    """

    loss: float
    predictions: Tensor
    targets: Tensor
    names: list[str]
    classes: list[str] | None

    def metrics(self) -> dict[str, float]:
        """Return the metrics for the kind of target."""
        found = {"loss": self.loss}
        if self.classes is not None:
            return {**found, "accuracy": float((self.predictions == self.targets).double().mean())}
        if self.predictions.shape != self.targets.shape or self.predictions.ndim != 2:
            return found
        each = [self._errors(column) for column in range(len(self.names))]
        for metric in ("r2", "rmse", "mae"):
            values = {name: e[metric] for name, e in zip(self.names, each, strict=True) if metric in e}
            if values and (metric == "r2" or len(self.names) == 1):  # errors of several targets have no common unit
                found[metric] = sum(values.values()) / len(values)
            if len(self.names) > 1:
                found.update({f"{metric}_{name}": value for name, value in values.items()})
        return found

    def confusion(self) -> list[list[int]]:
        """Return the confusion matrix: the number of rows for each actual (row) and predicted (column) class."""
        count = len(self.classes or ())
        table = (self.targets * count + self.predictions).bincount(minlength=count**2).reshape(count, count)
        rows: list[list[int]] = table.tolist()
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        table = {} if self.classes is None else {"classes": self.classes, "confusion": self.confusion()}
        return {**finite(self.metrics()), **table}

    def _errors(self, column: int) -> dict[str, float]:
        """Return R2 = 1 - sum (y - p)^2 / sum (y - mean y)^2, the root mean square and the mean absolute error."""
        target, error = self.targets[:, column], self.predictions[:, column] - self.targets[:, column]
        total = (target - target.mean()).square().sum()
        found = {"r2": float(1 - error.square().sum() / total)} if target.max() > target.min() else {}
        return {**found, "rmse": float(error.square().mean().sqrt()), "mae": float(error.abs().mean())}


def look(built: Built, batches: Batches) -> Report:
    """Evaluate the model on rows.

    Args:
        built: The run.
        batches: The rows.

    Raises:
        RunFailed: The model or the loss raises an error.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    try:
        measured = evaluate(built.run, batches, lambda *both: seen.append((both[0].cpu(), both[1].cpu())))
    except TrainerError:
        raise
    except Exception as error:  # a user's model may raise any exception
        raise RunFailed(f"the model can't be evaluated: {reason_of(error)}") from error
    loss = measured["validation_loss"]
    predictions, targets = (torch.cat([*map(torch.atleast_1d, part)]) for part in zip(*seen, strict=True))
    preprocess, classes = built.data.preprocess, built.data.classes
    if classes is not None:
        return Report(loss, predictions.argmax(1), targets if targets.ndim == 1 else targets.argmax(1), [], classes)
    if isinstance(built.run.loss, OVER_PROBABILITIES) and predictions.shape == targets.shape and targets.shape[1] == 1:
        half = 0.5 if isinstance(built.run.loss, nn.BCELoss) else 0.0  # the threshold of a probability or of a logit
        return Report(loss, (predictions[:, 0] > half).long(), (targets[:, 0] > 0.5).long(), [], ["0", "1"])
    names = [] if preprocess is None else [one["column"] for one in preprocess.targets]
    if preprocess is not None and predictions.shape == targets.shape:
        predictions, targets = preprocess.restored(predictions).double(), preprocess.restored(targets).double()
    return Report(loss, predictions, targets, names, None)


def _all_rows(settings: Settings) -> dict[str, Any]:
    """Return the data settings that hold out no rows."""
    nothing = {"validation": 0.0, "split": None, "validation_path": None}
    return {key: value for key, value in nothing.items() if key in settings.data}


def _built(rundir: RunDirectory, settings: Settings, weights: dict[str, Any]) -> Built:
    """Build a run with given weights and its saved preprocessing.

    Settings for training alone are set to their defaults, so that they can't refuse a small number of rows.
    """
    plain = dataclasses.replace(
        settings,
        batch_size=None,
        accumulate=1,
        monitor=None,
        mode=None,
        patience=None,
        eval_every=None,
        schedule={"_target_": "trainer.schedules.Constant"},
    )
    built = build(plain, rundir.read_status().get("choices"), kept_preprocess(rundir))
    load_weights(built.run.model, weights, str(rundir.path))
    return built
