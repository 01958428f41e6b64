"""How raw columns become what a model takes, and its predictions the numbers and names of the targets."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from trainer.files.plain_json import has_shape

FORMAT = 1
_CHUNK = 2**22  # numbers that are prepared at a time
_MOST = 2**40  # numbers of a row
_MOST_CLASSES = 20  # whole numbers from 0, up to so many, are taken for classes


class Number(TypedDict):
    """A column of numbers: (value - mean) / deviation; `fill` stands for a missing one, null refuses it."""

    column: str
    kind: Literal["number"]
    mean: float
    deviation: float
    fill: float | None


class Category(TypedDict):
    """A column of names: their index in `values`, or as many ones and zeros; other names have none, or the next."""

    column: str
    kind: Literal["category"]
    values: list[str]
    encode: Literal["onehot", "index"]
    fill: bool  # whether a missing one counts as another name, or is refused


class Array(TypedDict):
    """An input that is an array of numbers: (value - mean) / deviation, or as it is where these are empty."""

    column: str
    kind: Literal["array"]
    shape: list[int]
    whole: bool  # whether the model takes whole numbers
    mean: list[float]
    deviation: list[float]


class Classes(TypedDict):
    """A target that is one of several names."""

    column: str
    kind: Literal["class"]
    values: list[str]


class _File(TypedDict):
    """What preprocess.json holds."""

    format: int
    inputs: list[Number | Category] | list[Array]
    targets: list[Number] | list[Classes]


class Preprocess(nn.Module):
    """Turns raw inputs into a model's, in float64, and predictions into the targets' units.

    Args:
        inputs: One entry a column, or one entry of kind array.
        targets: One entry a number, or one of kind class.
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
        """Return one that leaves inputs of a shape, and predictions, as they are."""
        array = Array(column="x", kind="array", shape=list(shape), whole=whole, mean=[], deviation=[])
        return cls([array], targets_of([f"y{i}" if outputs != 1 else "y" for i in range(outputs or 0)], classes))

    @classmethod
    def from_json(cls, data: Any) -> Preprocess:
        """Return what a preprocess.json holds.

        Raises:
            ValueError: It is none.
        """
        if not has_shape(_File)(data) or data["format"] != FORMAT:
            raise ValueError("holds no preprocessing of this version")
        if not data["inputs"]:
            raise ValueError("names no inputs")
        for entries in (data["inputs"], data["targets"]):
            columns = [one["column"] for one in entries]
            if len({one["kind"] == "array" for one in entries}) > 1 or len(set(columns)) < len(columns):
                raise ValueError("has columns that do not go together")
            for one in entries:
                _require_right(one)
        return cls(data["inputs"], data["targets"])

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"format": FORMAT, "inputs": self.inputs, "targets": self.targets}

    @property
    def array(self) -> Array | None:
        """The input if it is an array, None if the inputs are columns."""
        return self.inputs[0] if self.inputs and self.inputs[0]["kind"] == "array" else None

    @property
    def columns(self) -> list[str]:
        """Names of the inputs."""
        return [one["column"] for one in self.inputs]

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, None for targets that are numbers."""
        if self.targets and self.targets[0]["kind"] == "class":
            names: list[str] = self.targets[0]["values"]
            return names
        return None

    @property
    def width(self) -> int:
        """Numbers of a prepared row."""
        if self.array is not None:
            return torch.Size(self.array["shape"]).numel()
        return sum(_width(one) for one in self.inputs)

    @property
    def outputs(self) -> int | None:
        """Numbers of a prediction; None if nothing is known of it."""
        return (len(self.targets) if self.classes is None else len(self.classes)) or None

    def forward(self, raw: Tensor) -> Tensor:
        """Return raw inputs as the model takes them.

        Args:
            raw: Rows of numbers and indices of categories (rows, columns), or arrays (rows, ...).
        """
        raw = raw.double()
        if self.array is not None:
            return raw if self._moments is None else (raw - self._moments[0]) / self._moments[1]
        return torch.cat([_prepared(one, raw[:, [index]]) for index, one in enumerate(self.inputs)], dim=1)

    def prepare(self, raw: Tensor) -> Tensor:
        """Return many raw rows as the model takes them, in the default dtype and a memory of one copy."""
        shape = raw.shape[1:] if self.array is not None else (self.width,)
        prepared = torch.empty(len(raw), *shape, dtype=torch.get_default_dtype())
        if self.array is not None and self._moments is None:
            return prepared.copy_(raw)
        rows = max(_CHUNK // max(self.width, 1), 1)
        for start in range(0, len(raw), rows):
            prepared[start : start + rows] = self(raw[start : start + rows])
        return prepared

    def scaled(self, targets: Tensor) -> Tensor:
        """Return targets (rows, targets) as the loss takes them."""
        mean, deviation = self._scale()
        return ((targets.double() - mean) / deviation).to(torch.get_default_dtype())

    def restored(self, predictions: Tensor) -> Tensor:
        """Return predictions of numbers (rows, targets) in the targets' own units; scores of classes stay."""
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
    """Say whether distinct values are taken for indices of classes unless one says otherwise: 0, 1, ... and few."""
    return 2 <= len(values) <= _MOST_CLASSES and sorted(values) == [*range(len(values))]


def targets_of(columns: Sequence[str], classes: list[str] | None, column: str = "class") -> list[Any]:
    """Return the entries of targets that are left as they are.

    Args:
        columns: Names of the numbers.
        classes: Names of the classes, None for numbers.
        column: Name of the classes' column.
    """
    if classes is not None:
        return [Classes(column=column, kind="class", values=classes)]
    return [Number(column=name, kind="number", mean=0.0, deviation=1.0, fill=None) for name in columns]


def _require_right(one: Any) -> None:
    """Raise a ValueError if an entry of a preprocess.json can't be computed with."""
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
    return len(one["values"]) if one["kind"] == "category" and one["encode"] == "onehot" else 1


def _prepared(one: Any, values: Tensor) -> Tensor:
    """Return a raw column (rows, 1) as the columns that a model takes."""
    if one["kind"] == "number":
        if one["fill"] is not None:
            values = values.nan_to_num(one["fill"], posinf=torch.inf, neginf=-torch.inf)
        scaled: Tensor = (values - one["mean"]) / one["deviation"]
        return scaled
    if one["encode"] == "index":
        return values.nan_to_num(len(one["values"]))
    hot: Tensor = values == torch.arange(len(one["values"]), dtype=torch.float64)
    return hot.double()
