"""Rung 2: a tensor is an array that can live on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.models.handwritten import TorchArrays
from trainer.models.init import Init, draw, require_widths


class TensorNet(TorchArrays):
    """Two layers with a ReLU between them, forward and backward written by hand on tensors, without autograd.

    Args:
        inputs: Width of x.
        outputs: Width of a prediction.
        hidden: Width of the hidden layer.
        init: Scale of the first weights.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 100, init: Init = "linear") -> None:
        require_widths(inputs=inputs, outputs=outputs, hidden=hidden)
        super().__init__()
        self.w1 = draw(inputs, hidden, init)
        self.w2 = draw(hidden, outputs, init)

    def forward_pass(self, x: Tensor, w1: Tensor, w2: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return max(x w1, 0) w2 (rows, outputs), and what the backward pass needs."""
        h = x @ w1
        h_relu = h.clamp(min=0)
        prediction = h_relu @ w2
        return prediction, (x, h, h_relu, w2)

    def backward_pass(self, grad_prediction: Tensor, saved: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the gradients of w1 and w2 by the chain rule, from the output back."""
        x, h, h_relu, w2 = saved
        grad_w2 = h_relu.T @ grad_prediction
        grad_h_relu = grad_prediction @ w2.T
        grad_h = torch.where(h > 0, grad_h_relu, 0)
        grad_w1 = x.T @ grad_h
        return grad_w1, grad_w2
