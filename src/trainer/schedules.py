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

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rates for a step."""
        factor = self.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def lr(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Return the first learning rate of a step."""
        return float(optimizer.param_groups[0]["initial_lr"] * self.factor(step))

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
    """Multiplies the learning rate with gamma every `step_size` steps.

    Args:
        steps: Length of the run.
        step_size: Steps between drops; None is a third of the run, as in 90 epochs with drops at 30 and 60.
        gamma: Factor of each drop, above 0 and at most 1.
    """

    def __init__(self, steps: int, step_size: int | None = None, gamma: float = 0.1) -> None:
        if step_size is not None:
            _require("step_size", step_size, step_size >= 1, "at least 1")
        _require("gamma", gamma, 0 < gamma <= 1, "above 0 and at most 1")
        self.step_size, self.gamma = step_size or -(-steps // 3), gamma

    def factor(self, step: int) -> float:
        """Return gamma^(step // step_size)."""
        return float(self.gamma ** (step // self.step_size))


class Cosine(Schedule):
    """Falls along half a cosine from 1 to `final` over the whole run (Loshchilov & Hutter 2017, without restarts).

    Args:
        steps: Length of the run.
        final: Factor at the end, from 0 to 1.
    """

    def __init__(self, steps: int, final: float = 0.0) -> None:
        _require("final", final, 0 <= final <= 1, "from 0 to 1")
        self.steps, self.final = steps, final

    def factor(self, step: int) -> float:
        """Return final + (1 - final) (1 + cos(pi step / steps)) / 2."""
        return _cosine(1.0, self.final, min(step / self.steps, 1.0))


class WarmupCosine(Schedule):
    """Rises linearly for `warmup` steps (Goyal et al. 2017), then falls along half a cosine to `final`.

    Args:
        steps: Length of the run.
        warmup: Steps of the rise, fewer than the run has.
        final: Factor at the end, from 0 to 1.
    """

    def __init__(self, steps: int, warmup: int = 100, final: float = 0.0) -> None:
        _require("warmup", warmup, 0 <= warmup < steps, f"from 0 to {steps - 1}: the run has {steps} steps")
        self.warmup, self.cosine = warmup, Cosine(steps - warmup, final)

    def factor(self, step: int) -> float:
        """Return (step + 1) / (warmup + 1) during the rise, then the cosine."""
        return (step + 1) / (self.warmup + 1) if step < self.warmup else self.cosine.factor(step - self.warmup)


class OneCycle(Schedule):
    """Rises to 1 and falls far below where it began, both along cosines (Smith & Topin 2018); the momentum stays.

    Args:
        steps: Length of the run.
        pct_start: Part of the run that the rise takes, from 0 to below 1.
        div_factor: The first factor is 1 / div_factor.
        final_div_factor: The last factor is the first one / final_div_factor.
    """

    def __init__(
        self, steps: int, pct_start: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4
    ) -> None:
        _require("pct_start", pct_start, 0 <= pct_start < 1, "at least 0 and below 1")
        _require("div_factor", div_factor, div_factor >= 1, "at least 1")
        _require("final_div_factor", final_div_factor, final_div_factor >= 1, "at least 1")
        self.peak, self.last = pct_start * steps - 1, steps - 1
        self.first = 1 / div_factor
        self.final = self.first / final_div_factor

    def factor(self, step: int) -> float:
        """Return the factor of a step: 1 at step pct_start * steps - 1, which may lie between two steps."""
        if step < self.peak:
            return _cosine(self.first, 1.0, step / self.peak)
        return _cosine(1.0, self.final, min((step - self.peak) / (self.last - self.peak), 1.0))


class Plateau(Schedule):
    """Multiplies the learning rate with a factor when the monitored metric stops improving.

    Args:
        factor: Factor of each drop, above 0 and below 1.
        patience: Evaluations in a row without improvement that are borne; the next one drops.
        threshold: Least improvement that counts, relative to the best value so far.
        min_factor: Smallest factor, from 0 to 1.
    """

    def __init__(
        self, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, min_factor: float = 1e-6
    ) -> None:
        _require("factor", factor, 0 < factor < 1, "above 0 and below 1")
        _require("patience", patience, patience >= 0, "at least 0")
        _require("threshold", threshold, 0 <= threshold < 1, "at least 0 and below 1")
        _require("min_factor", min_factor, 0 <= min_factor <= 1, "from 0 to 1")
        self.drop, self.patience, self.threshold, self.min_factor = factor, patience, threshold, min_factor
        self.current, self.best, self.stale = 1.0, math.inf, 0

    def factor(self, step: int) -> float:
        """Return the factor that the evaluations so far have led to."""
        return self.current

    def observe(self, value: float) -> None:
        """Drop after more than `patience` evaluations in a row without improvement."""
        margin = self.threshold * abs(self.best) if math.isfinite(self.best) else 0.0
        if value < self.best - margin:
            self.best, self.stale = value, 0
            return
        self.stale += 1
        if self.stale > self.patience:
            self.current, self.stale = max(self.current * self.drop, self.min_factor), 0

    def state_dict(self) -> dict[str, Any]:
        """Return the current factor, the best value and the evaluations since."""
        return {"current": self.current, "best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned; other schedules' is passed over."""
        for name in self.state_dict():
            setattr(self, name, state.get(name, getattr(self, name)))


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _require(name: str, value: float, ok: bool, limits: str) -> None:
    if not ok:
        raise ValueError(f"{name}={value} must be {limits}")
