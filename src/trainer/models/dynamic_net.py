"""Rung 7: the forward pass is ordinary Python, with loops, random choices and shared layers."""

from __future__ import annotations

import random

from torch import Tensor, nn

from trainer.models.init import Init, redraw, require_widths


class DynamicNet(nn.Module):
    """Network of random depth: an input layer, a middle layer applied 0 to 3 times, and an output layer.

    Each forward pass draws the number of applications from Python's `random`. All applications share the same weights.

    Args:
        inputs: Input features of a row.
        outputs: Width of a prediction.
        hidden: Units of each hidden layer.
        init: linear (uniform, as torch.nn.Linear) or normal (standard normal).
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 100, init: Init = "linear") -> None:
        require_widths(inputs=inputs, outputs=outputs, hidden=hidden)
        super().__init__()
        self.input_linear = nn.Linear(inputs, hidden)
        self.middle_linear = nn.Linear(hidden, hidden)
        self.output_linear = nn.Linear(hidden, outputs)
        redraw(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for inputs (rows, inputs)."""
        h_relu = self.input_linear(x).clamp(min=0)
        for _ in range(random.randint(0, 3)):
            h_relu = self.middle_linear(h_relu).clamp(min=0)
        prediction: Tensor = self.output_linear(h_relu)
        return prediction
