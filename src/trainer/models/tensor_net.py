"""Rung 2: the same products on tensors, which can live on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.models.handwritten import TorchArrays
from trainer.models.init import Init, draw, require_widths


class TensorNet(TorchArrays):
    """Two-layer network max(x w1, 0) w2 with forward and backward passes written by hand on tensors.

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

    def forward_pass(self, x: Tensor, w1: Tensor, w2: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return max(x w1, 0) w2 (rows, outputs) and the values that the backward pass needs."""
        h = x @ w1
        h_relu = h.clamp(min=0)
        prediction = h_relu @ w2
        return prediction, (x, h, h_relu, w2)

    def backward_pass(self, grad_prediction: Tensor, saved: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the gradients of w1 and w2: the chain rule, applied from the output to the input."""
        x, h, h_relu, w2 = saved
        grad_w2 = h_relu.T @ grad_prediction
        grad_h_relu = grad_prediction @ w2.T
        grad_h = torch.where(h > 0, grad_h_relu, 0)
        grad_w1 = x.T @ grad_h
        return grad_w1, grad_w2
