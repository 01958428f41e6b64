"""Columns of tables: what they hold, as numbers or names, and what a preparation makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trainer.data import files
from trainer.data.preprocess import Number, Preprocess, are_indices
from trainer.errors import refusal

if TYPE_CHECKING:
    import polars as pl

_EXACT = 2.0**53  # above, not every whole number is a float


def encoded(frame: pl.DataFrame, preprocess: Preprocess) -> Tensor:
    """Return the inputs of a table as numbers and indices of categories, float64 (rows, columns).

    What is missing is NaN where the preparation has nothing to put there.

    Raises:
        UsageError: A column is text where it was numbers.
    """
    raw = np.empty((frame.height, len(preprocess.inputs)))
    columns = dict(zip(frame.columns, frame.get_columns(), strict=True))
    for index, one in enumerate(preprocess.inputs):
        column = columns[one["column"]]
        if one["kind"] == "category":
            raw[:, index] = index_in(as_names(column), one["values"])
            if not one["fill"]:
                raw[column.is_null().to_numpy(), index] = np.nan
        elif not column.dtype.is_numeric():
            raise refusal(one["column"], "holds text, and the run was trained with numbers there")
        else:
            values = floats(column)
            raw[:, index] = values if one["fill"] is None else np.where(np.isfinite(values), values, one["fill"])
    return torch.from_numpy(raw)


def unknown_names(frame: pl.DataFrame, preprocess: Preprocess, raw: Tensor) -> Iterator[str]:
    """Yield a remark for each category of which a table has names that the run has not seen.

    Args:
        frame: The table.
        preprocess: How it is prepared.
        raw: What `encoded` made of it.
    """
    for index, one in enumerate(preprocess.inputs):
        if one["kind"] == "category" and bool((strange := raw[:, index] == len(one["values"])).any()):
            names = as_names(frame[one["column"]]).filter(strange.numpy()).drop_nulls().unique().sort().to_list()
            shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
            if names:
                rows = int(strange.sum())
                yield f"{one['column']}: the run has not seen {shown} ({rows:,} row{'s' * (rows != 1)})"


def is_missing(column: pl.Series) -> pl.Series:
    """Say for each cell whether it is empty or not finite."""
    if not column.dtype.is_float():
        return column.is_null()
    return column.is_null() | ~column.fill_null(0).is_finite()


def floats(column: pl.Series) -> Any:
    """Return a column of numbers as float64, NaN where there is none."""
    polars = files.load_polars()
    return column.cast(polars.Float64).fill_null(float("nan")).to_numpy()


def as_names(column: pl.Series) -> pl.Series:
    """Return a column as names: whole numbers are written without a point, what is not a number is missing."""
    polars = files.load_polars()
    if column.dtype == polars.String:
        return files.as_text(column)
    if not column.dtype.is_float():
        return column.cast(polars.String)
    numbers = column.fill_nan(None)
    is_whole = (numbers % 1 == 0) & (numbers.abs() < _EXACT)
    whole = numbers.cast(polars.Int64, strict=False).cast(polars.String)
    return whole.zip_with(is_whole.fill_null(False), numbers.cast(polars.String))


def number(column: pl.Series, standardize: bool, fill: bool) -> Number:
    """Return how a column of numbers is prepared.

    Args:
        column: The numbers that it is fitted on.
        standardize: Whether they get the mean 0 and the deviation 1.
        fill: Whether the mean stands for those that are missing.

    Raises:
        UsageError: There are none, or they are too large to be averaged.
    """
    values = floats(column)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        raise refusal(f"data.exclude=[{column.name}]", f"the column {column.name} is empty in all rows to train on")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(values.mean()), float(values.std())
    if not (np.isfinite(mean) and np.isfinite(deviation)):
        raise refusal(f"data.exclude=[{column.name}]", f"the numbers of {column.name} are too large to be averaged")
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
    """Return the names of the classes in a target column, None if it is taken for numbers."""
    if asked is False:
        return None
    if not column.dtype.is_numeric():
        return _sorted(as_names(column).drop_nulls().unique().to_list())
    values = column.drop_nulls().unique().to_list()
    return [str(index) for index in range(len(values))] if are_indices(values) else None


def facts_of(column: pl.Series, one: Any) -> dict[str, Any]:
    """Return what status.json says of a column that is prepared in a way."""
    facts: dict[str, Any] = {"column": one["column"], "kind": one["kind"]}
    if one["kind"] == "number":
        values: Any = column.drop_nans().drop_nulls()
        return {**facts, "low": values.min(), "high": values.max(), "mean": values.mean()}
    return {**facts, "values": len(one["values"])}


def described(column: pl.Series, one: Any = None) -> str:
    """Return what the user is shown of a column: its range, or how many values it has if it is a category."""
    if one is not None and one["kind"] == "category":
        return f"{column.name} ({len(one['values'])} values)"
    values: Any = column.drop_nans().drop_nulls()
    return f"{column.name} ({values.min():.6g} to {values.max():.6g})" if values.len() else f"{column.name} (empty)"


def index_in(column: pl.Series, values: list[str]) -> Any:
    """Return the index of each name in `values`, their count for others."""
    polars = files.load_polars()
    known = column.cast(polars.Enum(values), strict=False).to_physical()
    return known.cast(polars.Int64).fill_null(len(values)).to_numpy()


def _sorted(names: list[str]) -> list[str]:
    """Return names in the order of the whole numbers that they are, else of the alphabet."""
    if all(name.removeprefix("-").isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)
