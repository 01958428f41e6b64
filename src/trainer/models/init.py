"""How wide layers may be, and how their weights are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Init = Literal["linear", "normal"]


def require_widths(**widths: int | Sequence[int]) -> None:
    """Check the widths of layers, given by the names of the arguments that set them.

    Raises:
        ValueError: One is below 1, which torch would build and which learns nothing.
    """
    for name, width in widths.items():
        if min([width] if isinstance(width, int) else width, default=1) < 1:
            raise ValueError(f"{name}={width} must be at least 1")


def draw(inputs: int, outputs: int, init: Init) -> nn.Parameter:
    """Draw a weight matrix (inputs, outputs): standard normal, or at the scale of torch's Linear layers.

    The latter is uniform within 1/sqrt(inputs).
    """
    _require_known(init)
    weight = torch.randn(inputs, outputs) if init == "normal" else _uniform(inputs, outputs)
    return nn.Parameter(weight)


def redraw(module: nn.Module, init: Init) -> None:
    """Draw all parameters of a module anew from the standard normal; `linear` leaves torch's own draw."""
    _require_known(init)
    if init == "normal":
        for parameter in module.parameters():
            nn.init.normal_(parameter)


def _uniform(inputs: int, outputs: int) -> Tensor:
    bound = inputs**-0.5
    return torch.empty(inputs, outputs).uniform_(-bound, bound)


def _require_known(init: str) -> None:
    if init not in get_args(Init):
        raise ValueError(f"init={init} must be {' or '.join(get_args(Init))}")
