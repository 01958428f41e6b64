"""A multilayer perceptron for tables, arrays and flattened images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from trainer.models.init import Init, redraw, require_widths

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Norm = Literal["none", "batch", "layer"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
NORMS: dict[str, type[nn.Module]] = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MLP(nn.Module):
    """Hidden layers of Linear, normalization, activation and dropout, followed by a Linear output layer.

    Args:
        inputs: Input features of a row after flattening.
        outputs: Width of a prediction.
        sizes: Widths of the hidden layers; [] leaves only the output layer.
        activation: Activation after each hidden layer: relu, leaky_relu, elu, gelu, silu, tanh or sigmoid.
        dropout: Probability of zeroing a hidden unit in training, from 0 to below 1 (Srivastava et al. 2014).
        norm: Normalization before each activation: batch (Ioffe & Szegedy 2015), layer (Ba et al. 2016) or none.
        init: linear (uniform, as torch.nn.Linear) or normal (standard normal).

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        sizes: Sequence[int] = (100, 100),
        activation: Activation = "relu",
        dropout: float = 0.0,
        norm: Norm = "none",
        init: Init = "linear",
    ) -> None:
        require_widths(inputs=inputs, outputs=outputs, sizes=sizes)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation} must be one of {', '.join(ACTIVATIONS)}")
        if norm not in NORMS:
            raise ValueError(f"norm={norm} must be one of {', '.join(NORMS)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must be at least 0 and below 1")
        super().__init__()
        layers: list[nn.Module] = []
        for width in sizes:
            layers += [nn.Linear(inputs, width), NORMS[norm](width), ACTIVATIONS[activation](), nn.Dropout(dropout)]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, outputs))
        redraw(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for inputs (rows, ...); each row is flattened."""
        prediction: Tensor = self.layers(x.flatten(1))
        return prediction
