"""One layer: linear regression, or logistic regression under a loss over classes."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.models.init import Init, redraw, require_widths


class LinearNet(nn.Module):
    """One Linear layer: x W^T + bias.

    Args:
        inputs: Numbers in a row of x.
        outputs: Width of a prediction.
        init: Scale of the first weights.
    """

    def __init__(self, inputs: int, outputs: int, init: Init = "linear") -> None:
        require_widths(inputs=inputs, outputs=outputs)
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        redraw(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for inputs (rows, ...), such as images, of which each row is flattened."""
        prediction: Tensor = self.linear(x.flatten(1))
        return prediction
