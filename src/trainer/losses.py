"""Losses of our own, and the form in which each loss wants the targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class SumOfSquares(nn.Module):
    """Sum of squared errors over all rows and outputs: sum (prediction - target)^2."""

    reduction = "sum"

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the loss of predictions and targets of one shape."""
        return (prediction - target).pow(2).sum()


class Difference(nn.Module):
    """Signed difference target - sum(prediction), which has no minimum: a lesson in what a loss must be.

    Args:
        target: The number to subtract from, once a batch; None takes the sum of the batch's targets.
    """

    reduction = "sum"

    def __init__(self, target: float | None = None) -> None:
        super().__init__()
        self.target = target

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the loss of predictions and targets of one shape."""
        return (target.sum() if self.target is None else self.target) - prediction.sum()


OVER_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)
OVER_NUMBERS = (SumOfSquares, Difference, nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss)
OVER_PROBABILITIES = (nn.BCEWithLogitsLoss, nn.BCELoss)


def is_sum(loss: nn.Module) -> bool:
    """Say whether a loss adds up over rows, rather than averaging."""
    return getattr(loss, "reduction", "mean") == "sum"


def form_of(loss: nn.Module, classes: int | None) -> Callable[[Tensor], Tensor]:
    """Return a function that turns targets into what the loss takes.

    Classes become one number each, 1 or 0, where it takes numbers. A loss from outside takes the targets as the
    data have them.

    Args:
        loss: The loss.
        classes: Number of classes, None for targets that are numbers.

    Raises:
        ValueError: The loss can't use such targets; the function raises it, too.
    """
    if isinstance(loss, OVER_CLASSES) and classes is None:
        raise ValueError(
            "needs classes as targets, and the data have numbers; use sse, mse, l1 or huber, or data=digits"
        )
    if not isinstance(loss, OVER_NUMBERS + OVER_PROBABILITIES):
        return lambda targets: targets
    dtype = torch.get_default_dtype()

    def formed(targets: Tensor) -> Tensor:
        y = (targets if classes is None else nn.functional.one_hot(targets, classes)).to(dtype)
        if isinstance(loss, OVER_PROBABILITIES) and not bool(((y >= 0) & (y <= 1)).all()):
            low, high = float(y.min()), float(y.max())
            raise ValueError(
                f"needs targets between 0 and 1, and the data have {low:.4g} to {high:.4g};"
                " use sse, mse, l1 or huber, or data=digits"
            )
        return y

    return formed


class Auto(nn.Module):
    """Stands for the loss that fits the target: cross-entropy for classes, squared errors for numbers."""


def fitting(classes: int | None) -> tuple[str, dict[str, Any]]:
    """Return the option and the settings of the loss that fits a target.

    Args:
        classes: Number of classes, None for targets that are numbers.
    """
    if classes is not None:
        return "cross_entropy", {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.0, "reduction": "mean"}
    return "mse", {"_target_": "torch.nn.MSELoss", "reduction": "mean"}
