"""Losses of our own, and the form in which each loss wants the targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.data import Data


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


def targets_for(loss: nn.Module, data: Data) -> Tensor:
    """Return the targets as the loss takes them: classes become one number each, 1 or 0, where it takes numbers.

    A loss from outside takes the targets as the data have them.

    Raises:
        ValueError: The loss can't use such targets.
    """
    if isinstance(loss, OVER_CLASSES) and data.classes is None:
        raise ValueError(
            "needs classes as targets, and the data have numbers; use sse, mse, l1 or huber, or data=digits"
        )
    if not isinstance(loss, OVER_NUMBERS + OVER_PROBABILITIES):
        return data.y
    y = data.y if data.classes is None else nn.functional.one_hot(data.y, len(data.classes))
    y = y.to(torch.get_default_dtype())
    if isinstance(loss, OVER_PROBABILITIES) and not bool(((y >= 0) & (y <= 1)).all()):
        low, high = float(y.min()), float(y.max())
        raise ValueError(
            f"needs targets between 0 and 1, and the data have {low:.4g} to {high:.4g};"
            " use sse, mse, l1 or huber, or data=digits"
        )
    return y
