"""The parameters of a model: their number, and their values for small models."""

from __future__ import annotations

from typing import Any

from torch import nn

from trainer.training.loop import Learner

FEW_NUMBERS = 16


def few_parameters(model: nn.Module) -> dict[str, Any] | None:
    """Return the parameters of a small model as plain numbers by name; None for larger models."""
    parameters = dict(model.named_parameters())
    if sum(p.numel() for p in parameters.values()) > FEW_NUMBERS:
        return None
    return {name: p.tolist() for name, p in parameters.items()}


def num_parameters(run: Learner) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in run.weights)
