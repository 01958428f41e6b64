"""Rows and their division into batches, in an order that is a pure function of (seed, epoch)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainer import randomness


class Batch(NamedTuple):
    """Rows that go through the model together.

    Args:
        inputs: Arguments of the model: x (rows, ...), or nothing.
        targets: Targets (rows, ...).
        share: Weight of the batch's loss in that of the step.
        rows: Indices among the training rows; None is all rows.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    share: float
    rows: Tensor | None


class Rows(ABC):
    """A source of rows for batches: memory, a file, or a Dataset of torch."""

    device = torch.device("cpu")
    fixed = True  # whether a row never changes

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows; 1 without inputs."""

    @abstractmethod
    def take(self, rows: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return inputs (rows, ...) and targets (rows, ...) of rows given by their numbers."""

    def all(self) -> tuple[Tensor | None, Tensor]:
        """Return inputs and targets of all rows."""
        return self.first(len(self))

    def first(self, count: int) -> tuple[Tensor | None, Tensor]:
        """Return inputs and targets of the first `count` rows."""
        return self.take(torch.arange(count, device=self.device))

    def expect(self, epoch: int, batches: Sequence[Tensor]) -> None:  # noqa: B027 (most sources fetch nothing)
        """Announce the row numbers of the next batches, so that a source can fetch them ahead."""


class Tensors(Rows):
    """Rows in memory.

    Args:
        x: Inputs (rows, ...) or None.
        y: Targets (rows, ...).
    """

    def __init__(self, x: Tensor | None, y: Tensor) -> None:
        self.x, self.y, self.device = x, y, y.device

    def __len__(self) -> int:
        """Return the number of rows; 1 without inputs."""
        return 1 if self.x is None else len(self.x)

    def equals(self, other: Tensors) -> bool:
        """Return whether all inputs and targets equal those of other rows."""
        if self.x is None or other.x is None:
            return self.x is other.x and torch.equal(self.y, other.y)
        return torch.equal(self.x, other.x) and torch.equal(self.y, other.y)

    def take(self, rows: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return copies of rows given by their numbers."""
        assert self.x is not None
        return self.x.index_select(0, rows), self.y.index_select(0, rows)

    def first(self, count: int) -> tuple[Tensor | None, Tensor]:
        """Return views of the first `count` rows."""
        return (None, self.y) if self.x is None else (self.x[:count], self.y[:count])


class Batches:
    """The batches of every step, in an order that is a pure function of (seed, epoch).

    Args:
        source: The rows.
        batch_size: Rows per batch; a batch of all rows keeps their order.
        accumulate: Batches per step.
        seed: Seed of the order.
        summed: Whether the loss is a sum over rows, so that the losses of batches add up instead of being averaged.
    """

    def __init__(self, source: Rows, batch_size: int, accumulate: int, seed: int, summed: bool) -> None:
        self.source, self.batch_size, self.seed, self.summed = source, batch_size, seed, summed
        self.rows = len(source)
        self.step_rows = min(batch_size * accumulate, self.rows)
        self.steps_per_epoch = -(-self.rows // self.step_rows)
        self._epoch, self._next, self._order = -1, -1, torch.empty(0)
        self._whole: list[Batch] | None = None

    def at(self, step: int) -> list[Batch]:
        """Return the batches of a step, counted from 0."""
        if self.batch_size >= self.rows:
            return self._all(step)
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = randomness.permutation(self.rows, randomness.derived(self.seed, randomness.ORDER, epoch))
            self._epoch, self._order = epoch, order.to(self.source.device)
        if step != self._next or position == 0:
            rest = self._order[position * self.step_rows :].split(self.step_rows)
            self.source.expect(epoch, [rows for step_rows in rest for rows in step_rows.split(self.batch_size)])
        self._next = step + 1
        step_rows = self._order[position * self.step_rows : (position + 1) * self.step_rows]
        return [
            self._take(rows, 1.0 if self.summed else len(rows) / len(step_rows))
            for rows in step_rows.split(self.batch_size)
        ]

    def in_order(self) -> Iterator[Batch]:
        """Yield all rows once, unshuffled, in batches with shares that weight their losses to the loss of all rows."""
        if self.batch_size >= self.rows:
            yield from self._all(0)
            return
        parts = torch.arange(self.rows, device=self.source.device).split(self.batch_size)
        self.source.expect(0, parts)
        for rows in parts:
            yield self._take(rows, 1.0 if self.summed else len(rows) / self.rows)

    def sample(self) -> Batches:
        """Return batches of the first one or two rows: two unless the smallest batch has one."""
        last = self.rows % self.step_rows or self.step_rows
        rows = min(last % self.batch_size or min(self.batch_size, last), 2)
        x, y = self.source.first(rows)
        return self if x is None else Batches(Tensors(x, y), rows, 1, self.seed, self.summed)

    def _all(self, epoch: int) -> list[Batch]:
        if self._whole is None or not self.source.fixed:
            self.source.expect(epoch, [torch.arange(self.rows)])
            x, y = self.source.all()
            self._whole = [Batch(() if x is None else (x,), y, 1.0, None)]
        return self._whole

    def _take(self, rows: Tensor, share: float) -> Batch:
        x, y = self.source.take(rows)
        return Batch(() if x is None else (x,), y, share, rows)
