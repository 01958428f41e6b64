"""What is said of the rows of a prediction: names that the run has not seen, and rows without a prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from trainer.data import Preprocess
from trainer.data.columns import in_rows, unseen
from trainer.errors import nearest, refusal

if TYPE_CHECKING:
    import polars as pl

_NAMES = 4  # that are remembered of a column: one more than is shown


class Remarks:
    """Counts, over all parts of a table, what its rows hold that the preprocessing can't use.

    Args:
        preprocess: The preprocessing of the run.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        self._preprocess = preprocess
        self._names: dict[str, list[str]] = {}
        self._rows, self._known, self._empty = Counter[str](), Counter[str](), Counter[str]()
        self._left = self._all = 0

    def note(self, frame: pl.DataFrame, raw: Tensor, holes: Tensor) -> None:
        """Count the rows of a part.

        Args:
            frame: The part, as numbers and names.
            raw: The same as numbers (rows, columns), or an array (rows, ...).
            holes: Which of its cells (rows, columns) are missing without a value to put there.
        """
        self._all += len(raw)
        self._left += int(holes.any(1).sum())
        for name, count in zip(frame.columns, holes.sum(0).tolist(), strict=True):
            self._empty[name] += count
        if self._preprocess.array is None:
            for column, names, rows, known in unseen(frame, self._preprocess, raw):
                before = self._names.get(column, [])
                self._names[column] = sorted({*before, *names})[:_NAMES]
                self._rows[column] += rows
                self._known[column] += known

    @property
    def all_seen(self) -> bool:
        """Whether the run has seen a name of each column that holds names."""
        return all(self._known[column] for column in self._names)

    def require_seen(self, place: str, force: bool) -> None:
        """Refuse a table with a column of which the run has seen no name, unless it is forced.

        Raises:
            UsageError: There is one.
        """
        for one in self._preprocess.inputs:
            column = one["column"]
            if force or not self._rows[column] or self._known[column]:
                continue
            shown = in_rows(self._names[column], self._rows[column])
            allowed = [*one["values"][:_NAMES], *(["..."] if len(one["values"]) > _NAMES else []), "or --force"]
            near = nearest(self._names[column][0], one["values"])
            raise refusal(place, f"{column}: the run has seen none of its values: {shown}", allowed, near)

    def tell(self, warn: Callable[[str], None]) -> None:
        """Say which names the run has not seen, and how many rows have no prediction."""
        for column, names in self._names.items():
            if names:
                warn(f"{column}: the run has not seen {in_rows(names, self._rows[column])}")
        if self._left:
            empty = ", ".join(f"{name} in {count:,}" for name, count in self._empty.items() if count)
            rows = f"{self._left:,} of {self._all:,} row{'s' * (self._all > 1)}"
            warn(f"no prediction for {rows}, which lack a value: {empty}")
