"""All uses of private names of torch, each with a public fallback for versions of torch without the name.

A private name may change its behavior in any version, so each use is tried before it is relied on.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import profiler
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

TRIED = ("2.13",)  # versions in which every private name works
_MANY = 4096  # gradients with at least this many numbers are summed first
_OPTIMIZERS = ("torch.optim.", "trainer.optimizers")  # modules whose steps only update weights and state
_DECORATORS = ("torch.utils._contextlib", "torch._dynamo.")  # no_grad, and the exclusion of SparseAdam from compilation


def fused_kernel(name: str) -> Callable[..., None] | None:
    """Return the kernel behind an optimizer with fused=True (sgd, adam, adamw); None if torch has none."""
    return getattr(torch, f"_fused_{name}_", None)


def add(tensors: Sequence[Tensor], number: float) -> None:
    """Add a number to tensors in place, in a single call where torch has one."""
    together = getattr(torch, "_foreach_add_", None)
    if together is not None:
        together(tensors, number)
        return
    for tensor in tensors:
        tensor.add_(number)


def is_followed(optimizer: Optimizer) -> bool:
    """Return whether a hook, a scheduler of torch, a GradScaler or a profiler observes the steps of an optimizer.

    Schedulers replace the method; a GradScaler sets attributes during a step.
    """
    own = vars(optimizer)
    if "step" in own or "grad_scale" in own or "found_inf" in own:
        return True
    try:
        return bool(
            optimizer._optimizer_step_pre_hooks
            or optimizer._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or profiler._is_profiler_enabled
        )
    except AttributeError:  # unknown, so leave it to the optimizer's own step, which calls all hooks
        return True


@functools.cache
def undecorated(step: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the function inside a step of torch or trainer.optimizers, without torch's bookkeeping.

    Args:
        step: The method of an optimizer class.

    Returns:
        A function to call under no_grad; None if the step or one of its decorators comes from elsewhere, or if the step
        requires a closure, like that of L-BFGS.
    """
    layers = [step]
    while (inner := getattr(layers[-1], "__wrapped__", None)) is not None:
        layers.append(inner)
    homes = [
        getattr(layer, "__globals__", {}).get("__name__", "") for layer in layers
    ]  # functools.wraps copies __module__
    known = all(home.startswith((*_OPTIMIZERS, *_DECORATORS)) for home in homes)
    if not known or not homes[-1].startswith(_OPTIMIZERS):
        return None
    _, *others = inspect.signature(layers[-1]).parameters.values()
    if any(other.default is inspect.Parameter.empty for other in others):
        return None
    bookkeeping = ("torch.optim.optimizer", "torch._dynamo.")
    return next(layer for layer, home in zip(layers, homes, strict=True) if not home.startswith(bookkeeping))


def has_non_finite(grads: Sequence[Tensor]) -> bool:
    """Return whether any number in the gradients is infinite or NaN.

    Large gradients on the CPU are summed first: a finite sum proves that all numbers are finite, and a sum only reads
    memory, which takes a third of the time of the kernel, which also writes.

    Args:
        grads: Dense real gradients on one device.
    """
    doubtful = [g for g in grads if not (g.is_cpu and g.numel() >= _MANY and math.isfinite(g.sum().item()))]
    if not doubtful:
        return False
    if not _checks():
        return not bool(torch.stack([torch.isfinite(g).all() for g in doubtful]).all())
    return _check(doubtful)


def _check(grads: list[Tensor]) -> bool:
    """Call the check of torch's GradScaler, which also scales the gradients, with a scale of 1."""
    found = torch.zeros(1, dtype=torch.float32, device=grads[0].device)
    torch._amp_foreach_non_finite_check_and_unscale_(grads, found, _one(found.device))
    return found.item() != 0


@functools.cache
def _one(device: torch.device) -> Tensor:
    return torch.ones(1, dtype=torch.float32, device=device)


@functools.cache
def _checks() -> bool:
    """Return whether the check finds non-finite numbers and leaves finite ones unchanged."""
    largest = torch.finfo(torch.float32).max
    finite = torch.tensor([largest, -largest, 0.1])
    same = finite.clone()
    try:
        found = [_check([finite]), *(_check([torch.tensor([0.1, wrong])]) for wrong in (math.inf, -math.inf, math.nan))]
    except (AttributeError, RuntimeError, TypeError):
        return False
    return found == [False, True, True, True] and torch.equal(finite, same)


def allowing_constants(make_fx: Callable[..., Any]) -> dict[str, Any]:
    """Return the option of make_fx that allows ordinary tensors as constants in a trace with fake tensors."""
    name = "_allow_non_fake_inputs"
    return {name: True} if name in inspect.signature(make_fx).parameters else {}
