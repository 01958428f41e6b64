"""Trains the rungs of the ladder for comparison."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.optimizers import GradientDescent
from trainer.training.build import Built
from trainer.training.loop import Learner, Row, fit


def start_alike(models: Sequence[nn.Module]) -> None:
    """Copy the weights of the first of several two-layer models into the others; set biases to zero and freeze them.

    Args:
        models: Each holds two matrices, (in, out) as its own parameters or (out, in) in Linear layers.
    """
    first = [w.detach().clone() for w in _matrices(models[0])]
    for model in models:
        with torch.no_grad():
            for w, start in zip(_matrices(model), first, strict=True):
                w.copy_(start)
            for bias in (p for p in model.parameters() if p.ndim == 1):
                bias.zero_().requires_grad_(False)


def trained(run: Learner) -> tuple[list[float], float]:
    """Train a run; return the loss of each step, and the median seconds per step."""
    losses, times = [], [time.perf_counter()]

    def note(row: Row) -> None:
        if "loss" in row:
            losses.append(row["loss"])
            times.append(time.perf_counter())

    fit(run, [note])
    return losses, statistics.median(after - before for before, after in itertools.pairwise(times))


def update_of(built: Built) -> str:
    """Return in words how the update is computed."""
    cls = type(built.run.optimizer)
    own = "by hand" if cls is GradientDescent else f"own {cls.__name__}"
    return f"torch's {cls.__name__}" if cls.__module__.startswith("torch.") else own


def largest_difference(losses: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the largest difference between two rungs at a step, relative to the larger loss."""
    worst: dict[str, Any] = {"relative": 0.0, "models": list(losses)[:2], "step": 1}
    for (one, ours), (other, theirs) in itertools.combinations(losses.items(), 2):
        for step, (a, b) in enumerate(zip(ours, theirs, strict=False), 1):
            relative = abs(a - b) / max(abs(a), abs(b), 1e-300)
            if relative > worst["relative"]:
                worst = {"relative": relative, "models": [one, other], "step": step}
    return worst


def _matrices(model: nn.Module) -> list[Tensor]:
    """Return the weight matrices of the layers, (in, out), as writable views."""
    linear = [module.weight.T for module in model.modules() if isinstance(module, nn.Linear)]
    return linear or [p for p in model.parameters() if p.ndim == 2]
