"""Rung 5: layers hold weights, and a container calls them one after the other."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.models.init import Init, redraw, require_widths


class SequentialNet(nn.Module):
    """Sequential(Linear, ReLU, Linear).

    Args:
        inputs: Width of x.
        outputs: Width of a prediction.
        hidden: Width of the hidden layer.
        init: Scale of the first weights.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 100, init: Init = "linear") -> None:
        require_widths(inputs=inputs, outputs=outputs, hidden=hidden)
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
        redraw(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for inputs (rows, inputs)."""
        prediction: Tensor = self.layers(x)
        return prediction
