"""Learning-rate schedules: a factor on `optim.lr`, given by the step alone except in Plateau."""

from __future__ import annotations

import math
from typing import Any

import torch

from trainer.errors import require


class Schedule:
    """The base class of schedules; its factor is 1 at every step."""

    def factor(self, step: int) -> float:
        """Return the factor on the learning rate in a step, counted from 0."""
        return 1.0

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rate of every parameter group for a step, counted from 0."""
        factor = self.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def lr(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Return the learning rate of the first parameter group in a step, counted from 0."""
        return float(optimizer.param_groups[0]["initial_lr"] * self.factor(step))

    def observe(self, value: float) -> None:
        """Record the monitored metric after an evaluation, with a sign that makes smaller better."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs, as plain data."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""


class Constant(Schedule):
    """Keeps the learning rate constant."""


class Step(Schedule):
    """Multiplies the learning rate by gamma every `step_size` steps: gamma^floor(step / step_size).

    Args:
        steps: Number of steps of the run.
        step_size: Steps between drops; None is a third of the run, like drops at epochs 30 and 60 of 90.
        gamma: Factor of each drop, above 0 and at most 1.
    """

    def __init__(self, steps: int, step_size: int | None = None, gamma: float = 0.1) -> None:
        if step_size is not None:
            require("step_size", step_size, step_size >= 1, "at least 1")
        require("gamma", gamma, 0 < gamma <= 1, "above 0 and at most 1")
        self.step_size, self.gamma = step_size or -(-steps // 3), gamma

    def factor(self, step: int) -> float:
        """Return gamma^floor(step / step_size)."""
        return float(self.gamma ** (step // self.step_size))


class Cosine(Schedule):
    """Decays along half a cosine from 1 to `final` over the whole run (Loshchilov & Hutter 2017, without restarts).

    Args:
        steps: Number of steps of the run.
        final: Factor at the end, from 0 to 1.
    """

    def __init__(self, steps: int, final: float = 0.0) -> None:
        require("final", final, 0 <= final <= 1, "from 0 to 1")
        self.steps, self.final = steps, final

    def factor(self, step: int) -> float:
        """Return final + (1 - final) * (1 + cos(pi * step / steps)) / 2; `final` after the last step."""
        return _cosine(1.0, self.final, min(step / self.steps, 1.0))


class WarmupCosine(Schedule):
    """Rises linearly for `warmup` steps (Goyal et al. 2017), then decays along half a cosine to `final`.

    Args:
        steps: Number of steps of the run.
        warmup: Number of steps of the rise, from 0 to below `steps`.
        final: Factor at the end, from 0 to 1.
    """

    def __init__(self, steps: int, warmup: int = 100, final: float = 0.0) -> None:
        require("warmup", warmup, 0 <= warmup < steps, f"from 0 to {steps - 1}: the run has {steps} steps")
        self.warmup, self.cosine = warmup, Cosine(steps - warmup, final)

    def factor(self, step: int) -> float:
        """Return (step + 1) / (warmup + 1) during the rise, then the factor of the cosine."""
        return (step + 1) / (self.warmup + 1) if step < self.warmup else self.cosine.factor(step - self.warmup)


class OneCycle(Schedule):
    """Rises to 1, then decays far below the first factor, both along half cosines (Smith & Topin 2018).

    Unlike torch.optim.lr_scheduler.OneCycleLR, it leaves the momentum unchanged.

    Args:
        steps: Number of steps of the run.
        pct_start: Fraction of the run spent rising, from 0 to below 1.
        div_factor: The first factor is 1 / div_factor; at least 1.
        final_div_factor: The last factor is the first factor / final_div_factor; at least 1.
    """

    def __init__(
        self, steps: int, pct_start: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4
    ) -> None:
        require("pct_start", pct_start, 0 <= pct_start < 1, "at least 0 and below 1")
        require("div_factor", div_factor, div_factor >= 1, "at least 1")
        require("final_div_factor", final_div_factor, final_div_factor >= 1, "at least 1")
        self.peak, self.last = pct_start * steps - 1, steps - 1
        self.first = 1 / div_factor
        self.final = self.first / final_div_factor

    def factor(self, step: int) -> float:
        """Return the factor of a step; the peak, 1, is at step pct_start * steps - 1, possibly between two steps."""
        if step < self.peak:
            return _cosine(self.first, 1.0, step / self.peak)
        return _cosine(1.0, self.final, min((step - self.peak) / (self.last - self.peak), 1.0))


class Plateau(Schedule):
    """Multiplies the learning rate by a factor when the monitored metric stops improving.

    Args:
        factor: Factor of each drop, above 0 and below 1.
        patience: Number of consecutive evaluations without improvement to tolerate; the next one triggers a drop.
        threshold: Smallest improvement that counts, relative to the best value so far; at least 0 and below 1.
        min_factor: Lower bound of the factor, from 0 to 1.
    """

    def __init__(
        self, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, min_factor: float = 1e-6
    ) -> None:
        require("factor", factor, 0 < factor < 1, "above 0 and below 1")
        require("patience", patience, patience >= 0, "at least 0")
        require("threshold", threshold, 0 <= threshold < 1, "at least 0 and below 1")
        require("min_factor", min_factor, 0 <= min_factor <= 1, "from 0 to 1")
        self.drop, self.patience, self.threshold, self.min_factor = factor, patience, threshold, min_factor
        self.current, self.best, self.stale = 1.0, math.inf, 0

    def factor(self, step: int) -> float:
        """Return the factor after the drops so far; it does not depend on the step."""
        return self.current

    def observe(self, value: float) -> None:
        """Drop the factor after more than `patience` consecutive evaluations without improvement."""
        margin = self.threshold * abs(self.best) if math.isfinite(self.best) else 0.0
        if value < self.best - margin:
            self.best, self.stale = value, 0
            return
        self.stale += 1
        if self.stale > self.patience:
            self.current, self.stale = max(self.current * self.drop, self.min_factor), 0

    def state_dict(self) -> dict[str, Any]:
        """Return the current factor, the best value, and the number of evaluations since."""
        return {"current": self.current, "best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`; states of other schedules are ignored."""
        for name in self.state_dict():
            setattr(self, name, state.get(name, getattr(self, name)))


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
