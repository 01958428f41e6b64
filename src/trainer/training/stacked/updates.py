"""Optimizer updates of several runs at once: the formulas of torch.optim with numeric settings that differ by run.

Weights, gradients and optimizer states are stacked: (runs, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from trainer.optimizers import GradientDescent
from trainer.training import torch_private

Numbers = dict[str, Tensor]  # settings that may differ by run (runs,), in float64
Switches = dict[str, Any]  # settings that all runs share, and `decays`: whether any run has a weight decay
Kept = Mapping[str, Sequence[Tensor]]  # the optimizer state of each weight, stacked, by the name of the entry


@dataclass(frozen=True)
class Update:
    """How an optimizer updates stacked weights.

    Attributes:
        numbers: Names of the settings that may differ by run.
        kept: Returns the names of the optimizer state of a weight, given the settings of a run.
        apply: Takes weights, gradients, state, numbers and switches, and updates weights and state in place.
    """

    numbers: tuple[str, ...]
    kept: Callable[[dict[str, Any]], tuple[str, ...]]
    apply: Callable[[Sequence[Tensor], Sequence[Tensor], Kept, Numbers, Switches], None]


def numbers_of(group: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a parameter group, with the elements of `betas` also as beta1 and beta2."""
    return {**group, **{f"beta{index + 1}": beta for index, beta in enumerate(group.get("betas", ()))}}


def _descend(weights: Sequence[Tensor], grads: Sequence[Tensor], kept: Kept, n: Numbers, switches: Switches) -> None:
    for w, g in zip(weights, grads, strict=True):
        w.addcmul_(_like(w, n["lr"]), g, value=-1)


def _sgd(weights: Sequence[Tensor], grads: Sequence[Tensor], kept: Kept, n: Numbers, switches: Switches) -> None:
    """torch.optim.SGD; dampening does not apply in the first step of a run or without momentum."""
    buffers = kept.get("momentum_buffer")
    taken = torch.where(n["is_first"] + (n["momentum"] == 0) > 0, 1.0, 1.0 - n["dampening"])
    for i, (w, g) in enumerate(zip(weights, grads, strict=True)):
        g = _decayed(w, -g if switches["maximize"] else g, n, switches)
        if buffers is not None:
            momentum = _like(w, n["momentum"])
            buffer = buffers[i].mul_(momentum).addcmul_(_like(w, taken), g)
            g = g + momentum * buffer if switches["nesterov"] else buffer
        w.addcmul_(_like(w, n["lr"]), g, value=-1)


def _adam(weights: Sequence[Tensor], grads: Sequence[Tensor], kept: Kept, n: Numbers, switches: Switches) -> None:
    """torch.optim.Adam, and AdamW, which decouples weight decay from the gradient."""
    beta1, beta2 = n["beta1"], n["beta2"]
    torch_private.add(kept["step"], 1)
    step = kept["step"][0].double()
    rate = n["lr"] / (1 - beta1**step)
    correction = (1 - beta2**step).sqrt()
    for i, (w, g) in enumerate(zip(weights, grads, strict=True)):
        g = -g if switches["maximize"] else g
        if switches["decoupled_weight_decay"]:
            w.mul_(_like(w, 1 - n["lr"] * n["weight_decay"]))
        else:
            g = _decayed(w, g, n, switches)
        mean = kept["exp_avg"][i].lerp_(g, _like(w, 1 - beta1))
        square = kept["exp_avg_sq"][i].mul_(_like(w, beta2)).addcmul_(g * _like(w, 1 - beta2), g)
        if switches["amsgrad"]:
            square = torch.maximum(kept["max_exp_avg_sq"][i], square, out=kept["max_exp_avg_sq"][i])
        w.addcdiv_(_like(w, rate) * mean, square.sqrt().div_(_like(w, correction)).add_(_like(w, n["eps"])), value=-1)


def _decayed(w: Tensor, g: Tensor, n: Numbers, switches: Switches) -> Tensor:
    return g.addcmul(_like(w, n["weight_decay"]), w) if switches["decays"] else g


def _like(w: Tensor, number: Tensor) -> Tensor:
    """Return one number per run in the dtype of a stacked weight, shaped to broadcast over it."""
    return number.to(w.dtype).view(-1, *(1,) * (w.ndim - 1))


def _adams(group: dict[str, Any]) -> tuple[str, ...]:
    return ("step", "exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))


_ADAM = Update(("lr", "beta1", "beta2", "eps", "weight_decay"), _adams, _adam)
UPDATES: dict[type[Optimizer], Update] = {
    GradientDescent: Update(("lr",), lambda group: (), _descend),
    SGD: Update(
        ("lr", "momentum", "dampening", "weight_decay"),
        lambda group: ("momentum_buffer",) if group["momentum"] else (),
        _sgd,
    ),
    Adam: _ADAM,
    AdamW: _ADAM,
}


def clip(grads: Sequence[Tensor], largest: Sequence[float]) -> tuple[list[Tensor], Tensor]:
    """Return the gradients, clipped for each run as torch.nn.utils.clip_grad_norm_ does.

    Args:
        grads: Stacked gradients.
        largest: Largest L2 norm of all gradients of each run together; infinite for no limit.

    Returns:
        The gradients, and the norms before clipping (runs,) in float64; 0 for runs without a limit.
    """
    parts = [torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1).double() for g in grads]
    limits = torch.tensor(largest, dtype=torch.float64, device=grads[0].device)
    norms: Tensor = torch.linalg.vector_norm(torch.stack(parts), dim=0).where(limits.isfinite(), 0.0)
    factors = (limits / (norms + 1e-6)).clamp(max=1.0)
    return [g * _like(g, factors) for g in grads], norms  # not in place: two weights may share one gradient
