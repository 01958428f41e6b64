"""Updates of torch's optimizers without the bookkeeping around them, a large part of a small step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from trainer.training import torch_private

Settings = dict[str, Any]
States = Sequence[dict[str, Any]]  # what the optimizer keeps of each weight

# Where SGD without momentum has one result, whichever way torch computes it. In bfloat16 the kernel rounds otherwise.
_SAME_BITS = {(torch.device("cpu"), torch.float32), (torch.device("cpu"), torch.float64)}


def step(optimizer: Optimizer, closure: Callable[[], float]) -> float:
    """Take a step with the same bits as `optimizer.step(closure)` and return the loss.

    For SGD, Adam and AdamW with fused=True, and for SGD without momentum, whose default step has the bits of the fused
    one, the kernel is called on the optimizer's own state. For the other optimizers of torch, and where a kernel can't
    be had, the function inside the decorated step is called. Optimizers that are not torch's, decorated or followed
    steps, L-BFGS and differentiable steps are left to `optimizer.step`.

    Args:
        optimizer: Any optimizer.
        closure: Computes the gradients and returns the loss.
    """
    cls = type(optimizer)
    update = torch_private.undecorated(cls.step)
    if update is None or torch_private.is_followed(optimizer) or optimizer.defaults.get("differentiable"):
        return float(optimizer.step(closure))
    loss = closure()
    with torch.no_grad():
        calls = [_arguments(optimizer, group) for group in optimizer.param_groups] if cls in _KERNELS else [None]
        if None in calls:
            update(optimizer)
            return loss
        for call in calls:
            if call is not None and call[1]:
                _KERNELS[cls](*call)
    return loss


def _arguments(optimizer: Optimizer, group: Settings) -> tuple[Settings, list[Tensor], list[Tensor], States] | None:
    """Return what a kernel takes for a group of weights, None where it can't be used."""
    weights, grads = [], []
    for w in group["params"]:
        if (grad := w.grad) is None:
            continue
        if grad.is_sparse or not (grad.is_contiguous() and w.is_contiguous()):
            return None  # a kernel goes through memory as it lies there
        weights.append(w)
        grads.append(grad)
    kinds = {(w.device, w.dtype) for w in weights}
    stateless = group.get("momentum") == 0
    same_bits = stateless and kinds <= _SAME_BITS and not group["foreach"]
    if not (group["fused"] or same_bits) or not isinstance(group["lr"], float) or len(kinds) > 1:
        return None
    if not (stateless or all(map(optimizer.state.get, weights))) or not _agrees(type(optimizer), stateless):  # type: ignore[arg-type]
        return None
    return group, weights, grads, [] if stateless else [optimizer.state[w] for w in weights]


@functools.cache
@torch.no_grad()
def _agrees(cls: type[Optimizer], stateless: bool) -> bool:
    """Return whether three steps with a kernel have the bits of the optimizer's own, in the installed torch.

    Args:
        cls: SGD, Adam or AdamW.
        stateless: Whether SGD has no momentum.
    """
    settings: Settings = {} if stateless else {"fused": True, **({"momentum": 0.9} if cls is SGD else {})}
    update = torch_private.undecorated(cls.step)
    assert update is not None
    pair = [torch.linspace(-1, 1, 37, dtype=torch.float32, device="cpu").requires_grad_() for _ in range(2)]
    ours, theirs = (cls([w], lr=0.1, weight_decay=0.01, **settings) for w in pair)  # type: ignore[call-arg]
    try:
        for number in range(3):
            grads = [w.detach() - number for w in pair]
            pair[0].grad, pair[1].grad = grads
            update(theirs)
            if number or stateless:
                _KERNELS[cls](ours.param_groups[0], pair[:1], grads[:1], [] if stateless else [ours.state[pair[0]]])
            else:
                update(ours)  # makes the state
    except (AttributeError, KeyError, RuntimeError, TypeError):
        return False
    kept = ours.state[pair[0]]
    return torch.equal(*pair) and all(torch.equal(kept[name], value) for name, value in theirs.state[pair[1]].items())


def _kernel(name: str) -> Callable[..., None]:
    """Return a kernel.

    Raises:
        AttributeError: torch has none.
    """
    kernel = torch_private.fused_kernel(name)
    if kernel is None:
        raise AttributeError(f"torch has no kernel {name}")
    return kernel


def _sgd(group: Settings, weights: list[Tensor], grads: list[Tensor], states: States) -> None:
    _kernel("sgd")(
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
    steps = [state["step"] for state in states]
    torch_private.add(steps, 1)
    _kernel("adamw" if group["decoupled_weight_decay"] else "adam")(
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


_KERNELS: dict[type[Optimizer], Callable[[Settings, list[Tensor], list[Tensor], States], None]] = {
    SGD: _sgd,
    Adam: _adam,
    AdamW: _adam,
}
