"""Synthetic data, such as those for training the rungs of the ladder."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from trainer.data.base import Data
from trainer.errors import require


class Random(Data):
    """Inputs x (samples, inputs) and targets y (samples, outputs) from N(0, 1), drawn in this order.

    Args:
        samples: Number of rows.
        inputs: Input features of a row.
        outputs: Targets of a row.
        validation: Fraction of the rows held out.
    """

    def __init__(self, samples: int = 64, inputs: int = 1000, outputs: int = 10, validation: float = 0.0) -> None:
        for name, value in (("samples", samples), ("inputs", inputs), ("outputs", outputs)):
            require(name, value, value >= 1, "at least 1")
        x = torch.randn(samples, inputs)
        y = torch.randn(samples, outputs)
        super().__init__(x, y, validation)


class Pair(Data):
    """A single example: an input vector and a target vector.

    Args:
        inputs: The input vector.
        targets: The target vector.
    """

    def __init__(
        self,
        inputs: Sequence[float] = (1, 2, 3),
        targets: Sequence[float] = (1, 2, 3, 4, 5),
    ) -> None:
        for name, value in (("inputs", inputs), ("targets", targets)):
            require(name, [*value], len(value) >= 1, "a list of at least one number")
        dtype = torch.get_default_dtype()
        super().__init__(torch.tensor([[*inputs]], dtype=dtype), torch.tensor([[*targets]], dtype=dtype))


class IntegerTriples(Data):
    """Distinct integer triples [a, b, c] from a range, with targets [a, b, c, c + 1, c + 2].

    Args:
        low: Smallest integer.
        high: Largest integer.
        samples: Number of triples to draw from the (high - low + 1)^3 possible ones.
        validation: Fraction of the drawn triples held out.
    """

    def __init__(self, low: int = -10, high: int = 10, samples: int = 500, validation: float = 0.2) -> None:
        require("high", high, high >= low, f"at least low={low}")
        count = high - low + 1
        limits = f"from 1 to {count**3}, the number of triples from {low} to {high}"
        require("samples", samples, 1 <= samples <= count**3, limits)
        numbers = random.sample(range(count**3), samples)
        rows = [(low + n // count**2, low + n // count % count, low + n % count) for n in numbers]
        triples = torch.tensor(rows, dtype=torch.get_default_dtype())
        last = triples[:, 2:]
        super().__init__(triples, torch.cat([triples, last + 1, last + 2], dim=1), validation)


class Target(Data):
    """One target number and no inputs, for models without inputs.

    Args:
        target: The target.
    """

    def __init__(self, target: float = 15.0) -> None:
        super().__init__(None, torch.tensor(float(target)))
