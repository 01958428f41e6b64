"""The base class of data sets: rows of inputs and targets, split into training rows and held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import randomness
from trainer.data.batches import Rows, Tensors
from trainer.data.preprocess import Preprocess
from trainer.errors import refusal, require

_LISTED = 10


class Data:
    """Rows to learn from: inputs x, targets y, and the fraction of rows held out for validation.

    Args:
        x: Inputs (rows, ...), or None for models without inputs. Floats are converted to the default dtype.
        y: Targets: numbers (rows, outputs), or (rows,) for one output; or class indices (rows,) if `classes` names the
            classes. Floats are converted to the default dtype.
        validation: Fraction of the rows held out, from 0 to below 1.
        classes: Names of the classes; None for numeric targets.

    Raises:
        ValueError: x and y have different numbers of rows, or a value is out of range.
    """

    files: tuple[Path, ...] = ()  # files that the rows were read from
    warnings: tuple[str, ...] = ()  # shown to the user
    training: Tensor | None = None  # numbers of the training rows; None is all rows
    held_out: Tensor | None = None  # numbers of the held-out rows; None without any

    def __init__(self, x: Tensor | None, y: Tensor, validation: float = 0.0, classes: list[str] | None = None) -> None:
        require("validation", validation, 0 <= validation < 1, "at least 0 and below 1")
        if x is not None and not 0 < len(x) == len(y):
            raise ValueError(f"x has {len(x)} rows and y has {len(y)}; they must have equally many, at least 1")
        if classes is not None:
            if y.ndim != 1 or y.is_floating_point() or not 0 <= int(y.min()) <= int(y.max()) < len(classes):
                raise ValueError(f"y must be indices (rows,) of the {len(classes)} classes, from 0")
            y = y.long()
        elif x is not None and y.ndim == 1:
            y = y[:, None]
        self.x = None if x is None else in_default_dtype(x)
        self.y, self.validation, self.classes = in_default_dtype(y), validation, classes

    def prepare(self, seed: int, kept: Preprocess | None = None) -> None:
        """Split off the held-out rows and fit the preprocessing on the training rows.

        Args:
            seed: Seed of the split.
            kept: The preprocessing of an existing run, used instead of a new fit.

        Raises:
            ValueError: One side of the split is empty.
        """
        mine = None if kept is None else self.preprocess
        if kept is not None and (mine is None or mine.array is None or mine.array != kept.array):
            raise refusal(f"data: {type(self).__name__}", "the inputs differ from those that the run learned from")
        self.training, self.held_out = split(self.rows, self.validation, seed)
        self.warnings = tuple(dict.fromkeys((*self.warnings, *self.untrained_classes())))

    def untrained_classes(self, column: str = "the targets") -> Iterator[str]:
        """Yield a warning if held-out rows are of classes that no training row has; `column` holds the classes."""
        if not self.classes or self.training is None or self.held_out is None or len(self.y) != self.rows:
            return
        counts = self.y[self.held_out].bincount(minlength=len(self.classes))
        counts[self.y[self.training].unique()] = 0
        if rows := int(counts.sum()):
            names = [repr(self.classes[index]) for index in counts.nonzero().flatten().tolist()]
            what = f"the class{'es' * (len(names) > 1)} {listed(names)}"
            yield f"{column}: no training row is of {what} ({rows:,} held-out row{'s' * (rows > 1)})"

    @property
    def preprocess(self) -> Preprocess | None:
        """The mapping from raw inputs to x and from predictions to targets in their units; None without inputs."""
        if self.x is None:
            return None
        whole = not self.x.is_floating_point()
        return Preprocess.untouched(tuple(self.x.shape[1:]), self.outputs, self.classes, whole)

    @property
    def rows(self) -> int:
        """Number of rows; 1 for data without inputs."""
        return 1 if self.x is None else len(self.x)

    @property
    def inputs(self) -> int | None:
        """Number of input features of a row; None without inputs."""
        return None if self.x is None else self.x[0].numel()

    @property
    def outputs(self) -> int | None:
        """Required width of a prediction: one number per target or per class; None for a scalar target."""
        if self.classes is not None:
            return len(self.classes)
        return self.y.shape[-1] if self.y.ndim > 1 else None

    def example(self) -> Tensor | None:
        """Return the inputs of one row (1, ...); None without inputs."""
        return None if self.x is None else self.x[:1]

    def part(self, rows: Tensor | None, form: Callable[[Tensor], Tensor], device: torch.device) -> Rows:
        """Return a source of batches over some rows.

        Args:
            rows: The numbers of the rows; None is all rows.
            form: Converts targets to the form that the loss expects.
            device: The device of the batches.
        """
        y = form(self.y)  # of all rows, so that the check of a loss doesn't depend on the split
        x = self.x if rows is None or self.x is None else self.x[rows]
        return Tensors(None if x is None else x.to(device), (y if rows is None else y[rows]).to(device))

    def content(self) -> list[Any]:
        """Return the arrays whose checksum identifies the data."""
        return [self.x, self.y]

    @property
    def balance(self) -> dict[str, int]:
        """Number of rows of each class, by class name; empty for numeric targets."""
        counts = self.y.bincount(minlength=len(self.classes)).tolist() if self.classes else []
        return dict(zip(self.classes or [], counts, strict=True))

    def facts(self) -> dict[str, Any]:
        """Return the description of the data for status.json."""
        facts = {"rows": self.rows, "inputs": self.inputs, "outputs": self.outputs}
        return {**facts, "classes": self.balance} if self.balance else facts

    def described(self) -> dict[str, str]:
        """Return lines by heading that describe the data on the screen, besides rows and widths."""
        shares = [f"{name} {count / self.rows:.1%}" for name, count in self.balance.items()]
        return {"classes": listed(shares)} if shares else {}


def split(rows: int, fraction: float, seed: int) -> tuple[Tensor | None, Tensor | None]:
    """Return the numbers of the training rows and of the held-out rows, each ascending; (None, None) for fraction 0.

    Args:
        rows: Number of rows.
        fraction: Fraction held out.
        seed: Seed of the split.

    Raises:
        ValueError: One side of the split is empty.
    """
    if fraction == 0:
        return None, None
    held_out = round(rows * fraction)
    if not 0 < held_out < rows:
        part = "validation" if held_out == 0 else "training"
        raise ValueError(
            f"validation={fraction} must leave at least 1 of the {rows} rows on each side; it leaves none for {part}"
        )
    order = randomness.permutation(rows, randomness.derived(seed, randomness.SPLIT, 0))
    return order[held_out:].sort().values, order[:held_out].sort().values


def listed(texts: Sequence[str]) -> str:
    """Return texts joined by commas, only the first few if there are many."""
    more = f", and {len(texts) - _LISTED:,} more" if len(texts) > _LISTED else ""
    return ", ".join(texts[:_LISTED]) + more


def in_default_dtype(values: Tensor) -> Tensor:
    """Return the values, converted to torch's default dtype if they are floats."""
    return values.to(torch.get_default_dtype()) if values.is_floating_point() else values
