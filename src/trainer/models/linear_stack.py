"""A deep network without activations: however many layers, it remains a linear map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from trainer.models.init import Init, redraw, require_widths


class LinearStack(nn.Module):
    """Linear layers without activations: x W1^T + b1, then W2, b2, and so on.

    Args:
        inputs: Input features of a row.
        outputs: Width of a prediction.
        sizes: Widths between the layers; inputs 3, sizes [2], outputs 5 makes layers 3-2 and 2-5; [] makes one layer.
        init: linear (uniform, as torch.nn.Linear) or normal (standard normal).
    """

    def __init__(self, inputs: int, outputs: int, sizes: Sequence[int] = (100,), init: Init = "linear") -> None:
        require_widths(inputs=inputs, outputs=outputs, sizes=sizes)
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(i, o) for i, o in pairwise([inputs, *sizes, outputs])))
        redraw(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for inputs (rows, inputs)."""
        prediction: Tensor = self.layers(x)
        return prediction
