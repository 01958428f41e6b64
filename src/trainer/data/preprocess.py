"""Preprocessing: maps raw inputs to a model's inputs, and predictions to target values."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from trainer.files.plain_json import has_shape

FORMAT = 1
_CHUNK = 2**22  # numbers prepared at a time
_MOST = 2**40  # numbers of a row
_MOST_CLASSES = 20  # most distinct integer targets that are treated as classes by default


class _Marked(TypedDict, total=False):
    """An input column whose missing values are marked: one more input is 1 where it is missing, else 0."""

    indicator: bool


class Number(_Marked):
    """A numeric column: (value - mean) / deviation; `fill` replaces missing values, null refuses them."""

    column: str
    kind: Literal["number"]
    mean: float
    deviation: float
    fill: float | None


class Category(_Marked):
    """A column of names: one-hot over `values`, zeros for other names, or the index, len(values) for other names."""

    column: str
    kind: Literal["category"]
    values: list[str]
    encode: Literal["onehot", "index"]
    fill: bool  # whether to treat a missing name as another name instead of refusing it


class Array(TypedDict):
    """An input array: (value - mean) / deviation for each element, unchanged if mean and deviation are empty."""

    column: str
    kind: Literal["array"]
    shape: list[int]
    whole: bool  # whether the model takes integers
    mean: list[float]
    deviation: list[float]


class Classes(TypedDict):
    """A target that is one of several classes."""

    column: str
    kind: Literal["class"]
    values: list[str]


class _File(TypedDict):
    """The content of preprocess.json."""

    format: int
    inputs: list[Number | Category] | list[Array]
    targets: list[Number] | list[Classes]


class Preprocess(nn.Module):
    """Maps raw inputs to a model's inputs, in float64, and predictions to the units of the targets.

    Args:
        inputs: One entry per column, or a single entry of kind array.
        targets: One entry per number, or a single entry of kind class.
    """

    def __init__(self, inputs: Sequence[Any], targets: Sequence[Any]) -> None:
        super().__init__()
        self.inputs, self.targets = list(inputs), list(targets)
        self._moments: tuple[Tensor, Tensor] | None = None
        if self.array is not None and self.array["mean"]:
            mean, deviation = (
                torch.tensor(n, dtype=torch.float64) for n in (self.array["mean"], self.array["deviation"])
            )
            self._moments = mean.reshape(self.array["shape"]), deviation.reshape(self.array["shape"])

    @classmethod
    def untouched(
        cls, shape: tuple[int, ...], outputs: int | None, classes: list[str] | None, whole: bool = False
    ) -> Preprocess:
        """Return a preprocessing that leaves inputs of a shape, and predictions, unchanged."""
        array = Array(column="x", kind="array", shape=list(shape), whole=whole, mean=[], deviation=[])
        return cls([array], targets_of([f"y{i}" if outputs != 1 else "y" for i in range(outputs or 0)], classes))

    @classmethod
    def from_json(cls, data: Any) -> Preprocess:
        """Return the preprocessing in the content of a preprocess.json.

        Raises:
            ValueError: The content is invalid.
        """
        if not has_shape(_File)(data) or data["format"] != FORMAT:
            raise ValueError("holds no preprocessing of this version")
        if not data["inputs"]:
            raise ValueError("names no inputs")
        for entries in (data["inputs"], data["targets"]):
            columns = [one["column"] for one in entries]
            if len({one["kind"] == "array" for one in entries}) > 1 or len(set(columns)) < len(columns):
                raise ValueError("has columns that don't fit together")
            for one in entries:
                _require_right(one)
        return cls(data["inputs"], data["targets"])

    def to_json(self) -> dict[str, Any]:
        """Return the content of preprocess.json."""
        return {"format": FORMAT, "inputs": self.inputs, "targets": self.targets}

    @property
    def array(self) -> Array | None:
        """The input entry of kind array; None if the inputs are columns."""
        return self.inputs[0] if self.inputs and self.inputs[0]["kind"] == "array" else None

    @property
    def columns(self) -> list[str]:
        """Names of the inputs."""
        return [one["column"] for one in self.inputs]

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes; None for numeric targets."""
        if self.targets and self.targets[0]["kind"] == "class":
            names: list[str] = self.targets[0]["values"]
            return names
        return None

    @property
    def width(self) -> int:
        """Number of input features of a prepared row."""
        if self.array is not None:
            return torch.Size(self.array["shape"]).numel()
        return sum(_width(one) for one in self.inputs)

    @property
    def outputs(self) -> int | None:
        """Width of a prediction; None if unknown."""
        return (len(self.targets) if self.classes is None else len(self.classes)) or None

    def forward(self, raw: Tensor) -> Tensor:
        """Return the model's inputs for raw inputs: (rows, width), or (rows, ...) for arrays, in float64.

        Args:
            raw: Numbers and category indices (rows, columns), NaN if missing, or arrays (rows, ...).
        """
        raw = raw.double()
        if self.array is not None:
            return raw if self._moments is None else (raw - self._moments[0]) / self._moments[1]
        return torch.cat([_prepared(one, raw[:, [index]]) for index, one in enumerate(self.inputs)], dim=1)

    def holes(self, raw: Tensor) -> Tensor:
        """Return which raw numbers are not finite, besides those that a column marks as missing."""
        if self.array is not None:
            return ~raw.isfinite()
        return ~raw.isfinite() & torch.tensor([not one.get("indicator") for one in self.inputs])

    def prepare(self, raw: Tensor) -> Tensor:
        """Return the model's inputs for many raw rows, in the default dtype, in chunks to save memory."""
        shape = raw.shape[1:] if self.array is not None else (self.width,)
        prepared = torch.empty(len(raw), *shape, dtype=torch.get_default_dtype())
        if self.array is not None and self._moments is None:
            return prepared.copy_(raw)
        rows = max(_CHUNK // max(self.width, 1), 1)
        for start in range(0, len(raw), rows):
            prepared[start : start + rows] = self(raw[start : start + rows])
        return prepared

    def scaled(self, targets: Tensor) -> Tensor:
        """Return standardized targets (rows, targets) in the default dtype, as the loss expects them."""
        mean, deviation = self._scale()
        return ((targets.double() - mean) / deviation).to(torch.get_default_dtype())

    def restored(self, predictions: Tensor) -> Tensor:
        """Return numeric predictions (rows, targets) in the units of the targets; class scores are unchanged."""
        if self.classes is not None or not self.targets:
            return predictions
        if all((one["mean"], one["deviation"]) == (0, 1) for one in self.targets):
            return predictions
        mean, deviation = self._scale()
        return predictions.double() * deviation + mean

    def _scale(self) -> tuple[Tensor, Tensor]:
        numbers = [(one["mean"], one["deviation"]) for one in self.targets]
        both = torch.tensor(numbers, dtype=torch.float64)
        return both[:, 0], both[:, 1]


def are_indices(values: Collection[float]) -> bool:
    """Return whether distinct values are treated as class indices by default: 0, 1, ... and few."""
    return 2 <= len(values) <= _MOST_CLASSES and sorted(values) == [*range(len(values))]


def targets_of(columns: Sequence[str], classes: list[str] | None, column: str = "class") -> list[Any]:
    """Return the entries of targets that are not scaled.

    Args:
        columns: Names of numeric targets.
        classes: Names of the classes; None for numeric targets.
        column: Name of the column that holds the class.
    """
    if classes is not None:
        return [Classes(column=column, kind="class", values=classes)]
    return [Number(column=name, kind="number", mean=0.0, deviation=1.0, fill=None) for name in columns]


def _require_right(one: Any) -> None:
    """Raise a ValueError if an entry of preprocess.json has inconsistent values."""
    if one.get("indicator") and one.get("fill") in (None, False):
        raise ValueError(f"marks missing values of {one['column']} and has nothing to put there")
    if one["kind"] == "array":
        count = math.prod(one["shape"])
        if any(size < 1 for size in one["shape"]) or count > _MOST:
            raise ValueError(f"has an input of the shape {one['shape']}")
        if {len(one["mean"]), len(one["deviation"])} not in ({0}, {count}):
            raise ValueError("has means of another shape than the input's")
    if one["kind"] in ("array", "number"):
        deviations = one["deviation"] if one["kind"] == "array" else [one["deviation"]]
        if not all(deviation > 0 for deviation in deviations):
            raise ValueError(f"has a deviation of {one['column']} that is not above 0")
    elif not one["values"] and one["kind"] == "class":
        raise ValueError("names no classes")
    elif len(set(one["values"])) < len(one["values"]):
        raise ValueError(f"names a value of {one['column']} twice")


def _width(one: Any) -> int:
    width = len(one["values"]) if one["kind"] == "category" and one["encode"] == "onehot" else 1
    return width + bool(one.get("indicator"))


def _prepared(one: Any, values: Tensor) -> Tensor:
    """Return the model's input columns (rows, ...) for a raw column (rows, 1)."""
    prepared = _filled(one, values)
    return torch.cat([prepared, values.isnan().double()], dim=1) if one.get("indicator") else prepared


def _filled(one: Any, values: Tensor) -> Tensor:
    if one["kind"] == "number":
        if one["fill"] is not None:
            values = values.nan_to_num(one["fill"], posinf=torch.inf, neginf=-torch.inf)
        scaled: Tensor = (values - one["mean"]) / one["deviation"]
        return scaled
    if one["encode"] == "index":
        return values.nan_to_num(len(one["values"]))
    hot: Tensor = values == torch.arange(len(one["values"]), dtype=torch.float64)
    return hot.double()
