"""Checks layer widths and initializes weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import nn

Init = Literal["linear", "normal"]


def require_widths(**widths: int | Sequence[int]) -> None:
    """Refuse layer widths below 1: torch accepts a width of 0, but such a layer learns nothing.

    Args:
        widths: One width or several, by the name of the argument that sets them.

    Raises:
        ValueError: A width is below 1.
    """
    for name, width in widths.items():
        if min([width] if isinstance(width, int) else width, default=1) < 1:
            raise ValueError(f"{name}={width} must be at least 1")


def draw(inputs: int, outputs: int, init: Init) -> nn.Parameter:
    """Return a randomly initialized weight matrix (inputs, outputs).

    Args:
        inputs: Number of rows: the fan-in.
        outputs: Number of columns: the fan-out.
        init: `normal` draws from N(0, 1); `linear` draws from U(-1/sqrt(inputs), 1/sqrt(inputs)), the initialization of
            torch.nn.Linear.

    Raises:
        ValueError: `init` is neither.
    """
    _require_known(init)
    if init == "normal":
        return nn.Parameter(torch.randn(inputs, outputs))
    bound = inputs**-0.5
    return nn.Parameter(torch.empty(inputs, outputs).uniform_(-bound, bound))


def redraw(module: nn.Module, init: Init) -> None:
    """Initialize all parameters of a module in place.

    Args:
        module: The module, initialized by torch.
        init: `normal` redraws every parameter from N(0, 1); `linear` keeps torch's initialization.

    Raises:
        ValueError: `init` is neither.
    """
    _require_known(init)
    if init == "normal":
        for parameter in module.parameters():
            nn.init.normal_(parameter)


def _require_known(init: str) -> None:
    if init not in get_args(Init):
        raise ValueError(f"init={init} must be {' or '.join(get_args(Init))}")
