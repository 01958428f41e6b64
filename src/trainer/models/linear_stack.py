"""A network without activations: layer upon layer, and still a linear map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from trainer.models.init import Init, redraw, require_widths


class LinearStack(nn.Module):
    """Linear layers in a row.

    Args:
        inputs: Width of x.
        outputs: Width of a prediction.
        sizes: Widths between the layers; 3-2-5 is inputs 3, sizes [2], outputs 5, and [] makes one layer.
        init: Scale of the first weights.
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
