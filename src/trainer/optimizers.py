"""Optimizers besides those of torch.optim."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.errors import require


class GradientDescent(torch.optim.Optimizer):
    """Plain gradient descent, written out: w <- w - lr * dL/dw, after which the gradient is set to zero.

    Args:
        params: The parameters to optimize.
        lr: Learning rate, at least 0.

    Raises:
        ValueError: The learning rate is negative.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-4) -> None:
        require("lr", lr, lr >= 0, "at least 0")
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: Computes the gradients and returns the loss; None uses the present gradients.

        Returns:
            The loss that the closure returned; None without a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    w.sub_(w.grad, alpha=group["lr"])  # w -= lr * w.grad, rounded once, as in torch.optim.SGD
                    w.grad.zero_()
        return loss


class LBFGS(torch.optim.LBFGS):
    """L-BFGS of torch (Liu & Nocedal 1989), with steps that restore weights and state if the closure raises.

    One step evaluates the loss several times and moves the weights between the evaluations.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Take one step, as torch.optim.LBFGS does.

        Args:
            closure: Computes the gradients and returns the loss; called several times.
        """
        (group,) = self.param_groups
        for state in self.state.values():  # history_size may have changed on resume
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
    """Return a copy of an optimizer that optimizes the weights of a copied model.

    Args:
        optimizer: The optimizer of `model`; it may store references to the weights in any attribute.
        model: The model.
        copied: A copy of the model.
    """
    twin = object.__new__(type(optimizer))
    memo: dict[int, Any] = {id(optimizer): twin}
    memo.update((id(a), b) for a, b in zip(model.parameters(), copied.parameters(), strict=True))
    twin.__dict__ = copy.deepcopy(optimizer.__dict__, memo)
    return twin


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return list(value)  # L-BFGS replaces the vectors in it and never modifies them
    return value.clone() if isinstance(value, Tensor) else value
