"""Tables: a column or several to be predicted from the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from trainer.data import files
from trainer.data.base import Data, listed, require, split
from trainer.data.columns import (
    as_names,
    class_names,
    described,
    encoded,
    facts_of,
    floats,
    index_in,
    is_missing,
    number,
    unknown_names,
)
from trainer.data.preprocess import Category, Number, Preprocess, targets_of
from trainer.errors import refusal, unknown

if TYPE_CHECKING:
    import polars as pl

TRAINING_WORDS = ("train", "training")
VALIDATION_WORDS = ("validation", "valid", "val")
UNUSED_WORDS = ("test",)
MOST_VALUES = 1000  # of a category; more are a name of each row
_MANY_VALUES = 50  # too many if most rows have one of their own
_LIKE_NUMBERS = r"^[-+]?[$€£]?\s?\d[\d.,' ]*\s?[$€£%]?$"  # of text that is no number
_MAIN, _APART = "", "held out"  # parts of the rows, as they are called in messages
_NAMES = ("category", "class")  # kinds of columns that hold names

Missing = Literal["error", "drop", "mean"]
Encode = Literal["onehot", "index"]


class Table(Data):
    """Columns of numbers and text, of which some are to be predicted from the others.

    Whatever the preparation needs to know of the columns, as their means, is fitted on the training rows alone.

    Args:
        frame: The columns.
        target: The column to predict; several must be numbers.
        columns: The inputs; None is all others.
        exclude: Columns that are not inputs.
        categories: Columns of numbers that are names all the same, as postal codes are.
        encode: Categories become as many ones and zeros as they have values, or the index of the value.
        classes: Whether the target is a class; None takes text for classes, and whole numbers from 0 that are few.
        nan: What is done about cells that are empty or not finite: refuse them, drop their rows, or put the
            mean of the column, for categories none of the values.
        standardize: Whether numbers get the mean 0 and the deviation 1, targets too.
        validation: Fraction of the rows held out, unless `split` or `apart` say which.
        split: A column that says train or validation.
        apart: A table of the rows held out.
        source: The setting that names the table and its value, for the messages.
    """

    def __init__(
        self,
        frame: pl.DataFrame,
        target: str | Sequence[str] | None,
        *,
        columns: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        encode: Encode = "onehot",
        classes: bool | None = None,
        nan: Missing = "error",
        standardize: bool = True,
        validation: float = 0.2,
        split: str | None = None,
        apart: pl.DataFrame | None = None,
        source: str = "data",
    ) -> None:
        require("validation", validation, 0 <= validation < 1, "at least 0 and below 1")
        self.validation, self.source = validation, source
        unnamed = [] if "" not in frame.columns else ["the column without a name is left out"]
        frame = frame.drop("", strict=False)
        self._targets = [target] if isinstance(target, str) else [*(target or ())]
        if not self._targets:
            raise refusal("data.target", "has no value: which column is to be predicted?", frame.columns)
        self._split, self._encode, self._nan, self._standardize = split, encode, nan, standardize
        self._asked_classes = classes
        named = {"target": self._targets, "columns": columns or (), "exclude": exclude, "categories": categories}
        for key, names in {**named, "split": [] if split is None else [split]}.items():
            _require_columns(frame, f"data.{key}", names)
        if split is not None and apart is not None:
            raise refusal(f"data.split={split}", "the rows held out have a table of their own", "one of them")
        kept_out = {*self._targets, *exclude, split}
        self._inputs = [name for name in (frame.columns if columns is None else columns) if name not in kept_out]
        if not self._inputs:
            raise refusal(source, f"has no column besides {', '.join(map(str, kept_out - {None}))} to predict from")
        self._categories = set(categories)
        if apart is not None:
            _require_columns(apart, "data.validation_path", [*self._inputs, *self._targets])
        self._given = {_MAIN: frame, **({} if apart is None else {_APART: apart})}
        self._unnamed = tuple(unnamed)
        self.x = None
        self.y = torch.empty(0)
        self.classes = None

    def prepare(self, seed: int, kept: Preprocess | None = None) -> None:
        """Split the rows, fit the preparation on those to train on unless it is given, and prepare all."""
        self._as_names = {*self._categories, *(self._targets if self._asked_classes else ())}
        if kept is not None:
            self._require_same_columns(kept)
            self._as_names |= {one["column"] for one in (*kept.inputs, *kept.targets) if one["kind"] in _NAMES}
        self._parts: dict[str, pl.DataFrame] = {}
        self._rows = {part: np.arange(given.height) for part, given in self._given.items()}
        for part, given in self._given.items():
            split_by = [self._split] if self._split is not None and part == _MAIN else []
            used = [*dict.fromkeys([*self._inputs, *self._targets, *split_by])]
            self._parts[part] = type(given)([self._numbers_or_text(given[name], part) for name in used])
            self._as_names |= {one.name for one in self._parts[part] if not one.dtype.is_numeric()}
        self._missing = {
            name: sum(int(is_missing(frame[name]).sum()) for frame in self._parts.values())
            for name in (*self._inputs, *self._targets)
        }
        self._handle_missing()
        self.training, self.held_out = self._divided(seed)
        frame = self._parts[_MAIN]
        if _APART in self._parts:
            frame = frame.vstack(self._parts[_APART])
        fitted_on = frame if self.training is None else frame[self.training.numpy()]
        self._preprocess = kept or self._fit(fitted_on, frame)
        raw = encoded(frame, self._preprocess)
        self._require_known(raw)
        self.x = self._preprocess.prepare(raw)
        self.y = self._encoded_targets(frame)
        self.classes = self._preprocess.classes
        self.warnings = (*self._unnamed, *self._constant(fitted_on))
        if kept is not None:
            self.warnings = (*self.warnings, *unknown_names(frame, kept, raw))
        self._facts, self._lines = self._facts_of(frame), self._lines_of(frame)
        self._parts = {}

    def _require_same_columns(self, kept: Preprocess) -> None:
        """Refuse to prepare other columns than those that the preparation was made for."""
        targets = [one["column"] for one in kept.targets]
        if kept.array is not None or set(kept.columns) != set(self._inputs) or targets != self._targets:
            learned = "an array" if kept.array is not None else ", ".join(kept.columns)
            found = f"{', '.join(self._inputs)} -> {', '.join(self._targets)}"
            raise refusal(self.source, f"has {found}, and the run learned from {learned} -> {', '.join(targets)}")

    def _require_known(self, raw: Tensor) -> None:
        """Refuse cells that nothing stands for."""
        holes = ~raw.isfinite()
        if bool(holes.any()):
            row, column = holes.nonzero()[0].tolist()
            what = f"{self._preprocess.columns[column]} is empty in {self._place_of(row)}"
            raise refusal(self.source, f"{what}, and the run has nothing to put there", "data.nan=drop")

    @property
    def preprocess(self) -> Preprocess:
        """How the columns were prepared."""
        return self._preprocess

    def content(self) -> list[Any]:
        """Return all cells."""
        return [np.frombuffer(frame.write_csv().encode(), np.uint8) for frame in self._given.values()]

    def facts(self) -> dict[str, Any]:
        """Return what status.json says of the table."""
        return {**super().facts(), **self._facts}

    def described(self) -> dict[str, str]:
        """Return what the user is shown of the columns."""
        return self._lines

    def _facts_of(self, frame: pl.DataFrame) -> dict[str, Any]:
        columns = [
            {**facts_of(frame[one["column"]], one), "missing": self._missing[one["column"]]}
            for one in (*self._preprocess.inputs, *self._preprocess.targets)
        ]
        return {"dropped": self._dropped, "columns": columns}

    def _lines_of(self, frame: pl.DataFrame) -> dict[str, str]:
        lines = {"columns": listed([described(frame[one["column"]], one) for one in self._preprocess.inputs])}
        if self.classes is not None:
            lines["target"] = f"{self._targets[0]}: {super().described()['classes']}"
        else:
            lines["target"] = listed([described(frame[name]) for name in self._targets])
            if self._standardize:
                lines["target"] += "; the loss counts in standard deviations"
        if missing := {name: count for name, count in self._missing.items() if count}:
            count = sum(missing.values())
            what = f"{count:,} cell{'s' * (count > 1)} in {listed([*missing])}"
            done = f"dropped {self._dropped:,} of the rows" if self._nan == "drop" else "filled with the mean"
            lines["missing"] = f"{what}; {done}"
        return lines

    def _numbers_or_text(self, column: pl.Series, part: str) -> pl.Series:
        """Return a column as float64 or as text."""
        polars = files.load_polars()
        name, kind = column.name, column.dtype
        if name == self._split or name in self._as_names:
            return as_names(column)
        if kind.is_numeric() or kind == polars.Null:
            return column.cast(polars.Float64)
        if kind in (polars.Boolean, polars.Categorical, polars.Enum):
            return column.cast(polars.String)
        if kind != polars.String:
            exclude = f"data.exclude=[{name}]"
            raise refusal(self.source, f"column {name} holds {str(kind).lower()}, not numbers or text", exclude)
        numbers = files.as_numbers(column)
        if numbers.null_count() == column.null_count():
            return numbers
        column = files.as_text(column)
        found, filled = numbers.count(), column.count()
        if found == filled:
            return numbers
        if 2 * found > filled:
            row = int((numbers.is_null() & column.is_not_null()).arg_true()[0])
            where = f"{self._place(row, part)}: {column[row]!r} in the column {name}"
            raise refusal(
                self.source, f"{where}, which otherwise holds numbers", f"a number there, or data.categories=[{name}]"
            )
        self._require_no_numbers(column, part)
        return column

    def _require_no_numbers(self, column: pl.Series, part: str) -> None:
        """Refuse text that is numbers written in a way that can't be read: 10,5 or 1,000 or 3 €."""
        alike = column.str.contains(_LIKE_NUMBERS).fill_null(False)
        if 2 * int(alike.sum()) > column.count():
            row = int(alike.arg_true()[0])
            where = f"{self._place(row, part)}: {column[row]!r} in the column {column.name}"
            asked = f"a point before decimals and nothing else, or data.categories=[{column.name}]"
            raise refusal(self.source, f"{where} looks like a number and can't be read as one", asked)

    def _place(self, row: int, part: str) -> str:
        """Say where a row of a part stands in what the user has."""
        return f"{part} row {self._rows[part][row] + 1:,}".strip()

    def _place_of(self, row: int) -> str:
        """Say where a row of all parts together stands."""
        first = self._parts[_MAIN].height
        return self._place(row, _MAIN) if row < first else self._place(row - first, _APART)

    def _handle_missing(self) -> None:
        """Refuse, or drop the rows of, cells that are empty or not finite; means are put when they are known."""
        self._dropped = 0
        for part, frame in self._parts.items():
            holes = {name: is_missing(frame[name]) for name in (*self._inputs, *self._targets)}
            for name, missing in holes.items():
                must_be_known = self._nan == "error" or (self._nan == "mean" and name in self._targets)
                if must_be_known and (count := int(missing.sum())):
                    where = self._place(int(missing.arg_true()[0]), part)
                    cells = f"{count:,} cells of {name} are" if count > 1 else f"a cell of {name} is"
                    choices = "data.nan=drop" if name in self._targets else "data.nan=drop, data.nan=mean"
                    raise refusal(self.source, f"{cells} empty or not finite, the first in {where}", choices)
            if self._nan == "drop":
                whole = ~np.any([missing.to_numpy() for missing in holes.values()], axis=0)
                self._parts[part], self._rows[part] = frame.filter(whole), self._rows[part][whole]
                self._dropped += int((~whole).sum())
            if self._parts[part].height == 0:
                raise refusal(self.source, f"no row {part}".rstrip() + " is whole", "data.nan=mean")

    def _divided(self, seed: int) -> tuple[Tensor | None, Tensor | None]:
        """Return the rows to train on and those held out."""
        count = self._parts[_MAIN].height
        if _APART in self._parts:
            return torch.arange(count), torch.arange(count, count + self._parts[_APART].height)
        if self._split is None:
            return split(count, self.validation, seed)
        words = self._parts[_MAIN][self._split].str.to_lowercase()
        allowed = (*TRAINING_WORDS, *VALIDATION_WORDS, *UNUSED_WORDS)
        strange = words.filter(~words.is_in(allowed) | words.is_null())
        if strange.len():
            raise refusal(f"data.split={self._split}", f"holds {strange[0]!r}", allowed)
        parts = [
            torch.from_numpy(words.is_in(part).arg_true().to_numpy().astype(np.int64))
            for part in (TRAINING_WORDS, VALIDATION_WORDS)
        ]
        for part, rows in zip(("train", "validation"), parts, strict=True):
            if len(rows) == 0:
                raise refusal(f"data.split={self._split}", f"no row says {part}")
        return parts[0], parts[1]

    def _fit(self, frame: pl.DataFrame, everything: pl.DataFrame) -> Preprocess:
        """Return the preparation that the rows to train on ask for; classes are those of all rows."""
        inputs = [self._fit_input(frame[name]) for name in self._inputs]
        columns = [everything[name] for name in self._targets]
        texts = [column.name for column in columns if not column.dtype.is_numeric()]
        if self._asked_classes and len(columns) > 1:
            raise refusal("data.classes=true", f"one target can be a class, not {len(columns)}")
        if self._asked_classes is False and texts:
            raise refusal("data.classes=false", f"the target {texts[0]} is text")
        if len(columns) > 1 and texts:
            raise refusal(
                f"data.target=[{','.join(self._targets)}]", f"several targets must be numbers; {texts[0]} is text"
            )
        if len(columns) == 1 and (names := class_names(columns[0], self._asked_classes)) is not None:
            self._require_few(columns[0].name, len(names), columns[0].len(), "another target")
            return Preprocess(inputs, targets_of([], names, self._targets[0]))
        return Preprocess(inputs, [number(frame[name], self._standardize, False) for name in self._targets])

    def _require_few(self, name: str, values: int, rows: int, allowed: str) -> None:
        if values > MOST_VALUES or (values > _MANY_VALUES and 2 * values > rows):
            raise refusal(self.source, f"column {name} holds {values:,} different texts in {rows:,} rows", allowed)

    def _fit_input(self, column: pl.Series) -> Number | Category:
        if column.dtype.is_numeric():
            return number(column, self._standardize, self._nan == "mean")
        values = column.drop_nulls().unique().sort().to_list()
        self._require_few(column.name, len(values), column.len(), f"data.exclude=[{column.name}]")
        fill = self._nan == "mean"
        return Category(column=column.name, kind="category", values=values, encode=self._encode, fill=fill)

    def _encoded_targets(self, frame: pl.DataFrame) -> Tensor:
        if (names := self._preprocess.classes) is None:
            for column in (frame[one["column"]] for one in self._preprocess.targets):
                if not column.dtype.is_numeric():
                    raise refusal(self.source, f"{column.name} holds text, and the run was trained with numbers there")
            values = [floats(frame[one["column"]]) for one in self._preprocess.targets]
            return self._preprocess.scaled(torch.from_numpy(np.stack(values, axis=1)))
        column = frame[self._preprocess.targets[0]["column"]]
        indices = index_in(as_names(column), names)
        if bool((indices == len(names)).any()):
            row = int(np.argmax(indices == len(names)))
            raise refusal(self.source, f"{column.name} is {as_names(column)[row]!r} in {self._place_of(row)}", names)
        return torch.from_numpy(indices.copy())

    def _constant(self, fitted_on: pl.DataFrame) -> Iterator[str]:
        """Yield a warning for each column that says nothing."""
        for name in (*self._inputs, *self._targets):
            if fitted_on[name].min() == fitted_on[name].max():
                what = "target" if name in self._targets else "column"
                yield f"the {what} {name} has one value in all rows to train on"


def _require_columns(frame: pl.DataFrame, key: str, names: Sequence[str]) -> None:
    there, seen = set(frame.columns), set[str]()
    for name in names:
        if name not in there:
            raise unknown(f"{key}={name}", "the table has no such column", name, there, f"{key}=")
        if name in seen:
            raise refusal(f"{key}=[{','.join(names)}]", f"names {name} twice")
        seen.add(name)
