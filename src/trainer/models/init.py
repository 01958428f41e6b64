"""How weights are drawn."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Init = Literal["linear", "normal"]


def draw(inputs: int, outputs: int, init: Init) -> nn.Parameter:
    """Draw a weight matrix (inputs, outputs): standard normal, or at the scale of torch's Linear layers.

    The latter is uniform within 1/sqrt(inputs).
    """
    weight = torch.randn(inputs, outputs) if init == "normal" else _uniform(inputs, outputs)
    return nn.Parameter(weight)


def redraw(module: nn.Module, init: Init) -> None:
    """Draw all parameters of a module anew from the standard normal; `linear` leaves torch's own draw."""
    if init == "normal":
        for parameter in module.parameters():
            nn.init.normal_(parameter)


def _uniform(inputs: int, outputs: int) -> Tensor:
    bound = inputs**-0.5
    return torch.empty(inputs, outputs).uniform_(-bound, bound)
