"""Any model with any loss and any optimizer, in every kind of number; and parts from outside."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch

from trainer import words
from trainer.config import compose_jobs
from trainer.data import Data
from trainer.errors import UsageError
from trainer.job import prepare
from trainer.loop import fit
from trainer.options import Catalog

CONFIGS = Path(__file__).parents[1] / "configs"
MODELS, LOSSES, OPTIMIZERS = (
    sorted(file.stem for file in (CONFIGS / group).glob("*.yaml")) for group in ("model", "loss", "optim")
)
NUMBERS = {
    "float64": ("device.dtype=float64",),
    "amp": ("device.amp=true",),
    "bfloat16": ("device.dtype=bfloat16",),
}
OVER_CLASSES = {"cross_entropy", "bce"}
ALL_MATRICES = {"numpy", "tensor", "autograd", "function"}


class Blobs(Data):
    """Three classes of points, each around a corner of its own."""

    def __init__(self) -> None:
        classes = torch.arange(8) % 3
        super().__init__(torch.eye(3, 5)[classes] + 0.1 * torch.randn(8, 5), classes, 0.0, ["a", "b", "c"])


@cache
def composed(*command):
    catalog = Catalog()
    (job,) = compose_jobs(words.jobs(words.split(list(command)), catalog), catalog)
    return job


def settings_of(model, loss, optimizer, numbers):
    """The settings of `trainer run model=... loss=... optim=... device...` with small data."""
    small = () if model == "product" else ("data.samples=8", "data.inputs=5", "data.outputs=3")
    settings = composed(
        f"model={model}", *small, *NUMBERS[numbers], "batch_size=4" if small else "batch_size=1"
    ).settings
    if "hidden" in settings.model:
        settings = dataclasses.replace(settings, model={**settings.model, "hidden": 4})
    if loss in OVER_CLASSES and small:
        settings = dataclasses.replace(settings, data={"_target_": "test_combinations.Blobs"})
    return dataclasses.replace(
        settings,
        steps=3,
        max_divergence=1e300,  # L-BFGS takes the difference, which has no minimum, far in three steps
        loss=composed(f"loss={loss}").settings.loss,
        optim=composed(f"optim={optimizer}", *(["optim.max_iter=3"] if optimizer == "lbfgs" else [])).settings.optim,
    )


def reason_to_refuse(model, loss, optimizer, numbers):
    """What the refusal says, None where the parts go together."""
    if model == "product" and loss in OVER_CLASSES:
        return "needs classes" if loss == "cross_entropy" else "between 0 and 1"
    if optimizer == "muon" and model not in ALL_MATRICES:
        return "Muon only supports 2D parameters"
    if model == "numpy" and numbers == "bfloat16":
        return "NumPy has no bfloat16"
    if optimizer == "sparse_adam":
        return "SparseAdam does not support dense gradients"
    return None


def train(settings, choices):
    """Return the losses of each step, and whether the weights have moved."""
    losses = []
    run = prepare(settings, choices).run
    before = [w.detach().clone() for w in run.model.parameters()]
    fit(run, [lambda row: losses.append(row["loss"])], lambda due: None, lambda: False)
    moved = any(not torch.equal(w, b) for w, b in zip(run.model.parameters(), before, strict=True))
    return losses, moved


def check(model, loss, optimizer, numbers):
    choices = {"model": model, "loss": loss, "optim": optimizer}
    settings = settings_of(model, loss, optimizer, numbers)
    reason = reason_to_refuse(model, loss, optimizer, numbers)
    if reason:
        with pytest.raises(UsageError, match=reason) as refused:
            prepare(settings, choices)
        assert "\n" not in str(refused.value)
        return
    losses, moved = train(settings, choices)
    assert len(losses) == 3, choices
    assert all(map(math.isfinite, losses)), (choices, losses)
    assert moved or numbers == "bfloat16", choices  # which has no number between 0.1 and 0.1004


@pytest.mark.parametrize("model", MODELS)
def test_every_loss_with_every_optimizer(model):
    for loss, optimizer in product(LOSSES, OPTIMIZERS):
        check(model, loss, optimizer, "float64")
    assert not list(Path().iterdir())


@pytest.mark.parametrize("numbers", ["amp", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_every_pair_in_few_bits(model, numbers):
    """Every model meets every optimizer and every loss, and over all models so do losses and optimizers."""
    for position, optimizer in enumerate(OPTIMIZERS):
        check(model, LOSSES[(position + MODELS.index(model)) % len(LOSSES)], optimizer, numbers)
    assert not list(Path().iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("numbers", ["amp", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_every_loss_with_every_optimizer_in_few_bits(model, numbers):
    for loss, optimizer in product(LOSSES, OPTIMIZERS):
        check(model, loss, optimizer, numbers)
