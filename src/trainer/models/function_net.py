"""Rung 4: a custom autograd Function defines its own backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.models.init import Init, draw, require_widths


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        ctx.save_for_backward(h)
        return h.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad_h_relu: Tensor) -> Tensor:
        (h,) = ctx.saved_tensors
        return torch.where(h > 0, grad_h_relu, 0)


class FunctionNet(nn.Module):
    """Two-layer network max(x w1, 0) w2 with a hand-written gradient of the ReLU; autograd computes the others.

    Args:
        inputs: Input features of a row.
        outputs: Width of a prediction.
        hidden: Units of the hidden layer.
        init: linear (uniform, as torch.nn.Linear) or normal (standard normal).
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 100, init: Init = "linear") -> None:
        require_widths(inputs=inputs, outputs=outputs, hidden=hidden)
        super().__init__()
        self.w1 = draw(inputs, hidden, init)
        self.w2 = draw(hidden, outputs, init)

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for inputs (rows, inputs)."""
        h_relu: Tensor = _ReLU.apply(x @ self.w1)  # type: ignore[no-untyped-call]
        return h_relu @ self.w2
