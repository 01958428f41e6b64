"""Autograd on two numbers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainer.models.init import draw


class Product(nn.Module):
    """a * b: the derivative by a is b, and by b it is a. There are no inputs.

    Args:
        a: First number.
        b: Second number.
        init: `fixed` starts from the given a and b; otherwise both are drawn as the weights of a layer with one input.
    """

    def __init__(self, a: float = 3.0, b: float = 4.0, init: Literal["fixed", "linear", "normal"] = "fixed") -> None:
        super().__init__()
        if init != "fixed":
            a, b = draw(1, 2, init).flatten().tolist()
        self.a = nn.Parameter(torch.tensor(float(a)))
        self.b = nn.Parameter(torch.tensor(float(b)))

    def forward(self) -> Tensor:
        """Return the product, a tensor of one number."""
        return self.a * self.b
