"""Losses besides those of torch.nn, and the conversion of targets to the form that a loss expects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class SumOfSquares(nn.Module):
    """Sum of squared errors over all rows and outputs: sum_ij (prediction_ij - target_ij)^2."""

    reduction = "sum"

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss of predictions and targets of the same shape, such as (rows, outputs)."""
        return (prediction - target).pow(2).sum()


class Difference(nn.Module):
    """Signed difference target - sum(prediction), which has no minimum: it shows why a loss must be bounded below.

    Args:
        target: Minuend of the difference, used once per batch; None uses the sum of the batch's targets.
    """

    reduction = "sum"

    def __init__(self, target: float | None = None) -> None:
        super().__init__()
        self.target = target

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss of predictions and targets of the same shape, such as (rows, outputs)."""
        return (target.sum() if self.target is None else self.target) - prediction.sum()


OVER_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)
OVER_NUMBERS = (SumOfSquares, Difference, nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss)
OVER_PROBABILITIES = (nn.BCEWithLogitsLoss, nn.BCELoss)


def is_sum(loss: nn.Module) -> bool:
    """Return whether a loss is a sum over rows rather than a mean."""
    return getattr(loss, "reduction", "mean") == "sum"


def form_of(loss: nn.Module, classes: int | None) -> Callable[[Tensor], Tensor]:
    """Return a function that converts targets to the form that a loss expects.

    Losses over numbers get class indices (rows,) as one-hot rows (rows, classes) in the default dtype. Losses of other
    packages get the targets unchanged.

    Args:
        loss: The loss.
        classes: Number of classes; None for numeric targets.

    Raises:
        ValueError: The loss doesn't support such targets; the returned function raises it, too.
    """
    if isinstance(loss, OVER_CLASSES) and classes is None:
        raise ValueError("needs class targets, but the targets are numbers; use sse, mse, l1 or huber, or data=digits")
    if not isinstance(loss, OVER_NUMBERS + OVER_PROBABILITIES):
        return lambda targets: targets
    dtype = torch.get_default_dtype()

    def formed(targets: Tensor) -> Tensor:
        y = (targets if classes is None else nn.functional.one_hot(targets, classes)).to(dtype)
        if isinstance(loss, OVER_PROBABILITIES) and not bool(((y >= 0) & (y <= 1)).all()):
            low, high = float(y.min()), float(y.max())
            raise ValueError(
                f"needs targets between 0 and 1, but they range from {low:.4g} to {high:.4g};"
                " use sse, mse, l1 or huber, or data=digits"
            )
        return y

    return formed


class Auto(nn.Module):
    """Placeholder for the loss that fits the targets: cross-entropy for classes, mean squared error for numbers."""


def fitting(classes: int | None) -> tuple[str, dict[str, Any]]:
    """Return the option name and the settings of the default loss.

    Args:
        classes: Number of classes; None for numeric targets.
    """
    if classes is not None:
        return "cross_entropy", {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.0, "reduction": "mean"}
    return "mse", {"_target_": "torch.nn.MSELoss", "reduction": "mean"}
