"""Columns of tables: numbers and names, their statistics, and their encoding for the preprocessing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trainer import quoting
from trainer.data import files
from trainer.data.preprocess import Number, Preprocess, are_indices
from trainer.errors import refusal

if TYPE_CHECKING:
    import polars as pl

_EXACT = 2.0**53  # floats represent all integers up to here


def encoded(frame: pl.DataFrame, preprocess: Preprocess) -> Tensor:
    """Return the inputs of a table as numbers and category indices (rows, columns), in float64.

    Missing cells become NaN where the preprocessing has no fill value.

    Raises:
        UsageError: A column holds text, but the preprocessing was fitted on numbers.
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
            raise refusal(one["column"], "holds text, but the run was trained on numbers")
        else:
            values = floats(column)
            raw[:, index] = values if one["fill"] is None else np.where(np.isfinite(values), values, one["fill"])
    return torch.from_numpy(raw)


def unknown_names(frame: pl.DataFrame, preprocess: Preprocess, raw: Tensor) -> Iterator[str]:
    """Yield a remark for each category column with names that the run has not seen.

    Args:
        frame: The table.
        preprocess: The preprocessing of the run.
        raw: The result of `encoded`.
    """
    for index, one in enumerate(preprocess.inputs):
        if one["kind"] == "category" and bool((strange := raw[:, index] == len(one["values"])).any()):
            names = as_names(frame[one["column"]]).filter(strange.numpy()).drop_nulls().unique().sort().to_list()
            shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
            if names:
                rows = int(strange.sum())
                yield f"{one['column']}: the run has not seen {shown} ({rows:,} row{'s' * (rows != 1)})"


def is_missing(column: pl.Series) -> pl.Series:
    """Return for each cell whether it is empty or not finite."""
    if not column.dtype.is_float():
        return column.is_null()
    return column.is_null() | ~column.fill_null(0).is_finite()


def floats(column: pl.Series) -> Any:
    """Return a numeric column as float64 (rows,), NaN for empty cells."""
    polars = files.load_polars()
    return column.cast(polars.Float64).fill_null(float("nan")).to_numpy()


def as_names(column: pl.Series) -> pl.Series:
    """Return a column as names: integers without a decimal point, NaN as missing."""
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
        return _sorted(as_names(column).drop_nulls().unique().to_list())
    values = column.drop_nulls().unique().to_list()
    return [str(index) for index in range(len(values))] if are_indices(values) else None


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
    """Return the index of each name in `values`; len(values) for other names."""
    polars = files.load_polars()
    known = column.cast(polars.Enum(values), strict=False).to_physical()
    return known.cast(polars.Int64).fill_null(len(values)).to_numpy()


def _sorted(names: list[str]) -> list[str]:
    """Return the names in numeric order if all are integers, else in alphabetical order."""
    if all(name.removeprefix("-").isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)
