"""Columns of tables: numbers and names, their statistics, and their encoding for the preprocessing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer import quoting
from trainer.data import files
from trainer.data.preprocess import Number, Preprocess, are_indices
from trainer.errors import nearest, refusal

if TYPE_CHECKING:
    import polars as pl

TRAINING_WORDS = ("train", "training")
VALIDATION_WORDS = ("validation", "valid", "val")
UNUSED_WORDS = ("test",)
_EXACT = 2.0**53  # floats represent all integers up to here
_BOOLEANS = ("true", "false")
_NUMBER = re.compile(
    r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][+-][0-9]{1,3})?"
)  # as programs write one; not 007 or 1e5


def encoded(frame: pl.DataFrame, preprocess: Preprocess) -> Tensor:
    """Return the inputs of a table as numbers and category indices (rows, columns), in float64.

    Missing cells become NaN where the preprocessing marks them or has no fill value.

    Raises:
        UsageError: A column holds text, but the preprocessing was fitted on numbers.
    """
    raw = np.empty((frame.height, len(preprocess.inputs)))
    columns = dict(zip(frame.columns, frame.get_columns(), strict=True))
    for index, one in enumerate(preprocess.inputs):
        column = columns[one["column"]]
        if one["kind"] == "category":
            names = as_names(column)
            raw[:, index] = index_in(names, one["values"])
            if not one["fill"] or one.get("indicator"):
                raw[names.is_null().to_numpy(), index] = np.nan
        elif not column.dtype.is_numeric():
            raise refusal(one["column"], "holds text, but the run was trained on numbers")
        else:
            values = floats(column)
            fill = np.nan if one.get("indicator") else one["fill"]
            raw[:, index] = values if fill is None else np.where(np.isfinite(values), values, fill)
    return torch.from_numpy(raw)


class Unseen(NamedTuple):
    """The names in a category column that the preprocessing does not know: in how many rows, beside how many known."""

    column: str
    names: list[str]
    rows: int
    known: int


def unseen(frame: pl.DataFrame, preprocess: Preprocess, raw: Tensor) -> Iterator[Unseen]:
    """Yield for each category column which of its names the preprocessing does not know.

    Args:
        frame: The table, its categories as text, null where missing.
        preprocess: The preprocessing.
        raw: The result of `encoded`, (rows, columns).
    """
    for index, one in enumerate(preprocess.inputs):
        if one["kind"] == "category":
            strange = (raw[:, index] == len(one["values"])).numpy()
            names = frame[one["column"]]
            found = names.filter(strange).drop_nulls()
            known = names.count() - found.len()
            yield Unseen(one["column"], found.unique().sort().to_list(), found.len(), known)


def in_rows(names: Sequence[str], rows: int, kind: str = "") -> str:
    """Return names, only the first few, with the number of rows that hold them: 'a', 'b' (3 rows)."""
    shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    return f"{shown} ({rows:,} {kind}row{'s' * (rows != 1)})"


def value_of(name: str) -> str:
    """Return what all spellings of a value have in common: 1, 1.0 and 1.00 are one value, and so are True and true."""
    if name.lower() in _BOOLEANS:
        return name.lower()
    if _NUMBER.fullmatch(name) is None:
        return name
    plain = f"{Decimal(name):f}"
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain == "-0" else plain


def distinct(names: Iterable[str]) -> list[str]:
    """Return the first spelling of each value among names, in their order."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(value_of(name), name)
    return list(found.values())


def is_missing(column: pl.Series) -> pl.Series:
    """Return for each cell whether it is empty or not finite."""
    if not column.dtype.is_float():
        return column.is_null()
    return column.is_null() | ~column.fill_null(0).is_finite()


def floats(column: pl.Series) -> Any:
    """Return a numeric column as float64 (rows,), NaN for empty cells."""
    polars = files.load_polars()
    return column.cast(polars.Float64).fill_null(float("nan")).to_numpy()


def as_names(column: pl.Series, missing: Sequence[str] = ()) -> pl.Series:
    """Return a column as names: integers without a decimal point; NaN and words that mean missing as null."""
    polars = files.load_polars()
    if column.dtype == polars.String:
        return files.as_text(column, missing)
    names = _as_names(column)
    return names.set(names.is_in([*missing]), None)


def _as_names(column: pl.Series) -> pl.Series:
    polars = files.load_polars()
    if not column.dtype.is_float():
        return column.cast(polars.String)
    numbers = column.fill_nan(None)
    is_whole = (numbers % 1 == 0) & (numbers.abs() < _EXACT)
    whole = numbers.cast(polars.Int64, strict=False).cast(polars.String)
    return whole.zip_with(is_whole.fill_null(False), numbers.cast(polars.String))


def number(column: pl.Series, standardize: bool, fill: bool) -> Number:
    """Return the preprocessing of a numeric column.

    Args:
        column: The numbers to fit on.
        standardize: Whether to scale to mean 0 and standard deviation 1.
        fill: Whether to fill missing cells with the mean.

    Raises:
        UsageError: The column is empty, or its mean overflows.
    """
    without = quoting.word("data.exclude", [column.name])
    values = floats(column)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        raise refusal(without, f"the column {column.name} is empty in all training rows")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(values.mean()), float(values.std())
    if not (np.isfinite(mean) and np.isfinite(deviation)):
        raise refusal(without, f"the numbers of {column.name} are too large to be averaged")
    if not standardize or values.min() == values.max() or deviation == 0:
        deviation = 1.0
    return Number(
        column=column.name,
        kind="number",
        mean=mean if standardize else 0.0,
        deviation=deviation,
        fill=mean if fill else None,
    )


def class_names(column: pl.Series, asked: bool | None) -> list[str] | None:
    """Return the names of the classes in a target column; None for a numeric target."""
    if asked is False:
        return None
    if not column.dtype.is_numeric():
        return distinct(_sorted(as_names(column).drop_nulls().unique().to_list()))
    values = column.drop_nulls().unique().to_list()
    return [str(index) for index in range(len(values))] if are_indices(values) else None


def split_by(column: pl.Series, place: Callable[[int], str]) -> tuple[Tensor, Tensor]:
    """Return the numbers of the training rows and of the held-out rows, by the words in a column.

    Args:
        column: The words, null where empty.
        place: Returns the position of a row in words, for messages.

    Raises:
        UsageError: A cell is empty or has another word, or one of the parts has no rows.
    """
    words = column.str.to_lowercase()
    allowed = (*TRAINING_WORDS, *VALIDATION_WORDS, *UNUSED_WORDS)
    strange = (~words.is_in(allowed) | words.is_null()).arg_true()
    if strange.len():
        row = int(strange[0])
        found = "is empty" if words[row] is None else f"holds {words[row]!r}"
        raise refusal(f"data.split={column.name}", f"{found} in {place(row)}", allowed)
    parts = [
        torch.from_numpy(words.is_in(part).arg_true().to_numpy().astype(np.int64))
        for part in (TRAINING_WORDS, VALIDATION_WORDS)
    ]
    for part, rows in zip(("train", "validation"), parts, strict=True):
        if len(rows) == 0:
            raise refusal(f"data.split={column.name}", f"no row says {part}")
    return parts[0], parts[1]


def facts_of(column: pl.Series, one: Any) -> dict[str, Any]:
    """Return the description of a column and its preprocessing for status.json."""
    facts: dict[str, Any] = {"column": one["column"], "kind": one["kind"]}
    if one["kind"] == "number":
        values: Any = column.drop_nans().drop_nulls()
        return {**facts, "low": values.min(), "high": values.max(), "mean": values.mean()}
    return {**facts, "values": len(one["values"])}


def described(column: pl.Series, one: Any = None) -> str:
    """Return the description of a column for the screen: its range, or the number of values of a category."""
    if one is not None and one["kind"] == "category":
        return f"{column.name} ({len(one['values'])} values)"
    values: Any = column.drop_nans().drop_nulls()
    return f"{column.name} ({values.min():.6g} to {values.max():.6g})" if values.len() else f"{column.name} (empty)"


def index_in(column: pl.Series, values: list[str]) -> Any:
    """Return the index of each name in `values`, in whatever spelling; len(values) for other names."""
    polars = files.load_polars()
    known = column.cast(polars.Enum(values), strict=False).to_physical().cast(polars.Int64)
    others = column.filter(known.is_null()).drop_nulls().unique().to_list()
    if others:
        by_value = {value_of(name): index for index, name in reversed([*enumerate(values)])}
        indices = polars.Series([by_value.get(value_of(name)) for name in others], dtype=polars.Int64)
        known = known.zip_with(known.is_not_null(), column.replace_strict(others, indices, default=None))
    return known.fill_null(len(values)).to_numpy()


def _sorted(names: list[str]) -> list[str]:
    """Return the names in numeric order if all are integers, else in alphabetical order."""
    if all(name.removeprefix("-").isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def require_columns(frame: pl.DataFrame, key: str, names: Sequence[str]) -> None:
    """Refuse names of columns that a table lacks, or that stand twice in a setting."""
    there, seen = set(frame.columns), set[str]()
    for name in names:
        if name not in there:
            near = nearest(name, there)
            meant = [near if one == name else one for one in names]
            one = key in ("data.target", "data.split") and len(names) == 1
            suggestion = None if near is None else quoting.typed(key, near if one else meant)
            raise refusal(f"{key}={name}", "the table has no such column", sorted(there), suggestion)
        if name in seen:
            raise refusal(f"{key}=[{','.join(names)}]", f"names {name} twice")
        seen.add(name)
