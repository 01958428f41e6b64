"""What a run learns from, and the order in which it sees the rows: a pure function of (seed, epoch)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainer import generators


class Data:
    """Rows to learn from: inputs x, targets y, and how many of them to hold out for validation.

    Args:
        x: Inputs (rows, ...), or None for models that take none. Floats become the default dtype.
        y: Targets: numbers (rows, outputs), or (rows,) for one output; or class indices (rows,) when
            `classes` names them. Floats become the default dtype.
        validation: Fraction of the rows held out, from 0 to below 1.
        classes: Names of the classes.

    Raises:
        ValueError: x and y do not belong together, or a value is out of range.
    """

    def __init__(self, x: Tensor | None, y: Tensor, validation: float = 0.0, classes: list[str] | None = None) -> None:
        _require("validation", validation, 0 <= validation < 1, "at least 0 and below 1")
        if x is not None and not 0 < len(x) == len(y):
            raise ValueError(f"x has {len(x)} rows and y has {len(y)}; they must be as many, and at least 1")
        if classes is not None:
            if y.ndim != 1 or y.is_floating_point() or not 0 <= int(y.min()) <= int(y.max()) < len(classes):
                raise ValueError(f"y must be indices (rows,) of the {len(classes)} classes, from 0")
            y = y.long()
        elif x is not None and y.ndim == 1:
            y = y[:, None]
        self.x = None if x is None else _in_default_dtype(x)
        self.y, self.validation, self.classes = _in_default_dtype(y), validation, classes

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
    """Standard normal inputs and targets, drawn x first: what the ladder of models is climbed with.

    Args:
        samples: Rows.
        inputs: Width of x.
        outputs: Width of y.
        validation: Fraction of the rows held out.
    """

    def __init__(self, samples: int = 64, inputs: int = 1000, outputs: int = 10, validation: float = 0.0) -> None:
        for name, value in (("samples", samples), ("inputs", inputs), ("outputs", outputs)):
            _require(name, value, value >= 1, "at least 1")
        x = torch.randn(samples, inputs)
        y = torch.randn(samples, outputs)
        super().__init__(x, y, validation)


class Pair(Data):
    """One example: an input vector and the vector it should become.

    Args:
        inputs: The input vector.
        targets: What it should become.
    """

    def __init__(
        self,
        inputs: Sequence[float] = (1, 2, 3),
        targets: Sequence[float] = (1, 2, 3, 4, 5),
    ) -> None:
        for name, value in (("inputs", inputs), ("targets", targets)):
            _require(name, [*value], len(value) >= 1, "a list of at least one number")
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
        _require("high", high, high >= low, f"at least low={low}")
        count = high - low + 1
        limits = f"from 1 to {count**3}, the number of triples from {low} to {high}"
        _require("samples", samples, 1 <= samples <= count**3, limits)
        numbers = random.sample(range(count**3), samples)
        rows = [(low + n // count**2, low + n // count % count, low + n % count) for n in numbers]
        triples = torch.tensor(rows, dtype=torch.get_default_dtype())
        last = triples[:, 2:]
        super().__init__(triples, torch.cat([triples, last + 1, last + 2], dim=1), validation)


class Target(Data):
    """A target number and no inputs, for models that have none.

    Args:
        target: The number.
    """

    def __init__(self, target: float = 15.0) -> None:
        super().__init__(None, torch.tensor(float(target)))


class Digits(Data):
    """1,797 images of handwritten digits, 8 x 8 values from 0 to 1, in ten classes (scikit-learn's `load_digits`).

    Args:
        validation: Fraction of the images held out.

    Raises:
        ImportError: scikit-learn is missing.
    """

    def __init__(self, validation: float = 0.2) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise ImportError("needs scikit-learn: pip install scikit-learn (the extra `data`)") from None
        digits = load_digits()
        x = torch.from_numpy(digits.data / 16)
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
        self._epoch, self._order = -1, torch.empty(0)
        whole = Batch(() if x is None else (x,), y, 1.0, None)
        self._whole = [whole] if batch_size >= self.rows else None

    def at(self, step: int) -> list[Batch]:
        """Return the batches of a step, counted from 0."""
        if self._whole is not None:
            return self._whole
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = generators.permutation(self.rows, generators.derived(self.seed, generators.ORDER, epoch))
            self._epoch, self._order = epoch, order.to(self.y.device)
        step_rows = self._order[position * self.step_rows : (position + 1) * self.step_rows]
        return [
            self._take(rows, 1.0 if self.summed else len(rows) / len(step_rows))
            for rows in step_rows.split(self.batch_size)
        ]

    def in_order(self) -> Iterator[Batch]:
        """Yield all rows once, unshuffled, in batches whose shares add up to the loss over all rows."""
        if self._whole is not None:
            yield from self._whole
            return
        for rows in torch.arange(self.rows, device=self.y.device).split(self.batch_size):
            yield self._take(rows, 1.0 if self.summed else len(rows) / self.rows)

    def sample(self) -> Batches:
        """Return batches of the first rows, as few as the smallest batch has but at most two."""
        if self.x is None:
            return self
        last = self.rows % self.step_rows or self.step_rows
        rows = min(last % self.batch_size or min(self.batch_size, last), 2)
        return Batches(self.x[:rows], self.y[:rows], rows, 1, self.seed, self.summed)

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
        raise ValueError(
            f"validation={fraction} must leave at least 1 of the {rows} rows for either part; it leaves none for {part}"
        )
    order = generators.permutation(rows, generators.derived(seed, generators.SPLIT, 0))
    return order[held_out:].sort().values, order[:held_out].sort().values


def _in_default_dtype(values: Tensor) -> Tensor:
    return values.to(torch.get_default_dtype()) if values.is_floating_point() else values


def _require(name: str, value: object, ok: bool, limits: str) -> None:
    if not ok:
        raise ValueError(f"{name}={value} must be {limits}")
