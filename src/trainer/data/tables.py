"""Tables: one or several columns are predicted from the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from trainer.data import files
from trainer.data.base import Data, listed, split
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
from trainer.data.csv_text import Form
from trainer.data.preprocess import Category, Number, Preprocess, targets_of
from trainer.errors import refusal, require, unknown

if TYPE_CHECKING:
    import polars as pl

TRAINING_WORDS = ("train", "training")
VALIDATION_WORDS = ("validation", "valid", "val")
UNUSED_WORDS = ("test",)
MOST_VALUES = 1000  # of a category; a column with more values identifies the rows
_MANY_VALUES = 50  # of a category; more are too many if there are fewer than two rows per value
_LIKE_NUMBERS = r"^[-+]?[$€£]?\s?\d[\d.,' ]*\s?[$€£%]?$"  # text that looks like a number and isn't one
_MAIN, _APART = "", "held out"  # parts of the rows, by their names in messages
_NAMES = ("category", "class")  # kinds of columns that hold names

Missing = Literal["error", "drop", "mean"]
Encode = Literal["onehot", "index"]
Decimal = Literal[".", ","]


class Table(Data, ABC):
    """Columns of numbers and text, some of which are predicted from the others.

    The preprocessing (means, standard deviations, categories) is fitted on the training rows only.

    Args:
        path: The table.
        target: The column to predict; several must be numbers.
        columns: The input columns; None is all others.
        exclude: Columns that are not inputs.
        categories: Numeric columns that hold names, such as postal codes.
        encode: Encoding of categories: onehot, one column of 0 and 1 per value, or index, the index of the value.
        classes: Whether the target is a class; None treats text as classes, and integers from 0 if they are few.
        nan: Treatment of empty or non-finite cells: error refuses them, drop drops their rows, mean fills in the mean
            of the column, and for categories none of the values.
        standardize: Whether to scale numbers, including targets, to mean 0 and standard deviation 1.
        validation: Fraction of the rows held out, unless `split` or `validation_path` selects them.
        split: A column that says train or validation.
        validation_path: A table of the held-out rows.
        separator: The character between the cells of a CSV file; None detects it.
        header: Whether the first line of a CSV file names the columns; otherwise they are column_1, column_2, ...
        decimal: The decimal mark of the numbers in a CSV file.

    Raises:
        UsageError: The table can't be read, or it lacks a column that the settings name.
    """

    key = "data.path"  # the setting that names the table

    def __init__(
        self,
        path: str,
        target: str | list[str] | None = None,
        columns: list[str] | None = None,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        encode: Encode = "onehot",
        classes: bool | None = None,
        nan: Missing = "error",
        standardize: bool = True,
        validation: float = 0.2,
        split: str | None = None,
        validation_path: str | None = None,
        separator: str | None = None,
        header: bool = True,
        decimal: Decimal = ".",
    ) -> None:
        self._form = Form(separator, header, decimal)
        frame = self._read(path, self.key)
        apart = None if validation_path is None else self._read(validation_path, "data.validation_path")
        require("validation", validation, 0 <= validation < 1, "at least 0 and below 1")
        self.validation, self.source = validation, f"{self.key}={path}"
        unnamed = [] if "" not in frame.columns else ["the column without a name is ignored"]
        frame = frame.drop("", strict=False)
        self._targets = [target] if isinstance(target, str) else [*(target or ())]
        if not self._targets:
            raise refusal("data.target", "has no value: which column should be predicted?", frame.columns)
        self._split, self._encode, self._nan, self._standardize = split, encode, nan, standardize
        self._asked_classes = classes
        named = {"target": self._targets, "columns": columns or (), "exclude": exclude, "categories": categories}
        for key, names in {**named, "split": [] if split is None else [split]}.items():
            _require_columns(frame, f"data.{key}", names)
        if split is not None and apart is not None:
            raise refusal(f"data.split={split}", "data.validation_path holds the held-out rows already", "one of them")
        kept_out = {*self._targets, *exclude, split}
        self._inputs = [name for name in (frame.columns if columns is None else columns) if name not in kept_out]
        if not self._inputs:
            names = ", ".join(map(str, kept_out - {None}))
            raise refusal(self.source, f"has no column besides {names} to predict from")
        self._categories = set(categories)
        if apart is not None:
            _require_columns(apart, "data.validation_path", [*self._inputs, *self._targets])
        self._given = {_MAIN: frame, **({} if apart is None else {_APART: apart})}
        self._unnamed = tuple(unnamed)
        self.x = None
        self.y = torch.empty(0)
        self.classes = None

    @abstractmethod
    def _read(self, path: str, key: str) -> pl.DataFrame:
        """Return the table at a path; `key` is the setting that names it."""

    def prepare(self, seed: int, kept: Preprocess | None = None) -> None:
        """Split the rows, fit the preprocessing on the training rows unless it is given, and prepare all rows."""
        self._as_names = {*self._categories, *(self._targets if self._asked_classes else ())}
        if kept is not None:
            self._take_same_columns(kept)
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

    def _take_same_columns(self, kept: Preprocess) -> None:
        """Leave out the columns that the run's preprocessing doesn't know; refuse a table that lacks some."""
        if self._form.header and kept.array is None and {*kept.columns} < {*self._inputs}:
            others = [name for name in self._inputs if name not in kept.columns]
            self._inputs = [name for name in self._inputs if name in kept.columns]
            what = f"column{'s' * (len(others) != 1)} ignored, from which the run did not learn: {listed(others)}"
            self._unnamed = (*self._unnamed, what)
        targets = [one["column"] for one in kept.targets]
        if kept.array is not None or set(kept.columns) != set(self._inputs) or targets != self._targets:
            learned = "an array" if kept.array is not None else ", ".join(kept.columns)
            found = f"{', '.join(self._inputs)} -> {', '.join(self._targets)}"
            raise refusal(self.source, f"has {found}, but the run learned from {learned} -> {', '.join(targets)}")

    def _require_known(self, raw: Tensor) -> None:
        """Refuse empty cells without a fill value."""
        holes = ~raw.isfinite()
        if bool(holes.any()):
            row, column = holes.nonzero()[0].tolist()
            what = f"{self._preprocess.columns[column]} is empty in {self._place_of(row)}"
            raise refusal(self.source, f"{what}, and the run has no fill value for it", "data.nan=drop")

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing of the columns."""
        return self._preprocess

    def content(self) -> list[Any]:
        """Return all cells."""
        return [np.frombuffer(frame.write_csv().encode(), np.uint8) for frame in self._given.values()]

    def facts(self) -> dict[str, Any]:
        """Return the description of the table for status.json."""
        return {**super().facts(), **self._facts}

    def described(self) -> dict[str, str]:
        """Return the description of the columns for the screen."""
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
                lines["target"] += "; the loss is in standard deviations"
        if missing := {name: count for name, count in self._missing.items() if count}:
            count = sum(missing.values())
            what = f"{count:,} cell{'s' * (count > 1)} in {listed([*missing])}"
            done = f"dropped {self._dropped:,} rows" if self._nan == "drop" else "filled with the mean"
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
            raise refusal(self.source, f"the column {name} holds {str(kind).lower()}, not numbers or text", exclude)
        numbers = files.as_numbers(column, self._form.decimal)
        if numbers.null_count() == column.null_count():
            return numbers
        column = files.as_text(column)
        found, filled = numbers.count(), column.count()
        if found == filled:
            return numbers
        if 2 * found > filled:
            row = int((numbers.is_null() & column.is_not_null()).arg_true()[0])
            where = f"{self._place(row, part)}: {column[row]!r} in the column {name}"
            asked = f"a number there, or data.categories=[{name}]"
            raise refusal(self.source, f"{where}, which otherwise holds numbers", asked, _decimal_comma(column))
        self._require_no_numbers(column, part)
        return column

    def _require_no_numbers(self, column: pl.Series, part: str) -> None:
        """Refuse text that looks like numbers in an unsupported notation: 10,5 or 1,000 or 3 €."""
        alike = column.str.contains(_LIKE_NUMBERS).fill_null(False)
        if 2 * int(alike.sum()) > column.count():
            row = int(alike.arg_true()[0])
            where = f"{self._place(row, part)}: {column[row]!r} in the column {column.name}"
            mark = "point" if self._form.decimal == "." else "comma"
            asked = f"digits with a decimal {mark} only, or data.categories=[{column.name}]"
            reason = f"{where} looks like a number but can't be read as one"
            raise refusal(self.source, reason, asked, _decimal_comma(column))

    def _place(self, row: int, part: str) -> str:
        """Return the position of a row of a part in the user's table, as text."""
        return f"{part} row {self._rows[part][row] + 1:,}".strip()

    def _place_of(self, row: int) -> str:
        """Return the position of a row, counted over all parts, as text."""
        first = self._parts[_MAIN].height
        return self._place(row, _MAIN) if row < first else self._place(row - first, _APART)

    def _handle_missing(self) -> None:
        """Refuse empty or non-finite cells, or drop their rows; means are filled in later."""
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
                raise refusal(self.source, f"no row {part}".rstrip() + " is complete", "data.nan=mean")

    def _divided(self, seed: int) -> tuple[Tensor | None, Tensor | None]:
        """Return the numbers of the training rows and of the held-out rows."""
        count = self._parts[_MAIN].height
        if _APART in self._parts:
            return torch.arange(count), torch.arange(count, count + self._parts[_APART].height)
        if self._split is None:
            return split(count, self.validation, seed)
        words = self._parts[_MAIN][self._split].str.to_lowercase()
        allowed = (*TRAINING_WORDS, *VALIDATION_WORDS, *UNUSED_WORDS)
        strange = (~words.is_in(allowed) | words.is_null()).arg_true()
        if strange.len():
            row = int(strange[0])
            found = "is empty" if words[row] is None else f"holds {words[row]!r}"
            raise refusal(f"data.split={self._split}", f"{found} in {self._place(row, _MAIN)}", allowed)
        parts = [
            torch.from_numpy(words.is_in(part).arg_true().to_numpy().astype(np.int64))
            for part in (TRAINING_WORDS, VALIDATION_WORDS)
        ]
        for part, rows in zip(("train", "validation"), parts, strict=True):
            if len(rows) == 0:
                raise refusal(f"data.split={self._split}", f"no row says {part}")
        return parts[0], parts[1]

    def _fit(self, frame: pl.DataFrame, everything: pl.DataFrame) -> Preprocess:
        """Return the preprocessing fitted on the training rows; the classes are those of all rows."""
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
            raise refusal(self.source, f"the column {name} holds {values:,} different texts in {rows:,} rows", allowed)

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
                    raise refusal(self.source, f"{column.name} holds text, but the run was trained on numbers")
            values = [floats(frame[one["column"]]) for one in self._preprocess.targets]
            return self._preprocess.scaled(torch.from_numpy(np.stack(values, axis=1)))
        column = frame[self._preprocess.targets[0]["column"]]
        indices = index_in(as_names(column), names)
        if bool((indices == len(names)).any()):
            row = int(np.argmax(indices == len(names)))
            raise refusal(self.source, f"{column.name} is {as_names(column)[row]!r} in {self._place_of(row)}", names)
        return torch.from_numpy(indices.copy())

    def _constant(self, fitted_on: pl.DataFrame) -> Iterator[str]:
        """Yield a warning for each constant column."""
        for name in (*self._inputs, *self._targets):
            if fitted_on[name].min() == fitted_on[name].max():
                what = "target" if name in self._targets else "column"
                yield f"the {what} {name} is constant in the training rows"


def _decimal_comma(column: pl.Series) -> str | None:
    """Return the setting that makes a column of text one of numbers; None if there is none."""
    return "data.decimal=," if files.as_numbers(column, ",").count() == column.count() else None


def _require_columns(frame: pl.DataFrame, key: str, names: Sequence[str]) -> None:
    there, seen = set(frame.columns), set[str]()
    for name in names:
        if name not in there:
            raise unknown(f"{key}={name}", "the table has no such column", name, there, f"{key}=")
        if name in seen:
            raise refusal(f"{key}=[{','.join(names)}]", f"names {name} twice")
        seen.add(name)
