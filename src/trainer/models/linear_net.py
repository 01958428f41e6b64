"""A single linear layer: linear regression, or softmax regression with a cross-entropy loss."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.models.init import Init, redraw, require_widths


class LinearNet(nn.Module):
    """One linear layer: x W^T + b.

    Args:
        inputs: Input features of a row after flattening.
        outputs: Width of a prediction.
        init: linear (uniform, as torch.nn.Linear) or normal (standard normal).
    """

    def __init__(self, inputs: int, outputs: int, init: Init = "linear") -> None:
        require_widths(inputs=inputs, outputs=outputs)
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        redraw(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for inputs (rows, ...); each row is flattened."""
        prediction: Tensor = self.linear(x.flatten(1))
        return prediction
