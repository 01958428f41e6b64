"""Tables in files: CSV and Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data import files
from trainer.data.tables import Table
from trainer.errors import refusal

if TYPE_CHECKING:
    import polars as pl


class CSV(Table):
    """A CSV file in UTF-8 whose first line names the columns; see Table."""

    def _read(self, path: str, key: str) -> pl.DataFrame:
        if self._separator is not None and len(self._separator) != 1:
            raise refusal(f"data.separator={self._separator}", "is not one character")
        self.files = (*self.files, Path(path))
        return files.read_csv(Path(path), key, self._separator, self._words.names)

    def _place(self, row: int, part: str) -> str:
        file = self.files[-1 if part else 0]
        separator = self._separator or files.separator_of(file)
        line = files.line_of(file, int(self._rows[part][row]), separator, missing=self._words.names)
        return f"line {line:,}" + (f" of {file}" if part else "")


class Parquet(Table):
    """A Parquet file; see Table."""

    def _read(self, path: str, key: str) -> pl.DataFrame:
        if self._separator is not None:
            raise refusal("data.separator", "a Parquet file has no separator")
        self.files = (*self.files, Path(path))
        return files.read_parquet(Path(path), key)
