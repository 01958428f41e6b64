"""Plugs models whose gradients are computed by hand into autograd.

The mathematics stays in the model: two pure functions of arrays, `forward_pass` and
`backward_pass`. Only the model's gradients are by hand; the loss's derivative comes from torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class HandWritten(nn.Module, ABC):
    """A model with a hand-written backward pass over its parameters, in their order."""

    @abstractmethod
    def to_array(self, tensor: Tensor) -> Any:
        """Return what `forward_pass` and `backward_pass` compute with; nothing is copied."""

    @abstractmethod
    def to_tensor(self, array: Any) -> Tensor:
        """Turn a computed array back into a tensor."""

    @abstractmethod
    def forward_pass(self, x: Any, *weights: Any) -> tuple[Any, Any]:
        """Return the prediction and whatever `backward_pass` needs."""

    @abstractmethod
    def backward_pass(self, grad_prediction: Any, saved: Any) -> tuple[Any, ...]:
        """Return the gradient of each weight, given that of the prediction."""

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for inputs (rows, inputs)."""
        prediction: Tensor = _Bridge.apply(self, x, *self.parameters())  # type: ignore[no-untyped-call]
        return prediction


class _Bridge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, model: HandWritten, x: Tensor, *weights: Tensor) -> Tensor:
        if x.requires_grad:
            raise RuntimeError(f"{type(model).__name__} computes no gradient of its inputs")
        # Hand-written products have no casting rules, so under autocast they stay in the weights' dtype.
        with torch.autocast(x.device.type, enabled=False):
            arrays = [model.to_array(tensor) for tensor in (x.to(weights[0].dtype), *weights)]
            prediction, ctx.saved = model.forward_pass(*arrays)
        ctx.model = model
        ctx.dtype = weights[0].dtype
        return model.to_tensor(prediction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_prediction: Tensor) -> tuple[Any, ...]:
        model: HandWritten = ctx.model
        with torch.autocast(grad_prediction.device.type, enabled=False):
            grads = model.backward_pass(model.to_array(grad_prediction.to(ctx.dtype)), ctx.saved)
        return None, None, *map(model.to_tensor, grads)


class NumpyArrays(HandWritten):
    """Hand-written in NumPy; the arrays share memory with the tensors and can't be written to."""

    cpu_only = True

    def to_array(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """Return a read-only view."""
        if tensor.device.type != "cpu":
            raise ValueError(f"NumPy computes on the CPU, not on {tensor.device.type}; use device=cpu")
        if tensor.dtype == torch.bfloat16:
            raise ValueError("NumPy has no bfloat16; use device.dtype=float32")
        array: np.ndarray[Any, Any] = tensor.detach().numpy()
        array.flags.writeable = False
        return array

    def to_tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        """Return a tensor over the same memory."""
        return torch.from_numpy(array)


class TorchArrays(HandWritten):
    """Hand-written in tensor operations, which autograd does not see."""

    def to_array(self, tensor: Tensor) -> Tensor:
        """Return the tensor without its history."""
        return tensor.detach()

    def to_tensor(self, array: Tensor) -> Tensor:
        """Return the tensor as it is."""
        return array
