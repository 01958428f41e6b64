"""Rung 6: a custom module holds its layers and defines the forward pass."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.models.init import Init, redraw, require_widths


class TwoLayerNet(nn.Module):
    """Two-layer network with named layers: Linear, clamp at zero, Linear.

    Args:
        inputs: Input features of a row.
        outputs: Width of a prediction.
        hidden: Units of the hidden layer.
        init: linear (uniform, as torch.nn.Linear) or normal (standard normal).
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 100, init: Init = "linear") -> None:
        require_widths(inputs=inputs, outputs=outputs, hidden=hidden)
        super().__init__()
        self.linear1 = nn.Linear(inputs, hidden)
        self.linear2 = nn.Linear(hidden, outputs)
        redraw(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for inputs (rows, inputs)."""
        h_relu = self.linear1(x).clamp(min=0)
        prediction: Tensor = self.linear2(h_relu)
        return prediction
