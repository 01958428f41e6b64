"""Any model with any loss and any optimizer, in every kind of number; and parts from outside."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch

from trainer.config import arguments
from trainer.config.catalog import Catalog
from trainer.config.compose import compose_jobs
from trainer.data import Data
from trainer.errors import RunFailed, UsageError
from trainer.session.prepare import prepare
from trainer.training.loop import fit

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
    (job,) = compose_jobs(arguments.jobs(arguments.split(list(command)), catalog), catalog)
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
        loss=composed(f"loss={loss}").settings.loss,
        optim=composed(f"optim={optimizer}", *(["optim.max_iter=3"] if optimizer == "lbfgs" else [])).settings.optim,
    )


def reason_to_refuse(model, loss, optimizer, numbers):
    """What the refusal says, None where the parts go together."""
    if model == "product" and loss in OVER_CLASSES:
        return "needs class targets" if loss == "cross_entropy" else "between 0 and 1"
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
    # L-BFGS finds out within three steps that the difference has no minimum; the guard stops it.
    runs_away = (choices["loss"], choices["optim"]) == ("difference", "lbfgs")
    with contextlib.suppress(RunFailed) if runs_away else contextlib.nullcontext():
        fit(run, [lambda row: losses.append(row["loss"])], lambda due: None, lambda: False)
    assert len(losses) == 3 or runs_away, choices
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


MY_PARTS = """
import torch
from torch import nn

class Wave(nn.Module):
    def __init__(self, inputs: int, outputs: int, frequency: float = 1.0):
        super().__init__()
        self.frequency = frequency
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x):
        return torch.sin(self.frequency * self.layer(x))

class LogCosh(nn.Module):
    reduction = "mean"

    def forward(self, prediction, target):
        return torch.log(torch.cosh(prediction - target)).mean()

class SignDescent(torch.optim.Optimizer):
    def __init__(self, params, lr: float = 1e-3, momentum: float = 0.5):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                mean = self.state[w].setdefault("mean", torch.zeros_like(w))
                mean.lerp_(w.grad, 1 - group["momentum"])
                w.sub_(mean.sign(), alpha=group["lr"])
        return loss
"""
SELECTED = {"model": "Wave", "loss": "LogCosh", "optim": "SignDescent"}


@pytest.fixture
def my_parts():
    """Write a module into the working directory, with a config `mine` for each class that a group selects."""

    def write(code, **classes):
        Path("my_parts.py").write_text(code)
        for group, name in classes.items():
            folder = Path("configs", group)
            folder.mkdir(parents=True)
            (folder / "mine.yaml").write_text(f"# {name} of my own\n_target_: my_parts.{name}\n")

    yield write
    sys.modules.pop("my_parts", None)


def test_parts_from_outside_run_and_resume(my_parts, train, cli):
    my_parts(MY_PARTS, **SELECTED)
    command = "model=mine", "loss=mine", "optim=mine", "optim.momentum=0.9", "batch_size=16"
    straight = train(*command, "steps=20", name="straight")
    assert straight.steps[-1]["loss"] < straight.steps[0]["loss"]
    resumed = train(*command, "steps=7", name="resumed")
    assert cli("resume", "resumed", "steps=20").code == 0
    assert resumed.bits() == straight.bits()


@pytest.mark.parametrize("group", SELECTED)
@pytest.mark.parametrize("numbers", NUMBERS)
def test_each_part_from_outside_goes_with_ours(my_parts, train, group, numbers):
    my_parts(MY_PARTS, **{group: SELECTED[group]})
    run = train(f"{group}=mine", *NUMBERS[numbers], "steps=3", "batch_size=16", "data.validation=0.25")
    assert run.status["state"] == "done"
    assert len(run.evaluations) == 1


BAD = {  # what is wrong: the classes of the module, what the one line says
    "several losses": (
        {"loss": "class Bad(nn.Module):\n    def forward(self, p, t): return p - t"},
        "the loss must be one number, not [2, 10]",
    ),
    "a loss that is no tensor": (
        {"loss": "class Bad(nn.Module):\n    def forward(self, p, t): return 1.0"},
        "the loss must be one number, not float",
    ),
    "several predictions": (
        {
            "model": "class Bad(nn.Module):\n"
            "    def __init__(self):\n        super().__init__(); self.w = nn.Parameter(torch.ones(1))\n"
            "    def forward(self, x): return self.w, x"
        },
        "the model returns a tuple, not a tensor",
    ),
    "another width": (
        {
            "model": "class Bad(nn.Module):\n"
            "    def __init__(self):\n        super().__init__(); self.layer = nn.Linear(1000, 1)\n"
            "    def forward(self, x): return self.layer(x)"
        },
        "the model's predictions have the shape [2, 1], the targets [2, 10]",
    ),
    "nothing to train": (
        {"model": "class Bad(nn.Module):\n    def forward(self, x): return x[:, :10]"},
        "has no parameters to train",
    ),
    "an exception of its own": (
        {"model": "class Bad(nn.Module):\n    def __init__(self):\n        raise KeyError('nothing')"},
        "KeyError: 'nothing'",
    ),
    "no learning rate": (
        {
            "optim": "class Bad(torch.optim.Optimizer):\n"
            "    def __init__(self, params): super().__init__(params, {})\n"
            "    def step(self, closure): return closure()"
        },
        "its param_groups have no lr",
    ),
    "a state that no checkpoint holds": (
        {
            "optim": "class Bad(torch.optim.SGD):\n"
            "    def step(self, closure):\n"
            "        self.state[self.param_groups[0]['params'][0]]['seen'] = {1, 2}\n"
            "        return super().step(closure)"
        },
        "is a set, which a checkpoint can't hold",
    ),
    "a metric that evaluation can't compute": (
        {
            "model": "class Bad(nn.Module):\n"
            "    def __init__(self):\n        super().__init__(); self.layer = nn.Linear(1000, 10)\n"
            "    def forward(self, x): return self.layer(x if self.training else x[0, 0, 0])"
        },
        "a training step fails",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_parts_that_cannot_train_are_refused_before_anything_is_created(my_parts, cli, what):
    ((group, code),) = BAD[what][0].items()
    my_parts(f"import torch\nfrom torch import nn\n{code}\n", **{group: "Bad"})
    before = sorted(Path().iterdir())
    result = cli("run", f"{group}=mine", "data.validation=0.25")
    assert result.code == 2
    assert BAD[what][1] in result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert sorted(p for p in Path().iterdir() if p.name != "__pycache__") == before
