"""Rung 3: requires_grad and backward() replace the hand work."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.models.init import Init, draw, require_widths


class AutogradNet(nn.Module):
    """Two weight matrices with a clamp at zero between the products; autograd computes the gradients.

    Args:
        inputs: Width of x.
        outputs: Width of a prediction.
        hidden: Width of the hidden layer.
        init: Scale of the first weights.
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
