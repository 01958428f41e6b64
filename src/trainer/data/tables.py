"""Tables: one or several columns are predicted from the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from trainer import quoting
from trainer.data import files, table_remarks
from trainer.data.base import Data, listed, split
from trainer.data.columns import (
    as_names,
    class_names,
    described,
    distinct,
    encoded,
    facts_of,
    floats,
    index_in,
    is_missing,
    number,
    require_columns,
    split_by,
)
from trainer.data.csv_text import Form
from trainer.data.missing_words import UNSAID, words_of
from trainer.data.preprocess import Category, Number, Preprocess, targets_of
from trainer.errors import UsageError, refusal, require

if TYPE_CHECKING:
    import polars as pl

_EXCLUDE = "data.exclude"
MOST_VALUES = 1000  # of a category; a column with more values identifies the rows
_MANY_VALUES = 50  # of a category; more are too many if there are fewer than two rows per value
_LIKE_NUMBERS = r"^[-+]?[$€£]?\s?\d[\d.,' ]*\s?[$€£%]?$"  # text that looks like a number and isn't one
_MAIN, _APART = "", "held out"  # parts of the rows, by their names in messages
_NAMES = ("category", "class")  # kinds of columns that hold names
_FILLED = ("mean", "indicator")  # choices of data.nan that fill missing cells
_WAYS = ("data.nan=drop", "data.nan=mean", "data.nan=indicator")

Missing = Literal["error", "drop", "mean", "indicator"]
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
            of the column, and for categories none of the values; indicator does so and adds an input, 1 where a cell is
            missing, for each column with missing cells in the training rows. Both drop rows without a target.
        standardize: Whether to scale numbers, including targets, to mean 0 and standard deviation 1.
        validation: Fraction of the rows held out, unless `split` or `validation_path` selects them.
        split: A column that says train or validation.
        validation_path: A table of the held-out rows.
        separator: The character between the cells of a CSV file; None detects it.
        header: Whether the first line of a CSV file names the columns; otherwise they are column_1, column_2, ...
        decimal: The decimal mark of the numbers in a CSV file.
        missing: The words that mean an empty cell; None is the usual ones in columns of numbers, and none in others.

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
        missing: Sequence[Any] | None = UNSAID,
    ) -> None:
        self._form = Form(separator, header, decimal)
        self._words, self._says_words = words_of(missing), missing is None
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
            require_columns(frame, f"data.{key}", names)
        if split is not None and apart is not None:
            raise refusal(f"data.split={split}", "data.validation_path holds the held-out rows already", "one of them")
        kept_out = {*self._targets, *exclude, split}
        self._inputs = [name for name in (frame.columns if columns is None else columns) if name not in kept_out]
        if not self._inputs:
            names = ", ".join(map(str, kept_out - {None}))
            raise refusal(self.source, f"has no column besides {names} to predict from")
        self._categories = set(categories)
        if apart is not None:
            require_columns(apart, "data.validation_path", [*self._inputs, *self._targets])
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
        self._as_numbers: set[str] = set()
        if kept is not None:
            self._take_same_columns(kept)
            kinds = {one["column"]: one["kind"] for one in (*kept.inputs, *kept.targets)}
            self._as_names |= {name for name, kind in kinds.items() if kind in _NAMES}
            self._as_numbers |= {name for name, kind in kinds.items() if kind == "number"}
        self._parts: dict[str, pl.DataFrame] = {}
        self._rows = {part: np.arange(given.height) for part, given in self._given.items()}
        for part, given in self._given.items():
            split_by = [self._split] if self._split is not None and part == _MAIN else []
            used = [*dict.fromkeys([*self._inputs, *self._targets, *split_by])]
            self._parts[part] = type(given)([self._numbers_or_text(given[name], part) for name in used])
            self._as_names |= {one.name for one in self._parts[part] if not one.dtype.is_numeric()}
            self._as_numbers |= {one.name for one in self._parts[part] if one.dtype.is_numeric()}
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
        self.warnings = (*self._unnamed, *self._losses, *table_remarks.constant(fitted_on, self._preprocess))
        self.warnings = (*self.warnings, *self._unlearned(frame, raw, kept))
        self._kept_words = None
        if self._says_words:
            self._kept_words = table_remarks.words_kept([*self._parts.values()], [*self._inputs, *self._targets])
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
        holes = self._preprocess.holes(raw)
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
            rows = sum(given.height for given in self._given.values())
            lines["missing"] = table_remarks.missing_cells(missing, self._nan, self._dropped, rows)
        if self._kept_words is not None:
            lines["words"] = self._kept_words
        return lines

    def _unlearned(self, frame: pl.DataFrame, raw: Tensor, kept: Preprocess | None) -> Iterator[str]:
        """Yield a warning for what the training rows don't have, or the run has not seen."""
        if kept is not None:
            yield from table_remarks.not_seen(frame, kept, raw)
        else:
            yield from table_remarks.spellings(frame, self._preprocess)
            if self.held_out is not None:
                rows = self.held_out
                yield from table_remarks.only_held_out(frame[rows.numpy()], self._preprocess, raw[rows])
        yield from self.untrained_classes(self._targets[0])

    def _numbers_or_text(self, column: pl.Series, part: str) -> pl.Series:
        """Return a column as float64 or as text."""
        polars = files.load_polars()
        name, kind = column.name, column.dtype
        if name == self._split or name in self._as_names:
            return as_names(column, self._words.of_names(column))
        if kind in (polars.Boolean, polars.Categorical, polars.Enum):
            if name not in self._as_numbers:
                return as_names(column, self._words.of_names(column))
        elif not kind.is_numeric() and kind not in (polars.Null, polars.String):
            exclude = quoting.typed(_EXCLUDE, [name])
            raise refusal(self.source, f"the column {name} holds {str(kind).lower()}, not numbers or text", exclude)
        numbers, wrong = files.as_numbers(column, self._words.numbers, self._form.decimal)
        others = int(wrong.sum())
        if others == 0:
            if numbers.count() or name in self._as_numbers or column.dtype != polars.String:
                return numbers
            names = as_names(column, self._words.names)  # maybe words that would mean missing among numbers
            return names if names.count() else numbers
        if name in self._as_numbers or numbers.count() > others:
            row = int(wrong.arg_true()[0])
            raise self._no_number(f"{self._place(row, part)}: {column[row].strip()!r}", column, part)
        self._require_no_numbers(files.as_text(column, self._words.numbers), part)
        return as_names(column, self._words.names)

    def _no_number(self, what: str, column: pl.Series, part: str) -> UsageError:
        """Refuse a text in a column of numbers."""
        name, hint = column.name, self._decimal_comma(column)
        allowed = f"a number there, or {_as_category(name)}"
        if name not in self._as_numbers:
            return refusal(self.source, f"{what} in the column {name}, which otherwise holds numbers", allowed, hint)
        if part == _APART and name in self._parts[_MAIN].columns and not self._parts[_MAIN][name].count():
            return refusal(quoting.typed(_EXCLUDE, [name]), f"the column {name} is empty in all training rows")
        if part == _APART:
            reason = f"{what} in the column {name}, which holds numbers in the training rows"
            return refusal(self.source, reason, allowed)
        reason = f"{what}: {name} holds text, but the run was trained on numbers"
        return refusal(self.source, reason, "a number there", hint)

    def _decimal_comma(self, column: pl.Series) -> str | None:
        """Return the setting that makes a column of text one of numbers; None if there is none."""
        return None if files.as_numbers(column, self._words.numbers, ",")[1].any() else "data.decimal=,"

    def _require_no_numbers(self, column: pl.Series, part: str) -> None:
        """Refuse text that looks like numbers in an unsupported notation: 10,5 or 1,000 or 3 €."""
        alike = column.str.contains(_LIKE_NUMBERS).fill_null(False)
        if 2 * int(alike.sum()) > column.count():
            row = int(alike.arg_true()[0])
            where = f"{self._place(row, part)}: {column[row]!r} in the column {column.name}"
            mark = "point" if self._form.decimal == "." else "comma"
            asked = f"digits with a decimal {mark} only, or {_as_category(column.name)}"
            reason = f"{where} looks like a number but can't be read as one"
            raise refusal(self.source, reason, asked, self._decimal_comma(column))

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
        holes: dict[str, list[Any]] = {name: [] for name in (*self._inputs, *self._targets)}
        for part, frame in self._parts.items():
            for name, found in holes.items():
                missing = is_missing(frame[name])
                found.append(missing.to_numpy())
                if self._nan == "error" and (count := int(missing.sum())):
                    where = self._place(int(missing.arg_true()[0]), part)
                    cells = f"{count:,} cells of {name} are" if count > 1 else f"a cell of {name} is"
                    choices = "data.nan=drop" if name in self._targets else _WAYS
                    raise refusal(self.source, f"{cells} empty or not finite, the first in {where}", choices)
            needed = holes if self._nan == "drop" else self._targets
            whole = ~np.any([holes[name][-1] for name in needed], axis=0)
            self._parts[part], self._rows[part] = frame.filter(whole), self._rows[part][whole]
            self._dropped += int((~whole).sum())
            if self._parts[part].height == 0:
                lacks = " is complete" if self._nan == "drop" else f" has a value of {', '.join(self._targets)}"
                raise refusal(self.source, f"no row {part}".rstrip() + lacks, "data.nan=mean" * (self._nan == "drop"))
        of_rows = {name: np.concatenate(found) for name, found in holes.items()}
        self._losses = [*table_remarks.few_left(of_rows, self._targets)] if self._nan == "drop" else []

    def _divided(self, seed: int) -> tuple[Tensor | None, Tensor | None]:
        """Return the numbers of the training rows and of the held-out rows."""
        count = self._parts[_MAIN].height
        if _APART in self._parts:
            return torch.arange(count), torch.arange(count, count + self._parts[_APART].height)
        if self._split is None:
            return split(count, self.validation, seed)
        return split_by(self._parts[_MAIN][self._split], lambda row: self._place(row, _MAIN))

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
        """Return the preprocessing of a column; it marks missing cells if it has any and data.nan=indicator."""
        one = self._unmarked(column)
        if self._nan == "indicator" and is_missing(column).any():
            one["indicator"] = True
        return one

    def _unmarked(self, column: pl.Series) -> Number | Category:
        if column.dtype.is_numeric():
            return number(column, self._standardize, self._nan in _FILLED)
        values = distinct(column.drop_nulls().unique().sort().to_list())
        exclude = quoting.typed(_EXCLUDE, [column.name])
        if not values:
            raise refusal(exclude, f"the column {column.name} is empty in all training rows")
        self._require_few(column.name, len(values), column.len(), exclude)
        fill = self._nan in _FILLED
        return Category(column=column.name, kind="category", values=values, encode=self._encode, fill=fill)

    def _encoded_targets(self, frame: pl.DataFrame) -> Tensor:
        if (names := self._preprocess.classes) is None:
            values = [floats(frame[one["column"]]) for one in self._preprocess.targets]
            return self._preprocess.scaled(torch.from_numpy(np.stack(values, axis=1)))
        column = frame[self._preprocess.targets[0]["column"]]
        indices = index_in(as_names(column), names)
        if bool((indices == len(names)).any()):
            row = int(np.argmax(indices == len(names)))
            raise refusal(self.source, f"{column.name} is {as_names(column)[row]!r} in {self._place_of(row)}", names)
        return torch.from_numpy(indices.copy())


def _as_category(name: str) -> str:
    return quoting.typed("data.categories", [name])
