"""What all data sets have in common: rows of inputs and targets, and the part of them that is held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import randomness
from trainer.data.batches import Rows, Tensors
from trainer.data.preprocess import Preprocess
from trainer.errors import refusal

_LISTED = 10


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

    files: tuple[Path, ...] = ()  # what the rows were read from
    warnings: tuple[str, ...] = ()  # what the user should know of them
    training: Tensor | None = None  # row numbers; None is all of them
    held_out: Tensor | None = None

    def __init__(self, x: Tensor | None, y: Tensor, validation: float = 0.0, classes: list[str] | None = None) -> None:
        require("validation", validation, 0 <= validation < 1, "at least 0 and below 1")
        if x is not None and not 0 < len(x) == len(y):
            raise ValueError(f"x has {len(x)} rows and y has {len(y)}; they must be as many, and at least 1")
        if classes is not None:
            if y.ndim != 1 or y.is_floating_point() or not 0 <= int(y.min()) <= int(y.max()) < len(classes):
                raise ValueError(f"y must be indices (rows,) of the {len(classes)} classes, from 0")
            y = y.long()
        elif x is not None and y.ndim == 1:
            y = y[:, None]
        self.x = None if x is None else in_default_dtype(x)
        self.y, self.validation, self.classes = in_default_dtype(y), validation, classes

    def prepare(self, seed: int, kept: Preprocess | None = None) -> None:
        """Split off the rows that are held out, and fit on the others what the inputs are prepared by.

        Args:
            seed: Seed of the split.
            kept: What a run was prepared by before, to be used instead of being fitted anew.

        Raises:
            ValueError: One of the two parts would be empty.
        """
        mine = None if kept is None else self.preprocess
        if kept is not None and (mine is None or mine.array is None or mine.array != kept.array):
            raise refusal(f"data: {type(self).__name__}", "these are other inputs than the run learned from")
        self.training, self.held_out = split(self.rows, self.validation, seed)

    @property
    def preprocess(self) -> Preprocess | None:
        """How raw inputs become x, and predictions the numbers or names of the targets; None without inputs."""
        if self.x is None:
            return None
        whole = not self.x.is_floating_point()
        return Preprocess.untouched(tuple(self.x.shape[1:]), self.outputs, self.classes, whole)

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

    def example(self) -> Tensor | None:
        """Return the inputs of one row (1, ...), None if there are none."""
        return None if self.x is None else self.x[:1]

    def part(self, rows: Tensor | None, form: Callable[[Tensor], Tensor], device: torch.device) -> Rows:
        """Return some of the rows, to take batches from.

        Args:
            rows: Their numbers; None is all of them.
            form: Turns targets into what the loss takes.
            device: Where the batches are needed.
        """
        y = form(self.y)  # all of them: what one part lacks the loss may still ask for
        x = self.x if rows is None or self.x is None else self.x[rows]
        return Tensors(None if x is None else x.to(device), (y if rows is None else y[rows]).to(device))

    def content(self) -> list[Any]:
        """Return the arrays that the data are made of, by which others in their place are noticed."""
        return [self.x, self.y]

    @property
    def balance(self) -> dict[str, int]:
        """Rows of each class by its name; empty for targets that are numbers."""
        counts = self.y.bincount(minlength=len(self.classes)).tolist() if self.classes else []
        return dict(zip(self.classes or [], counts, strict=True))

    def facts(self) -> dict[str, Any]:
        """Return what status.json says of the data."""
        facts = {"rows": self.rows, "inputs": self.inputs, "outputs": self.outputs}
        return {**facts, "classes": self.balance} if self.balance else facts

    def described(self) -> dict[str, str]:
        """Return what the user is shown of the data before training, beyond rows and widths, by a heading."""
        shares = [f"{name} {count / self.rows:.1%}" for name, count in self.balance.items()]
        return {"classes": listed(shares)} if shares else {}


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
    order = randomness.permutation(rows, randomness.derived(seed, randomness.SPLIT, 0))
    return order[held_out:].sort().values, order[:held_out].sort().values


def listed(texts: Sequence[str]) -> str:
    """Return texts in a row, the first few if they are many."""
    more = f", and {len(texts) - _LISTED:,} more" if len(texts) > _LISTED else ""
    return ", ".join(texts[:_LISTED]) + more


def in_default_dtype(values: Tensor) -> Tensor:
    """Return values, floats in torch's default dtype."""
    return values.to(torch.get_default_dtype()) if values.is_floating_point() else values


def require(name: str, value: object, ok: bool, limits: str) -> None:
    """Raise a ValueError that names an argument unless it is within its limits."""
    if not ok:
        raise ValueError(f"{name}={value} must be {limits}")
