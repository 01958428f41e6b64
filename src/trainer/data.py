"""What a run learns from, and the order in which it sees the rows: a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainer import generators


class Data:
    """Rows to learn from: inputs x, targets y, and how many of them to hold out for validation.

    Args:
        x: Inputs (rows, inputs), or None for models that take none.
        y: Targets: numbers (rows, outputs), or class indices (rows,) when `classes` names them.
        validation: Fraction of the rows held out, from 0 to below 1.
        classes: Names of the classes.
    """

    def __init__(self, x: Tensor | None, y: Tensor, validation: float = 0.0, classes: list[str] | None = None) -> None:
        if not 0 <= validation < 1:
            raise ValueError(f"validation={validation} must be at least 0 and below 1")
        self.x, self.y, self.validation, self.classes = x, y, validation, classes

    @property
    def rows(self) -> int:
        """Number of rows; data without inputs count as one."""
        return 1 if self.x is None else len(self.x)

    @property
    def inputs(self) -> int | None:
        """Width of x."""
        return None if self.x is None else self.x[0].numel()

    @property
    def outputs(self) -> int | None:
        """Width that a prediction must have: a number a target, or one a class."""
        if self.classes is not None:
            return len(self.classes)
        return self.y.shape[-1] if self.y.ndim > 1 else None


class Random(Data):
    """Standard normal inputs and targets, drawn x first: what the ladder of models is climbed with."""

    def __init__(self, samples: int = 64, inputs: int = 1000, outputs: int = 10, validation: float = 0.0) -> None:
        for name, value in (("samples", samples), ("inputs", inputs), ("outputs", outputs)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        x = torch.randn(samples, inputs)
        y = torch.randn(samples, outputs)
        super().__init__(x, y, validation)


class Pair(Data):
    """One example: an input vector and the vector it should become."""

    def __init__(
        self,
        inputs: Sequence[float] = (1, 2, 3),
        targets: Sequence[float] = (1, 2, 3, 4, 5),
    ) -> None:
        dtype = torch.get_default_dtype()
        super().__init__(torch.tensor([[*inputs]], dtype=dtype), torch.tensor([[*targets]], dtype=dtype))


class IntegerTriples(Data):
    """Distinct integer triples [a, b, c] from a range, each to become [a, b, c, c + 1, c + 2].

    Args:
        low: Smallest integer.
        high: Largest integer.
        samples: How many of the (high - low + 1)^3 triples to draw.
        validation: Fraction of the drawn triples held out.
    """

    def __init__(self, low: int = -10, high: int = 10, samples: int = 500, validation: float = 0.2) -> None:
        count = high - low + 1
        if count < 1:
            raise ValueError(f"high={high} must be at least low={low}")
        if not 1 <= samples <= count**3:
            raise ValueError(f"samples={samples} must be from 1 to {count**3}, the triples from {low} to {high}")
        number = torch.randperm(count**3)[:samples]
        digits = torch.stack([number // count**2, number // count % count, number % count], dim=1)
        triples = (digits + low).to(torch.get_default_dtype())
        last = triples[:, 2:]
        super().__init__(triples, torch.cat([triples, last + 1, last + 2], dim=1), validation)


class Target(Data):
    """A target number and no inputs, for models that have none."""

    def __init__(self, target: float = 15.0) -> None:
        super().__init__(None, torch.tensor(float(target)))


class Digits(Data):
    """1,797 images of handwritten digits, 8 x 8 values from 0 to 1, in ten classes (scikit-learn's `load_digits`)."""

    def __init__(self, validation: float = 0.2) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise ImportError("needs scikit-learn: pip install 'trainer[data]'") from None
        digits = load_digits()
        x = torch.from_numpy(digits.data).to(torch.get_default_dtype()) / 16
        super().__init__(x, torch.from_numpy(digits.target), validation, [str(c) for c in digits.target_names])


class Batch(NamedTuple):
    """Rows that go through the model together.

    `inputs` are the arguments of the model, `share` is the part of the step that the batch
    makes up, `rows` are the indices among the training rows (None: all of them).
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    share: float
    rows: Tensor | None


class Batches:
    """The batches of every step, in an order that is a pure function of (seed, epoch).

    Args:
        x: Inputs (rows, inputs) or None.
        y: Targets (rows, ...).
        batch_size: Rows a batch; when one batch holds all rows they keep their order.
        accumulate: Batches a step.
        seed: Seed of the order.
        summed: Whether the loss is a sum over rows, so that batches add up instead of averaging.
    """

    def __init__(self, x: Tensor | None, y: Tensor, batch_size: int, accumulate: int, seed: int, summed: bool) -> None:
        self.x, self.y, self.batch_size, self.seed, self.summed = x, y, batch_size, seed, summed
        self.rows = 1 if x is None else len(x)
        self.step_rows = min(batch_size * accumulate, self.rows)
        self.steps_per_epoch = -(-self.rows // self.step_rows)
        self._epoch = -1
        self._steps: list[list[Tensor]] = []
        whole = Batch(() if x is None else (x,), y, 1.0, None)
        self._whole = [whole] if batch_size >= self.rows else None

    def at(self, step: int) -> list[Batch]:
        """Return the batches of a step, counted from 0."""
        if self._whole is not None:
            return self._whole
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = generators.permutation(self.rows, generators.derived(self.seed, generators.ORDER, epoch))
            order = order.to(self.y.device)
            self._steps = [list(rows.split(self.batch_size)) for rows in order.split(self.step_rows)]
            self._epoch = epoch
        batches = self._steps[position]
        total = sum(map(len, batches))
        return [self._take(rows, 1.0 if self.summed else len(rows) / total) for rows in batches]

    def in_order(self) -> Iterator[Batch]:
        """Yield all rows once, unshuffled, in batches whose shares add up to the loss over all rows."""
        if self._whole is not None:
            yield from self._whole
            return
        for rows in torch.arange(self.rows, device=self.y.device).split(self.batch_size):
            yield self._take(rows, 1.0 if self.summed else len(rows) / self.rows)

    def smallest(self) -> Batch:
        """Return the first rows, as few as the smallest batch has but at most two: enough to try a step on."""
        last = self.rows % self.step_rows or self.step_rows
        fewest = last % self.batch_size or min(self.batch_size, last)
        if self.x is None:
            return Batch((), self.y, 1.0, None)
        return self._take(torch.arange(min(fewest, 2), device=self.y.device), 1.0)

    def _take(self, rows: Tensor, share: float) -> Batch:
        assert self.x is not None
        return Batch((self.x.index_select(0, rows),), self.y.index_select(0, rows), share, rows)


def split(rows: int, fraction: float, seed: int) -> tuple[Tensor | None, Tensor | None]:
    """Return the row numbers (training, validation), each in rising order; None, None when nothing is held out.

    Raises:
        ValueError: One of the two parts would be empty.
    """
    if fraction == 0:
        return None, None
    held_out = round(rows * fraction)
    if not 0 < held_out < rows:
        part = "validation" if held_out == 0 else "training"
        raise ValueError(f"validation={fraction} of {rows} rows leaves none for {part}")
    order = generators.permutation(rows, generators.derived(seed, generators.SPLIT, 0))
    return order[held_out:].sort().values, order[:held_out].sort().values
