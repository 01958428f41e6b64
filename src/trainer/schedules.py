"""Learning-rate schedules: the factor on `optim.lr` as a pure function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch


class Schedule:
    """The constant schedule, and the frame of the others."""

    def factor(self, step: int) -> float:
        """Return what the learning rate is multiplied with in a step, counted from 0."""
        return 1.0

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Set the learning rates for a step and return the first one."""
        factor = self.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return float(optimizer.param_groups[0]["lr"])

    def observe(self, value: float) -> None:
        """Take note of the monitored metric after an evaluation (smaller is better)."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the schedule has learned on the way."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""


class Constant(Schedule):
    """Keeps the learning rate as it is."""


class Step(Schedule):
    """Multiplies the learning rate with gamma every `size` steps.

    Args:
        size: Steps between drops.
        gamma: Factor of each drop.
    """

    def __init__(self, size: int = 1000, gamma: float = 0.1) -> None:
        _check(size=size >= 1, gamma=gamma > 0, values=locals())
        self.size, self.gamma = size, gamma

    def factor(self, step: int) -> float:
        """Return gamma^(step // size)."""
        return float(self.gamma ** (step // self.size))


class Cosine(Schedule):
    """Falls along half a cosine from 1 to `final` over the whole run (Loshchilov & Hutter 2017, without restarts).

    Args:
        steps: Length of the run.
        final: Factor at the end.
    """

    def __init__(self, steps: int, final: float = 0.0) -> None:
        _check(final=0 <= final <= 1, values=locals())
        self.steps, self.final = steps, final

    def factor(self, step: int) -> float:
        """Return final + (1 - final) (1 + cos(pi step / steps)) / 2."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(step / self.steps, 1))) / 2


class WarmupCosine(Schedule):
    """Rises linearly for `warmup` steps, then falls along half a cosine to `final` (Goyal et al. 2017).

    Args:
        steps: Length of the run.
        warmup: Steps of the rise.
        final: Factor at the end.
    """

    def __init__(self, steps: int, warmup: int = 100, final: float = 0.0) -> None:
        _check(warmup=warmup >= 0, final=0 <= final <= 1, values=locals())
        if warmup >= steps:
            raise ValueError(f"warmup={warmup} must be shorter than the run of {steps} steps")
        self.warmup, self.cosine = warmup, Cosine(steps - warmup, final)

    def factor(self, step: int) -> float:
        """Return (step + 1) / (warmup + 1) during the rise, then the cosine."""
        return (step + 1) / (self.warmup + 1) if step < self.warmup else self.cosine.factor(step - self.warmup)


class OneCycle(Schedule):
    """Rises from 1/start to 1 and falls to 1/end, both along cosines (Smith & Topin 2018); the momentum stays.

    Args:
        steps: Length of the run.
        rise: Fraction of the run that the rise takes.
        start: How many times smaller the first learning rate is.
        end: How many times smaller the last learning rate is.
    """

    def __init__(self, steps: int, rise: float = 0.3, start: float = 25.0, end: float = 1e4) -> None:
        _check(rise=0 < rise < 1, start=start >= 1, end=end >= 1, values=locals())
        self.steps, self.rise, self.start, self.end = steps, rise, start, end

    def factor(self, step: int) -> float:
        """Return the factor of a step."""
        peak = max(self.rise * self.steps - 1, 1)
        if step <= peak:
            return _cosine(1 / self.start, 1.0, step / peak)
        return _cosine(1.0, 1 / self.end, min((step - peak) / max(self.steps - 1 - peak, 1), 1))


class Plateau(Schedule):
    """Multiplies the learning rate with gamma when the monitored metric stops improving.

    Args:
        gamma: Factor of each drop.
        patience: Evaluations without improvement before a drop.
        least: Smallest factor.
    """

    def __init__(self, gamma: float = 0.1, patience: int = 5, least: float = 1e-6) -> None:
        _check(gamma=0 < gamma < 1, patience=patience >= 0, least=0 <= least <= 1, values=locals())
        self.gamma, self.patience, self.least = gamma, patience, least
        self.current, self.best, self.stale = 1.0, math.inf, 0

    def factor(self, step: int) -> float:
        """Return the factor that the evaluations so far have led to."""
        return self.current

    def observe(self, value: float) -> None:
        """Drop after more than `patience` evaluations without improvement."""
        if value < self.best:
            self.best, self.stale = value, 0
            return
        self.stale += 1
        if self.stale > self.patience:
            self.current, self.stale = max(self.current * self.gamma, self.least), 0

    def state_dict(self) -> dict[str, Any]:
        """Return the current factor, the best value and the evaluations since."""
        return {"current": self.current, "best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        self.current, self.best, self.stale = state["current"], state["best"], state["stale"]


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _check(values: dict[str, Any], **in_range: bool) -> None:
    for name, ok in in_range.items():
        if not ok:
            raise ValueError(f"{name}={values[name]} is out of range")
