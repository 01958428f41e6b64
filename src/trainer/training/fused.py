"""Steps of fused optimizers without the bookkeeping around their kernels, a large part of a small step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer
from torch.optim import optimizer as torch_optimizer

Settings = dict[str, Any]
States = Sequence[dict[str, Any]]  # what the optimizer keeps of each weight

# Where SGD without momentum has one result, whichever way torch computes it. In bfloat16 the kernel rounds otherwise.
_SAME_BITS = {(torch.device("cpu"), torch.float32), (torch.device("cpu"), torch.float64)}
_TESTED = ("2.13.",)  # the kernels are private to torch: of other versions the optimizers' own steps are taken


def step(optimizer: Optimizer, closure: Callable[[], float]) -> float:
    """Take a step with the same bits as `optimizer.step(closure)` and return the loss.

    For SGD, Adam, AdamW and Adagrad with fused=True, and for SGD without momentum, whose default step has the bits of
    the fused one, the kernel is called on the optimizer's own state. What the optimizer has not made yet, hooks and all
    that is unusual are left to its own step.

    Args:
        optimizer: Any optimizer.
        closure: Computes the gradients and returns the loss.
    """
    kernel = _KERNELS.get(type(optimizer))
    if kernel is None or not torch.__version__.startswith(_TESTED) or _is_hooked(optimizer):
        return float(optimizer.step(closure))
    loss = closure()
    calls = [_arguments(optimizer, group) for group in optimizer.param_groups]
    if None in calls:
        optimizer.step()
        return loss
    with torch.no_grad():
        for call in calls:
            if call is not None and call[1]:
                kernel(*call)
    return loss


def _is_hooked(optimizer: Optimizer) -> bool:
    """Say whether someone else follows the steps; torch's schedulers do so by replacing the method."""
    return bool(
        "step" in vars(optimizer)
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or torch_optimizer._global_optimizer_pre_hooks
        or torch_optimizer._global_optimizer_post_hooks
    )


def _arguments(optimizer: Optimizer, group: Settings) -> tuple[Settings, list[Tensor], list[Tensor], States] | None:
    """Return what a kernel takes for a group of weights, None where the optimizer has to take the step itself."""
    weights = [w for w in group["params"] if w.grad is not None]
    grads = [w.grad for w in weights]
    kinds = {(w.device, w.dtype) for w in weights}
    stateless = group.get("momentum") == 0
    same_bits = stateless and kinds <= _SAME_BITS and not group["foreach"] and not group["differentiable"]
    if not (group["fused"] or same_bits) or not isinstance(group["lr"], float) or len(kinds) > 1:
        return None
    if any(grad.is_sparse or not grad.is_contiguous() for grad in grads) or not all(w.is_contiguous() for w in weights):
        return None  # a kernel goes through memory as it lies there
    if not (stateless or all(map(optimizer.state.get, weights))):
        return None
    return group, weights, grads, [] if stateless else [optimizer.state[w] for w in weights]


def _sgd(group: Settings, weights: list[Tensor], grads: list[Tensor], states: States) -> None:
    torch._fused_sgd_(
        weights,
        grads,
        [state["momentum_buffer"] for state in states],
        lr=group["lr"],
        momentum=group["momentum"],
        dampening=group["dampening"],
        weight_decay=group["weight_decay"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
        is_first_step=False,
    )


def _adam(group: Settings, weights: list[Tensor], grads: list[Tensor], states: States) -> None:
    kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    steps = [state["step"] for state in states]
    torch._foreach_add_(steps, 1)
    kernel(
        weights,
        grads,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else [],
        steps,
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=group["amsgrad"],
        maximize=group["maximize"],
    )


def _adagrad(group: Settings, weights: list[Tensor], grads: list[Tensor], states: States) -> None:
    steps = [state["step"] for state in states]
    torch._foreach_add_(steps, 1)
    torch._fused_adagrad_(
        weights,
        grads,
        [state["sum"] for state in states],
        steps,
        lr=group["lr"],
        lr_decay=group["lr_decay"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=group["maximize"],
    )


_KERNELS: dict[type[Optimizer], Callable[[Settings, list[Tensor], list[Tensor], States], None]] = {
    SGD: _sgd,
    Adam: _adam,
    AdamW: _adam,
    Adagrad: _adagrad,
}
