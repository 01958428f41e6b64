"""Optimizers of our own beside torch.optim."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


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

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: Computes the gradients and returns the loss; None takes the gradients that are there.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    w.sub_(w.grad, alpha=group["lr"])  # w -= lr * w.grad, rounded once as torch.optim.SGD does
                    w.grad.zero_()
        return loss


class LBFGS(torch.optim.LBFGS):
    """torch's L-BFGS, whose step leaves weights and state as they were if its closure raises.

    One step evaluates the loss several times and moves the weights in between.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Take one step; see torch.optim.LBFGS."""
        (group,) = self.param_groups
        for state in self.state.values():  # a resumed run may have another history_size
            state.pop("al", None)
            for history in ("old_dirs", "old_stps", "ro"):
                state[history] = state.get(history, [])[-group["history_size"] :]
        weights = [w.clone() for w in group["params"]]
        states = {w: {name: _copied(value) for name, value in state.items()} for w, state in self.state.items()}
        try:
            return super().step(closure)  # type: ignore[no-untyped-call]
        except BaseException:
            for w, before in zip(group["params"], weights, strict=True):
                w.copy_(before)
            self.state.clear()
            self.state.update(states)
            raise


def over(optimizer: torch.optim.Optimizer, model: nn.Module, copied: nn.Module) -> torch.optim.Optimizer:
    """Return a copy of an optimizer whose weights are those of a copy of its model.

    Args:
        optimizer: It may keep its weights wherever it likes.
        model: What they are of.
        copied: The model's copy.
    """
    twin = object.__new__(type(optimizer))
    memo: dict[int, Any] = {id(optimizer): twin}
    memo.update((id(a), b) for a, b in zip(model.parameters(), copied.parameters(), strict=True))
    twin.__dict__ = copy.deepcopy(optimizer.__dict__, memo)
    return twin


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return list(value)  # of vectors that L-BFGS replaces and never writes into
    return value.clone() if isinstance(value, Tensor) else value
