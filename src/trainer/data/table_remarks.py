"""What the screen says of a table: its missing cells, and what a model can't learn from it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.data.base import listed
from trainer.data.columns import in_rows, is_missing, unseen, value_of
from trainer.data.files import MISSING
from trainer.data.preprocess import Preprocess

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor


def constant(fitted_on: pl.DataFrame, preprocess: Preprocess) -> Iterator[str]:
    """Yield a warning for each constant column; missing cells that aren't filled with a number make one vary."""
    for one in (*preprocess.inputs, *preprocess.targets):
        column = fitted_on[one["column"]]
        varies = (one["kind"] == "category" or one.get("indicator")) and bool(is_missing(column).any())
        if column.min() == column.max() and not varies:
            what = "column" if one in preprocess.inputs else "target"
            yield f"the {what} {column.name} is constant in the training rows"


def spellings(frame: pl.DataFrame, preprocess: Preprocess) -> Iterator[str]:
    """Yield a warning for each column with several spellings of a value, which count as one."""
    for one in (*preprocess.inputs, *preprocess.targets):
        column = frame[one["column"]]
        if not column.dtype.is_numeric():
            first: dict[str, str] = {}
            for name in column.drop_nulls().unique().sort().to_list():
                if first.setdefault(value_of(name), name) != name:
                    yield f"{column.name}: {first[value_of(name)]!r} and {name!r} count as one value"
                    break


def not_seen(frame: pl.DataFrame, preprocess: Preprocess, raw: Tensor) -> Iterator[str]:
    """Yield a warning for each category column with names that the run has not seen; `raw` is the encoded table."""
    for column, names, rows, _ in unseen(frame, preprocess, raw):
        if names:
            yield f"{column}: the run has not seen {in_rows(names, rows)}"


def only_held_out(frame: pl.DataFrame, preprocess: Preprocess, raw: Tensor) -> Iterator[str]:
    """Yield a warning for each category column with names that only held-out rows have, which count as no name."""
    for column, names, rows, _ in unseen(frame, preprocess, raw):
        if names:
            yield f"{column}: no training row has {in_rows(names, rows, 'held-out ')}"


def few_left(holes: Mapping[str, Any], targets: Sequence[str]) -> Iterator[str]:
    """Yield a warning if most rows are dropped, which names the column that has the most missing cells.

    Args:
        holes: For each column, which of its cells (rows,) are missing.
        targets: The columns that are no inputs.
    """
    rows = len(next(iter(holes.values())))
    left = int((~np.any([*holes.values()], axis=0)).sum())
    if 2 * left >= rows:
        return
    worst = max(holes, key=lambda name: holes[name].sum())
    text = f"data.nan=drop leaves {left:,} of {rows:,} rows; {worst} is missing in {int(holes[worst].sum()):,}"
    others = [missing for name, missing in holes.items() if name != worst]
    without = int((~np.any(others, axis=0)).sum())
    yield text if worst in targets or without == left else f"{text}: data.exclude=[{worst}] leaves {without:,}"


def missing_cells(counts: Mapping[str, int], nan: str, dropped: int, rows: int) -> str:
    """Return what is done about the missing cells of each column, as one line.

    Args:
        counts: Number of missing cells by column, none of them 0.
        nan: The setting data.nan.
        dropped: Number of rows that are dropped.
        rows: Number of rows of the table.
    """
    count = sum(counts.values())
    each = [*counts] if len(counts) == 1 else [f"{name} ({number:,})" for name, number in counts.items()]
    what = f"{count:,} cell{'s' * (count > 1)} in {listed(each)}"
    done = {"mean": "filled with the mean", "indicator": "filled with the mean, and marked"}.get(nan, "")
    lost = f"dropped {dropped:,} of {rows:,} rows" if dropped else ""
    return "; ".join(
        text for text in (what, done, lost if not done or not lost else f"{lost}, without a target") if text
    )


def words_kept(frames: Sequence[pl.DataFrame], columns: Sequence[str]) -> str | None:
    """Return which words of text mean a missing value elsewhere, as one line; None without any."""
    found: dict[str, dict[str, int]] = {}
    for frame in frames:
        for name in columns:
            if not frame[name].dtype.is_numeric():
                cells = frame[name].filter(frame[name].is_in(MISSING))
                for word, count in cells.value_counts().iter_rows():
                    counts = found.setdefault(name, {})
                    counts[word] = counts.get(word, 0) + count
    if not found:
        return None
    texts = [
        f"{name}: {', '.join(in_rows([word], count) for word, count in sorted(each.items()))}"
        for name, each in found.items()
    ]
    words = sorted({word for each in found.values() for word in each})
    typed = ",".join(f'"{word}"' if word.lower() == "nan" else word for word in words)  # that is a number where typed
    return f"{listed(texts)}; names here, missing cells with {shlex.quote(f'data.missing=[{typed}]')}"
