"""Reads tables from files with polars; an error names the line of the file."""

from __future__ import annotations

import csv
import functools
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from trainer.errors import UsageError, lacking, refusal
from trainer.files import data_file

if TYPE_CHECKING:
    import polars as pl

MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None"]  # cells that mean a missing value
SEPARATORS = ",;\t|"
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


def read_csv(path: Path, key: str, separator: str | None, missing: Sequence[str] = ("",)) -> pl.DataFrame:
    """Return a CSV file as a table of text, with null for missing cells.

    Args:
        path: The file, in UTF-8; the first line names the columns.
        key: The setting that names the file, for messages.
        separator: The character between cells; None detects it.
        missing: The words that mean a missing cell; a line of nothing else is blank.

    Raises:
        UsageError: The file is not such a table; the message names the line.
    """
    with opened(path, key) as file:
        found = os.fstat(file.fileno())
        version = (found.st_mtime_ns, found.st_size, found.st_ino)
        kept = _kept(path, key, separator, tuple(missing), version) if found.st_size <= _KEPT else []
        if not kept:
            kept.append(_read_csv(file, path, f"{key}={path}", separator, missing))
        return kept[0]


@functools.lru_cache(maxsize=1)
def _kept(
    path: Path, key: str, separator: str | None, missing: tuple[str, ...], version: tuple[int, ...]
) -> list[pl.DataFrame]:
    """Return the cache of the last table read: the same list for the same arguments, empty at first."""
    return []


def _read_csv(
    file: io.BufferedReader, path: Path, what: str, separator: str | None, missing: Sequence[str]
) -> pl.DataFrame:
    polars = load_polars()
    if file.read(4) == b"PAR1":
        raise refusal(what, "is a Parquet file", (), "data=parquet")
    names, separator = _header(file, what, separator)
    try:
        frame: pl.DataFrame = _scan(file, path, names, separator, missing).collect()
    except polars.exceptions.PolarsError as error:
        raise _explained(file, what, separator, error, missing) from error
    if frame[names[-1]].null_count():  # as in a line with too few cells
        _require_even(file, what, separator, missing)
    frame = _without_blank_lines(frame)
    if frame.height == 0:
        raise refusal(what, "has a header but no rows")
    return frame


def csv_parts(path: Path, key: str, rows: int, separator: str | None = None) -> Iterator[pl.DataFrame]:
    """Yield a CSV file in parts of about `rows` rows, cells as text, with null for empty ones.

    Raises:
        UsageError: The file is not such a table; the message names the line.
    """
    polars = load_polars()
    what = f"{key}={path}"
    with opened(path, key) as file:
        names, separator = _header(file, what, separator)
        is_even = False
        try:
            for part in _scan(file, path, names, separator).collect_batches(chunk_size=rows, maintain_order=True):
                if not is_even and part[names[-1]].null_count():  # as in a line with too few cells
                    _require_even(file, what, separator)
                    is_even = True
                yield _without_blank_lines(part)
        except polars.exceptions.PolarsError as error:
            raise _explained(file, what, separator, error) from error


def _without_blank_lines(frame: pl.DataFrame) -> pl.DataFrame:
    if frame.width == 1:
        return frame
    polars = load_polars()
    return frame.filter(~polars.all_horizontal(polars.all().is_null()))


def as_text(column: pl.Series, missing: Sequence[str]) -> pl.Series:
    """Return a column of text with cells stripped of blanks, and null for empty ones and words that mean missing."""
    text = column.str.strip_chars(" \t")
    return text.set(text.is_in(["", *missing]), None)


def as_numbers(column: pl.Series, missing: Sequence[str]) -> tuple[pl.Series, pl.Series]:
    """Return a column as float64, with null for what is no number, and which cells are neither number nor missing."""
    polars = load_polars()
    if column.dtype in (polars.Categorical, polars.Enum):
        column = column.cast(polars.String)
    if not (column.dtype.is_numeric() or column.dtype in (polars.String, polars.Boolean, polars.Null)):
        return polars.Series(column.name, [None] * column.len(), dtype=polars.Float64), column.is_not_null()
    numbers = column.cast(polars.Float64, strict=False)
    if numbers.null_count() > column.null_count() and column.dtype == polars.String:
        column = as_text(column, missing)
        numbers = column.cast(polars.Float64, strict=False)
    wrong = numbers.is_null() & column.is_not_null()
    values = polars.Series(missing, dtype=polars.String).cast(polars.Float64, strict=False)
    if finite := values.filter(values.is_finite()).to_list():
        numbers = numbers.set(numbers.is_in(finite).fill_null(False), None)
    return numbers, wrong


def _scan(
    file: io.BufferedReader, path: Path, names: list[str], separator: str, missing: Sequence[str] = ("",)
) -> pl.LazyFrame:
    """Return a CSV file as a lazy table of text, without inferring types."""
    return load_polars().scan_csv(  # type: ignore[no-any-return]
        data_file.name_of(file, path),
        separator=separator,
        infer_schema=False,
        null_values=["", *missing],
        new_columns=names,
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


def separator_of(path: Path, key: str = "data.path") -> str:
    """Return the detected separator of a CSV file."""
    with opened(path, key) as file:
        return _header(file, f"{key}={path}", None)[1]


def line_of(path: Path, row: int, separator: str, key: str = "data.path", missing: Sequence[str] = ("",)) -> int:
    """Return the number of the line where a row begins; rows are counted from 0 after the header."""
    with opened(path, key) as file:
        for number, (line, _) in enumerate(_records(file, f"{key}={path}", separator, missing)):
            if number == row + 1:
                return line
    return row + 2


@contextmanager
def _text(file: io.BufferedReader, errors: str) -> Iterator[TextIO]:
    """Yield the text of a file from its start, and leave the file open."""
    file.seek(0)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors=errors, newline="")
    try:
        yield text
    finally:
        with suppress(ValueError):  # already closed
            text.detach()


def _header(file: io.BufferedReader, what: str, separator: str | None) -> tuple[list[str], str]:
    with _text(file, "surrogateescape") as text:
        first = text.readline()
        if separator is None:
            separator = max(SEPARATORS, key=first.count)
        text.seek(0)
        try:
            names = [name.strip() for name in next(csv.reader(text, delimiter=separator), [])]
        except csv.Error as error:
            raise refusal(what, f"line 1 can't be read as CSV: {error}") from error
    bad = next((name for name in names if any("\udc80" <= c <= "\udcff" for c in name)), None)
    if bad is not None:
        raise _not_utf8(file, what)
    for name, count in Counter(names).items():
        if count > 1:
            raise refusal(what, f"two columns are named {name!r}" if name else "a column has no name in the first line")
    return names, separator


def _records(
    file: io.BufferedReader, what: str, separator: str, missing: Sequence[str]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the nonblank rows, the header first, each with the number of its first line."""
    with _text(file, "replace") as text:
        reader = csv.reader(text, delimiter=separator)
        line = 1
        try:
            for cells in reader:
                if any(cell and cell not in missing for cell in cells):
                    yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            raise refusal(what, f"line {line} can't be read as CSV: {error}") from error


def _require_even(file: io.BufferedReader, what: str, separator: str, missing: Sequence[str] = ("",)) -> None:
    """Refuse a file with a line that has more or fewer cells than the first line."""
    records = _records(file, what, separator, missing)
    _, header = next(records)
    for line, cells in records:
        if len(cells) != len(header):
            found = f"{len(cells)} cell{'s' * (len(cells) != 1)}"
            raise refusal(what, f"line {line} has {found}, but the first line has {len(header)}")


def _explained(
    file: io.BufferedReader, what: str, separator: str, error: Exception, missing: Sequence[str] = ("",)
) -> UsageError:
    if "utf-8" in str(error).lower():
        return _not_utf8(file, what)
    try:
        _require_even(file, what, separator, missing)
    except UsageError as found:
        return found
    return refusal(what, f"can't be read as CSV: {_first_line(error)}")


def _not_utf8(file: io.BufferedReader, what: str) -> UsageError:
    file.seek(0)
    try:
        file.read().decode()
    except UnicodeDecodeError as error:
        where = f"the byte {error.object[error.start]:#04x} at offset {error.start:,}"
        return refusal(what, f"is not UTF-8: {where}; save it as UTF-8")
    return refusal(what, "is not UTF-8; save it as UTF-8")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
