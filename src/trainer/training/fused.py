"""Optimizer steps without torch's bookkeeping, a large part of the time of a small step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from trainer.training import torch_private

Settings = dict[str, Any]
States = Sequence[dict[str, Any]]  # the optimizer state of each weight

# Where the kernel of SGD without momentum gives the same bits as the default step; in bfloat16 it rounds differently.
_SAME_BITS = {(torch.device("cpu"), torch.float32), (torch.device("cpu"), torch.float64)}
# Sizes of the weights in a trial: vectors and remainders, each too small for a kernel to start its threads, which would
# take tens of milliseconds on a busy machine.
_TRIAL_SIZES = (16, 15)


def step(optimizer: Optimizer, closure: Callable[[], float]) -> float:
    """Take a step with the same bits as `optimizer.step(closure)` and return the loss.

    SGD, Adam and AdamW with fused=True call their kernel directly, and so does SGD without momentum, whose default step
    gives the same bits. Torch's other optimizers, and these without a usable kernel, call the function inside the
    decorated step. Other classes, custom decorators, hooks, L-BFGS and differentiable steps go through
    `optimizer.step`.

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
    """Return the arguments of a kernel for a parameter group; None if the kernel can't be used."""
    weights, grads = [], []
    for w in group["params"]:
        if (grad := w.grad) is None:
            continue
        if grad.is_sparse or not (grad.is_contiguous() and w.is_contiguous()):
            return None  # kernels assume contiguous memory
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
    """Return whether three steps with a kernel give the same bits as the optimizer's own steps in the installed torch.

    Args:
        cls: SGD, Adam or AdamW.
        stateless: Whether SGD has no momentum.
    """
    settings: Settings = {} if stateless else {"fused": True, **({"momentum": 0.9} if cls is SGD else {})}
    update = torch_private.undecorated(cls.step)
    assert update is not None
    weights, expected = (
        [torch.linspace(-1, 1, size, dtype=torch.float32, device="cpu").requires_grad_() for size in _TRIAL_SIZES]
        for _ in range(2)
    )
    ours, theirs = (cls(ws, lr=0.1, weight_decay=0.01, **settings) for ws in (weights, expected))  # type: ignore[call-arg]
    try:
        for number in range(3):
            for w in (*weights, *expected):
                w.grad = w.detach() - number
            update(theirs)
            if number or stateless:
                grads = [w.grad for w in weights]
                states = [] if stateless else [ours.state[w] for w in weights]
                _KERNELS[cls](ours.param_groups[0], weights, grads, states)  # type: ignore[arg-type]
            else:
                update(ours)  # creates the state
    except (AttributeError, KeyError, RuntimeError, TypeError):
        return False
    return all(
        torch.equal(a, b) and all(torch.equal(ours.state[a][name], value) for name, value in theirs.state[b].items())
        for a, b in zip(weights, expected, strict=True)
    )


def _kernel(name: str) -> Callable[..., None]:
    """Return a kernel of torch.

    Raises:
        AttributeError: torch has no such kernel.
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
