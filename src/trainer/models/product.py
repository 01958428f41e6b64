"""The smallest model: the product of two numbers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainer.models.init import draw


class Product(nn.Module):
    """The product a * b of two parameters, without inputs; d(ab)/da = b and d(ab)/db = a.

    Args:
        a: Initial value of the first factor.
        b: Initial value of the second factor.
        init: fixed starts from a and b; linear draws both from U(-1, 1), normal from N(0, 1).
    """

    def __init__(self, a: float = 3.0, b: float = 4.0, init: Literal["fixed", "linear", "normal"] = "fixed") -> None:
        super().__init__()
        if init != "fixed":
            a, b = draw(1, 2, init).flatten().tolist()
        self.a = nn.Parameter(torch.tensor(float(a)))
        self.b = nn.Parameter(torch.tensor(float(b)))

    def forward(self) -> Tensor:
        """Return the product, a scalar tensor."""
        return self.a * self.b
