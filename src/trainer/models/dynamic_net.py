"""Rung 7: a forward pass is Python, with loops and random choices, and layers may be used again."""

from __future__ import annotations

import random

from torch import Tensor, nn

from trainer.models.init import Init, redraw, require_widths


class DynamicNet(nn.Module):
    """An input layer, 0 to 3 uses of one shared middle layer, drawn anew every pass, and an output layer.

    The number of uses comes from Python's `random`.

    Args:
        inputs: Width of x.
        outputs: Width of a prediction.
        hidden: Width of the hidden layers.
        init: Scale of the first weights.
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
