"""Tables in files: CSV and Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data import files
from trainer.data.csv_text import Form
from trainer.data.tables import Table
from trainer.errors import refusal

if TYPE_CHECKING:
    import polars as pl


class CSV(Table):
    """A CSV file in UTF-8, possibly compressed; see Table."""

    _width = 0  # number of columns of the file

    def _read(self, path: str, key: str) -> pl.DataFrame:
        self.files = (*self.files, Path(path))
        frame = files.read_csv(Path(path), key, self._form, self._words.names)
        self._width = self._width or frame.width
        if not self._form.header and frame.width != self._width:
            raise refusal(f"{key}={path}", f"has {frame.width} columns, and {self.files[0]} has {self._width}")
        return frame

    def facts(self) -> dict[str, Any]:
        """Return the description of the table for status.json; with its width if its columns go by their numbers."""
        return {**super().facts(), **({} if self._form.header else {"width": self._width})}

    def _place(self, row: int, part: str) -> str:
        file = self.files[-1 if part else 0]
        line = files.line_of(file, int(self._rows[part][row]), self._form, missing=self._words.names)
        return f"line {line:,}" + (f" of {file}" if part else "")


class Parquet(Table):
    """A Parquet file; see Table."""

    def _read(self, path: str, key: str) -> pl.DataFrame:
        for name, value in vars(self._form).items():
            if value != getattr(Form(), name):
                raise refusal(f"data.{name}={value}", "a Parquet file has none")
        self.files = (*self.files, Path(path))
        return files.read_parquet(Path(path), key)

    def _decimal_comma(self, column: pl.Series) -> None:
        """Return no setting: there is no decimal mark in a Parquet file."""
