"""The parameters of a model: how many numbers are trained, and the values of a few."""

from __future__ import annotations

from typing import Any

from torch import nn

from trainer.training.loop import Learner

FEW_NUMBERS = 16


def few_parameters(model: nn.Module) -> dict[str, Any] | None:
    """Return the parameters of a small model by name as plain numbers, None for larger models."""
    parameters = dict(model.named_parameters())
    if sum(p.numel() for p in parameters.values()) > FEW_NUMBERS:
        return None
    return {name: p.tolist() for name, p in parameters.items()}


def num_parameters(run: Learner) -> int:
    """Count the numbers that are trained."""
    return sum(p.numel() for p in run.model.parameters() if p.requires_grad)
