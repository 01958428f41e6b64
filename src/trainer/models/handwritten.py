"""Connects models with hand-written gradients to autograd.

A model provides two pure functions of arrays, `forward_pass` and `backward_pass`. Torch computes the gradient of the
loss with respect to the prediction and passes it to `backward_pass`, so every loss works with every model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class HandWritten(nn.Module, ABC):
    """A model with a hand-written backward pass; both passes take the parameters in the order of registration."""

    @abstractmethod
    def to_array(self, tensor: Tensor) -> Any:
        """Return the tensor as the array type of `forward_pass` and `backward_pass`, without copying."""

    @abstractmethod
    def to_tensor(self, array: Any) -> Tensor:
        """Return a computed array as a tensor, without copying."""

    @abstractmethod
    def forward_pass(self, x: Any, *weights: Any) -> tuple[Any, Any]:
        """Return the prediction and the values that `backward_pass` needs.

        Args:
            x: Inputs (rows, inputs).
            weights: The parameters.
        """

    @abstractmethod
    def backward_pass(self, grad_prediction: Any, saved: Any) -> tuple[Any, ...]:
        """Return the gradient of the loss with respect to each weight.

        Args:
            grad_prediction: Gradient of the loss with respect to the prediction (rows, outputs).
            saved: The values saved by `forward_pass`.
        """

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for inputs (rows, inputs)."""
        prediction: Tensor = _Bridge.apply(self, x, *self.parameters())  # type: ignore[no-untyped-call]
        return prediction


class _Bridge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, model: HandWritten, x: Tensor, *weights: Tensor) -> Tensor:
        if x.requires_grad:
            raise RuntimeError(f"{type(model).__name__} computes no gradient of its inputs")
        # Autocast has no rules for hand-written operations, so they keep the dtype of the weights.
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
    """A hand-written model in NumPy; its arrays are read-only and share memory with the tensors."""

    cpu_only = True

    def to_array(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """Return a read-only NumPy view of the tensor.

        Raises:
            ValueError: The tensor is not on the CPU, or it is bfloat16.
        """
        if tensor.device.type != "cpu":
            raise ValueError(f"NumPy computes on the CPU, not on {tensor.device.type}; use device=cpu")
        if tensor.dtype == torch.bfloat16:
            raise ValueError("NumPy has no bfloat16; use device.dtype=float32")
        array: np.ndarray[Any, Any] = tensor.detach().numpy()
        array.flags.writeable = False
        return array

    def to_tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        """Return a tensor that shares memory with the array."""
        return torch.from_numpy(array)


class TorchArrays(HandWritten):
    """A hand-written model in tensor operations that autograd does not record."""

    def to_array(self, tensor: Tensor) -> Tensor:
        """Return the tensor detached from the autograd graph."""
        return tensor.detach()

    def to_tensor(self, array: Tensor) -> Tensor:
        """Return the tensor unchanged."""
        return array
