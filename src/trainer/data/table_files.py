"""Tables in files: CSV and Parquet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data import files
from trainer.data.tables import Encode, Missing, Table
from trainer.errors import refusal

if TYPE_CHECKING:
    import polars as pl


class TableFile(Table, ABC):
    """A table in a file.

    Args:
        path: The file.
        target: The column to predict; several must be numbers.
        columns: The inputs; null is all others.
        exclude: Columns that are not inputs.
        categories: Columns of numbers that are names all the same, as postal codes are.
        encode: onehot or index.
        classes: Whether the target is a class; null finds out.
        nan: error, drop or mean.
        standardize: Whether numbers get the mean 0 and the deviation 1.
        validation: Fraction of the rows held out.
        split: A column that says train or validation.
        validation_path: A file of the rows held out.
        separator: What stands between the cells of a CSV file; null finds out.

    Raises:
        UsageError: A file can't be read, or the columns are not what the settings say.
    """

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
    ) -> None:
        self._separator = separator
        self.files = tuple(Path(one) for one in (path, validation_path) if one is not None)
        super().__init__(
            self._read(Path(path), "data.path"),
            target=target,
            columns=columns,
            exclude=exclude,
            categories=categories,
            encode=encode,
            classes=classes,
            nan=nan,
            standardize=standardize,
            validation=validation,
            split=split,
            apart=None if validation_path is None else self._read(Path(validation_path), "data.validation_path"),
            source=f"data.path={path}",
        )

    @abstractmethod
    def _read(self, path: Path, key: str) -> pl.DataFrame:
        """Return the table in a file, which a setting names."""


class CSV(TableFile):
    """A CSV file in UTF-8 whose first line names the columns; see TableFile."""

    def _read(self, path: Path, key: str) -> pl.DataFrame:
        if self._separator is not None and len(self._separator) != 1:
            raise refusal(f"data.separator={self._separator}", "is not one character")
        return files.read_csv(path, key, self._separator)

    def _place(self, row: int, part: str) -> str:
        file = self.files[-1 if part else 0]
        separator = self._separator or files.separator_of(file)
        return f"line {files.line_of(file, int(self._rows[part][row]), separator):,}" + (f" of {file}" if part else "")


class Parquet(TableFile):
    """A Parquet file; see TableFile."""

    def _read(self, path: Path, key: str) -> pl.DataFrame:
        if self._separator is not None:
            raise refusal("data.separator", "a Parquet file has no separator")
        return files.read_parquet(path, key)
