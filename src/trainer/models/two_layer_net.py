"""Rung 6: a module of one's own holds its layers and says how they are used."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.models.init import Init, redraw, require_widths


class TwoLayerNet(nn.Module):
    """Two Linear layers with a clamp at zero between them.

    Args:
        inputs: Width of x.
        outputs: Width of a prediction.
        hidden: Width of the hidden layer.
        init: Scale of the first weights.
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
