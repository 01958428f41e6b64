"""A model of your own: any torch.nn.Module works."""

import torch
from torch import nn


class MyModel(nn.Module):
    """A hidden layer with a linear skip connection: skip(x) + last(dropout(relu(first(x)))).

    Args:
        inputs: Input features of a row; trainer takes the number from the data.
        outputs: Width of a prediction; trainer takes the number from the data.
        hidden: Units of the hidden layer.
        dropout: Probability of zeroing a hidden unit in training.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 64, dropout: float = 0.0):
        super().__init__()
        self.skip = nn.Linear(inputs, outputs)
        self.first = nn.Linear(inputs, hidden)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return predictions (rows, outputs) for inputs (rows, inputs)."""
        hidden = self.dropout(self.first(x).relu())
        return self.skip(x) + self.last(hidden)
