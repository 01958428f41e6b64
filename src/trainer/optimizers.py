"""Optimizers of our own beside torch.optim."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class GradientDescent(torch.optim.Optimizer):
    """Plain descent written out by hand: w <- w - lr * gradient, then the gradient is set to zero.

    Args:
        params: The weights.
        lr: Learning rate, at least 0.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-4) -> None:
        if not lr >= 0:
            raise ValueError(f"lr={lr} must be at least 0")
        super().__init__(params, {"lr": lr})

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Compute the gradients with `closure`, take one step, return the closure's loss."""
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for w in group["params"]:
                    if w.grad is not None:
                        w -= group["lr"] * w.grad
                        w.grad.zero_()
        return loss


class LBFGS(torch.optim.LBFGS):
    """torch's L-BFGS, whose step leaves weights and state as they were if its closure raises.

    One step evaluates the loss several times and moves the weights in between.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Take one step; see torch.optim.LBFGS."""
        weights = [w.clone() for group in self.param_groups for w in group["params"]]
        state = copy.deepcopy(self.state_dict())
        try:
            return super().step(closure)  # type: ignore[no-untyped-call]
        except BaseException:
            flat = [w for group in self.param_groups for w in group["params"]]
            for w, before in zip(flat, weights, strict=True):
                w.copy_(before)
            self.load_state_dict(state)
            raise
