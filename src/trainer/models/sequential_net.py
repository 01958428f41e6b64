"""Rung 5: layers hold the weights, and a container applies them in order."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.models.init import Init, redraw, require_widths


class SequentialNet(nn.Module):
    """Two-layer network as a container: Linear, ReLU, Linear.

    Args:
        inputs: Input features of a row.
        outputs: Width of a prediction.
        hidden: Units of the hidden layer.
        init: linear (uniform, as torch.nn.Linear) or normal (standard normal).
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
