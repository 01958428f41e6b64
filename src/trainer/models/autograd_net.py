"""Rung 3: autograd replaces the hand-written backward pass."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.models.init import Init, draw, require_widths


class AutogradNet(nn.Module):
    """Two-layer network max(x w1, 0) w2; autograd computes the gradients.

    Args:
        inputs: Input features of a row.
        outputs: Width of a prediction.
        hidden: Units of the hidden layer.
        init: linear (uniform, as torch.nn.Linear) or normal (standard normal).
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 100, init: Init = "linear") -> None:
        require_widths(inputs=inputs, outputs=outputs, hidden=hidden)
        super().__init__()
        self.w1 = draw(inputs, hidden, init)
        self.w2 = draw(hidden, outputs, init)

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for inputs (rows, inputs)."""
        h_relu = (x @ self.w1).clamp(min=0)
        return h_relu @ self.w2
