"""Maps raw columns to a model's inputs, all columns at once: scaled numbers, categories and marks of missing cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Feature(NamedTuple):
    """One input of a model.

    Args:
        column: Index of the raw column that it is computed from.
        mean: What is subtracted.
        deviation: What the difference is divided by.
        fill: What replaces a missing value; NaN for nothing.
        code: The category that it is 1 for, 0 for others; NaN for a feature that is a number.
        marks: Whether it is 1 where the column is missing, else 0.
    """

    column: int
    mean: float = 0.0
    deviation: float = 1.0
    fill: float = math.nan
    code: float = math.nan
    marks: bool = False


def features_of(index: int, one: Any) -> Iterator[Feature]:
    """Yield the features of a column.

    Args:
        index: Index of the raw column.
        one: Its entry in preprocess.json.
    """
    if one["kind"] == "number":
        yield Feature(index, one["mean"], one["deviation"], math.nan if one["fill"] is None else one["fill"])
    elif one["encode"] == "index":
        yield Feature(index, fill=len(one["values"]))
    else:
        yield from (Feature(index, code=code) for code in range(len(one["values"])))
    if one.get("indicator"):
        yield Feature(index, marks=True)


class Features(nn.Module):
    """Computes the features of many columns with a few operations, in float64, whatever their number.

    Args:
        columns: The entries of the raw columns in preprocess.json.
    """

    def __init__(self, columns: Sequence[Any]) -> None:
        super().__init__()
        found = [feature for index, one in enumerate(columns) for feature in features_of(index, one)]
        self._as_they_are = [feature.column for feature in found] == [*range(len(columns))]
        self._fills = any(not math.isnan(feature.fill) for feature in found)
        self._has_categories = any(not math.isnan(feature.code) for feature in found)
        self._has_marks = any(feature.marks for feature in found)
        for name in ("mean", "deviation", "fill", "code"):
            numbers = torch.tensor([getattr(feature, name) for feature in found], dtype=torch.float64)
            self.register_buffer(name, numbers, persistent=False)
        self.register_buffer("column", torch.tensor([feature.column for feature in found]), persistent=False)
        self.register_buffer("marks", torch.tensor([feature.marks for feature in found]), persistent=False)

    mean: Tensor
    deviation: Tensor
    fill: Tensor
    code: Tensor
    column: Tensor
    marks: Tensor

    def forward(self, raw: Tensor) -> Tensor:
        """Return the features (rows, features) of raw numbers and category indices (rows, columns), both in float64."""
        values = raw if self._as_they_are else raw.index_select(1, self.column)
        filled = torch.where(values.isnan(), self.fill, values) if self._fills else values
        features = (filled - self.mean) / self.deviation
        if self._has_categories:
            features = torch.where(self.code.isnan(), features, (values == self.code).double())
        if self._has_marks:
            features = torch.where(self.marks, values.isnan().double(), features)
        return features
