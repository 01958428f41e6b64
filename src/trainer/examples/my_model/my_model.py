"""A model of one's own: any torch.nn.Module will do."""

import torch
from torch import nn


class MyModel(nn.Module):
    """A hidden layer, and a straight way around it for what needs no hidden layer.

    Args:
        inputs: Width of the data's inputs; trainer fills it in.
        outputs: Width of the data's targets; trainer fills it in.
        hidden: Width of the hidden layer.
        dropout: Part of the hidden numbers that is set to zero in training.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 64, dropout: float = 0.0):
        super().__init__()
        self.around = nn.Linear(inputs, outputs)
        self.first = nn.Linear(inputs, hidden)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return predictions (rows, outputs) for inputs (rows, inputs)."""
        hidden = self.dropout(self.first(x).relu())
        return self.around(x) + self.last(hidden)
