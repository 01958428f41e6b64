"""Reads tables from files with polars; an error names the line of the file."""

from __future__ import annotations

import functools
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data import csv_text, packed
from trainer.data.csv_text import Form, Head
from trainer.errors import UsageError, lacking, refusal
from trainer.files import data_file

if TYPE_CHECKING:
    import polars as pl

MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None"]  # cells that mean a missing value
_KEPT = 2**26  # largest file in bytes whose table is kept for the next job of a sweep


def load_polars() -> Any:
    """Import polars.

    Raises:
        UsageError: polars is not installed.
    """
    try:
        import polars
    except ImportError as error:
        raise lacking("tables", "polars", "data") from error
    return polars


def opened(path: Path, key: str) -> io.BufferedReader:
    """Open a data file.

    Args:
        path: The file.
        key: The setting that names the file, for messages.

    Raises:
        UsageError: The file can't be read, or it is empty.
    """
    what = f"{key}={path}"
    try:
        file = data_file.opened(path)
    except FileNotFoundError as error:
        raise refusal(what, f"no such file: {path.absolute()}") from error
    except IsADirectoryError as error:
        raise refusal(what, f"{path.absolute()} is a directory, not a file") from error
    except (OSError, ValueError) as error:  # ValueError: the path contains a null byte
        reason = getattr(error, "strerror", None) or error
        raise refusal(what, f"{path.absolute()} can't be read: {reason}") from error
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise refusal(what, "the file is empty")
    return file


def read_csv(path: Path, key: str, form: Form, missing: Sequence[str] = ("",)) -> pl.DataFrame:
    """Return a CSV file as a table of text, with null for missing cells.

    Args:
        path: The file, in UTF-8, possibly compressed.
        key: The setting that names the file, for messages.
        form: The form of the file.
        missing: The words that mean a missing cell; a line of nothing else is blank.

    Raises:
        UsageError: The file is not such a table; the message names the line.
    """
    with opened(path, key) as file:
        found = os.fstat(file.fileno())
        version = (found.st_mtime_ns, found.st_size, found.st_ino)
        kept = _kept(path, key, form, tuple(missing), version) if found.st_size <= _KEPT else []
        if not kept:
            kept.append(_read_csv(file, path, f"{key}={path}", form, missing))
        return kept[0]


@functools.lru_cache(maxsize=1)
def _kept(path: Path, key: str, form: Form, missing: tuple[str, ...], version: tuple[int, ...]) -> list[pl.DataFrame]:
    """Return the cache of the last table read: the same list for the same arguments, empty at first."""
    return []


def _read_csv(
    packed_file: io.BufferedReader, path: Path, what: str, form: Form, missing: Sequence[str]
) -> pl.DataFrame:
    polars = load_polars()
    with _prepared(packed_file, path, what, form, missing) as (file, head, lazy):
        try:
            frame: pl.DataFrame = lazy.collect()
        except polars.exceptions.PolarsError as error:
            raise _explained(file, what, head.separator, error) from error
        if frame[head.names[-1]].null_count():  # as in a line with too few cells
            csv_text.require_even(file, what, head.separator)
    frame = _without_blank_lines(frame)
    if frame.height == 0:
        raise refusal(what, "has a header but no rows" if form.header else "has no rows")
    return frame


def csv_parts(path: Path, key: str, rows: int, form: Form) -> Iterator[pl.DataFrame]:
    """Yield a CSV file in parts of about `rows` rows, cells as text, with null for empty ones.

    Raises:
        UsageError: The file is not such a table; the message names the line.
    """
    polars = load_polars()
    what = f"{key}={path}"
    with opened(path, key) as packed_file, _prepared(packed_file, path, what, form) as (file, head, lazy):
        is_even = False
        try:
            for part in lazy.collect_batches(chunk_size=rows, maintain_order=True):
                if not is_even and part[head.names[-1]].null_count():  # as in a line with too few cells
                    csv_text.require_even(file, what, head.separator)
                    is_even = True
                yield _without_blank_lines(part)
        except polars.exceptions.PolarsError as error:
            raise _explained(file, what, head.separator, error) from error


@contextmanager
def _prepared(
    packed_file: io.BufferedReader, path: Path, what: str, form: Form, missing: Sequence[str] = ("",)
) -> Iterator[tuple[io.BufferedReader, Head, pl.LazyFrame]]:
    """Yield the unpacked content of a CSV file, its start, and the lazy table."""
    with ExitStack() as stack:
        file = stack.enter_context(packed.unpacked(packed_file, what))
        if file.read(4) == b"PAR1":
            raise refusal(what, "is a Parquet file", (), "data=parquet")
        name = data_file.name_of(file, path) if file is packed_file else packed.name_of(file)
        head = csv_text.head_of(file, what, form)
        if not csv_text.is_plain(file, head.separator, len(head.names)):
            plain = stack.enter_context(packed.temporary())
            csv_text.rewrite(file, what, head, plain)
            name = packed.name_of(plain)
        yield file, head, _scan(name, head, form.header, missing)


def _without_blank_lines(frame: pl.DataFrame) -> pl.DataFrame:
    if frame.width == 1 or not frame.to_series(-1).null_count():
        return frame
    polars = load_polars()
    first, rest = polars.nth(0), polars.nth(list(range(1, frame.width)))
    is_blank = first.is_null() | (first.str.strip_chars(" \t") == "")
    return frame.filter(~(is_blank & polars.all_horizontal(rest.is_null())))


def as_text(column: pl.Series, missing: Sequence[str]) -> pl.Series:
    """Return a column of text with cells stripped of blanks, and null for empty ones and words that mean missing."""
    text = column.str.strip_chars(" \t")
    return text.set(text.is_in(["", *missing]), None)


def as_numbers(column: pl.Series, missing: Sequence[str], decimal: str = ".") -> tuple[pl.Series, pl.Series]:
    """Return a column as float64, with null for what is no number, and which cells are neither number nor missing.

    Args:
        column: The cells.
        missing: The words that mean a missing cell; numbers among them may be written with a point or with `decimal`.
        decimal: The decimal mark of numbers that are text.
    """
    polars = load_polars()
    if column.dtype in (polars.Categorical, polars.Enum):
        column = column.cast(polars.String)
    if not (column.dtype.is_numeric() or column.dtype in (polars.String, polars.Boolean, polars.Null)):
        return polars.Series(column.name, [None] * column.len(), dtype=polars.Float64), column.is_not_null()
    numbers = _floats(column, decimal)
    if numbers.null_count() > column.null_count() and column.dtype == polars.String:
        column = as_text(column, missing)
        numbers = _floats(column, decimal)
    wrong = numbers.is_null() & column.is_not_null()
    words = polars.Series(missing, dtype=polars.String)
    values = polars.concat([_floats(words, mark) for mark in {".", decimal}])
    if finite := values.filter(values.is_finite()).to_list():
        numbers = numbers.set(numbers.is_in(finite).fill_null(False), None)
    return numbers, wrong


def _floats(column: pl.Series, decimal: str) -> pl.Series:
    polars = load_polars()
    if decimal != "." and column.dtype == polars.String:  # a cell with a point is no number then
        column = column.str.replace_all(".", "?", literal=True).str.replace(decimal, ".", literal=True)
    return column.cast(polars.Float64, strict=False)


def _scan(name: str, head: Head, has_header: bool, missing: Sequence[str]) -> pl.LazyFrame:
    """Return a CSV file as a lazy table of text, without inferring types."""
    return load_polars().scan_csv(  # type: ignore[no-any-return]
        name,
        separator=head.separator,
        has_header=has_header,
        infer_schema=False,
        null_values=["", *missing],
        new_columns=head.names,
        raise_if_empty=False,
        glob=False,
    )


def read_parquet(path: Path, key: str) -> pl.DataFrame:
    """Return a Parquet file as a table.

    Raises:
        UsageError: The file is not a Parquet file, or has no rows.
    """
    polars = load_polars()
    with opened(path, key) as file:
        try:
            frame: pl.DataFrame = polars.read_parquet(data_file.name_of(file, path), glob=False)
        except (polars.exceptions.PolarsError, OSError) as error:
            raise _no_parquet(path, key, error) from error
    if frame.height == 0:
        raise refusal(f"{key}={path}", "has no rows")
    return frame


def parquet_parts(path: Path, key: str, rows: int) -> Iterator[pl.DataFrame]:
    """Yield a Parquet file in parts of about `rows` rows.

    Raises:
        UsageError: The file is not a Parquet file.
    """
    polars = load_polars()
    with opened(path, key) as file:
        try:
            parts = polars.scan_parquet(data_file.name_of(file, path), glob=False)
            yield from parts.collect_batches(chunk_size=rows, maintain_order=True)
        except (polars.exceptions.PolarsError, OSError) as error:
            raise _no_parquet(path, key, error) from error


def _no_parquet(path: Path, key: str, error: Exception) -> UsageError:
    return refusal(f"{key}={path}", f"is not a Parquet file: {_first_line(error)}")


def line_of(path: Path, row: int, form: Form, key: str = "data.path", missing: Sequence[str] = ("",)) -> int:
    """Return the number of the line where a row begins; rows are counted from 0 after the header."""
    what = f"{key}={path}"
    with opened(path, key) as packed_file, packed.unpacked(packed_file, what) as file:
        separator = csv_text.head_of(file, what, form).separator
        found = csv_text.records(file, what, separator)
        if form.header:
            next(found, None)
        lines = (line for line, cells in found if not _is_empty(cells, missing))
        return next(itertools.islice(lines, row, None), row + 2)


def _is_empty(cells: list[str], missing: Sequence[str]) -> bool:
    """Return whether a record is left out of tables, as `_without_blank_lines` does."""
    words = {"", *missing}
    first, *rest = cells
    return bool(rest) and (first in words or not first.strip(" \t")) and all(cell in words for cell in rest)


def _explained(file: io.BufferedReader, what: str, separator: str, error: Exception) -> UsageError:
    if "utf-8" in str(error).lower():
        return csv_text.not_utf8(file, what)
    try:
        csv_text.require_even(file, what, separator)
    except UsageError as found:
        return found
    return refusal(what, f"can't be read as CSV: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
