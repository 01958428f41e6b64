"""The text of CSV files as Python's csv module reads it; files that polars would read differently are rewritten."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any, Literal, Self, TextIO

import numpy as np

from trainer.errors import UsageError, refusal

SEPARATORS = ",;\t|"
_WRITTEN = {"\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";", "space": " "}  # separators that are hard to type
_CHUNK = 2**22  # bytes
_BOM = b"\xef\xbb\xbf"
_QUOTE, _RETURN, _NEWLINE = b'"\r\n'
_END = "\0"  # a line after the last one: a record of its own unless a quote is open


@dataclass(frozen=True)
class Form:
    """The form of a CSV file.

    Args:
        separator: The character between cells; None detects it.
        header: Whether the first line names the columns; otherwise they are named column_1, column_2, and so on.
        decimal: The decimal mark of numbers.

    Raises:
        UsageError: The separator is not one character.
    """

    separator: str | None = None
    header: bool = True
    decimal: Literal[".", ","] = "."

    def __post_init__(self) -> None:
        """Replace a name of a separator by the separator."""
        if self.separator is None:
            return
        separator = _WRITTEN.get(self.separator, self.separator)
        if len(separator) != 1 or separator == '"' or not (separator == "\t" or " " <= separator <= "~"):
            allowed = f"one ASCII character other than a quote, or {', '.join(_WRITTEN)}"
            raise refusal(f"data.separator={self.separator}", "is not one character", allowed)
        object.__setattr__(self, "separator", separator)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Return the form that the settings of a data set name."""
        known = {name: settings[name] for name in ("separator", "header", "decimal") if settings.get(name) is not None}
        return cls(**known)


@dataclass(frozen=True)
class Head:
    """The start of a CSV file.

    Args:
        names: The names of the columns.
        separator: The character between cells.
    """

    names: list[str]
    separator: str


def head_of(file: io.BufferedReader, what: str, form: Form) -> Head:
    """Return the names of the columns and the separator of a CSV file.

    Raises:
        UsageError: The first line can't be read, or doesn't name the columns.
    """
    with _text(file, "surrogateescape") as text:
        first = next((line for line in text if line.strip()), "")
    separator = form.separator or _detected(first, form.decimal)
    _, cells = next(records(file, what, separator, errors="surrogateescape"), (1, []))
    if not cells:
        raise refusal(what, "has nothing but blank lines")
    if any("\udc80" <= c <= "\udcff" for cell in cells for c in cell):
        raise not_utf8(file, what)
    if not form.header:
        return Head([f"column_{number}" for number in range(1, len(cells) + 1)], separator)
    names = [name.strip() for name in cells]
    for name, count in Counter(names).items():
        if count > 1:
            reason = f"two columns are named {name!r}" if name else "a column has no name in the first line"
            raise refusal(what, reason, (), "data.header=false" if any(map(_is_number, names)) else None)
    return Head(names, separator)


def records(
    file: io.BufferedReader, what: str, separator: str, errors: str = "replace"
) -> Iterator[tuple[int, list[str]]]:
    """Yield the records that are not blank, the header first, each with the number of its first line.

    Args:
        file: The file, read from its start.
        what: The setting that names the file and its value, for messages.
        separator: The character between cells.
        errors: Treatment of bytes that are not UTF-8, as for `open`.

    Raises:
        UsageError: A line can't be read, or a quote is open at the end of the file.
    """
    csv.field_size_limit(sys.maxsize)  # a cell of text may have more than the 128 KiB of the default
    with _text(file, errors) as text:
        reader = csv.reader(chain(text, [_END]), delimiter=separator)
        line, record = 1, None
        try:
            for cells in reader:
                if record is not None:
                    yield record
                record = None if is_blank(cells) else (line, cells)
                line = reader.line_num + 1
        except csv.Error as error:
            raise refusal(what, f"line {line} can't be read as CSV: {error}") from error
    if record is not None and record != (reader.line_num, [_END]):
        raise refusal(what, f'line {record[0]} has a cell that starts with " and never ends', 'a second " there')


def is_blank(cells: list[str]) -> bool:
    """Return whether a record is a blank line: without cells, or nothing but blanks; a cell of two quotes is a cell."""
    return not cells or (len(cells) == 1 and cells[0] != "" and not cells[0].strip(" \t"))


def is_plain(file: io.BufferedReader, separator: str, width: int) -> bool:
    """Return whether polars reads a CSV file as Python's csv module does.

    It does where quotes enclose whole cells, lines end with a newline, and the first line is not blank. In a file of
    one column a blank line is a missing cell to polars.

    Args:
        file: The file.
        separator: The character between cells.
        width: Number of columns.
    """
    file.seek(0)
    if file.read(3) != _BOM:
        file.seek(0)
    around = np.zeros(256, bool)  # bytes that may stand beside a quote outside its cell, or double it
    around[[ord(separator), _QUOTE, _RETURN, _NEWLINE]] = True
    before, chunk, quotes = b"\n", file.read(_CHUNK), 0
    if width == 1 or re.match(rb"[ \t]*[\r\n]", chunk):
        return False
    while chunk:
        following = file.read(_CHUNK)
        if _QUOTE in chunk or _RETURN in chunk:
            data = np.frombuffer(before + chunk + (following[:1] or b"\n"), np.uint8)
            at = np.flatnonzero(data[1:-1] == _QUOTE) + 1
            opens = (np.arange(len(at)) + quotes) % 2 == 0
            returns = np.flatnonzero(data[1:-1] == _RETURN) + 1
            lone = returns[data[returns + 1] != _NEWLINE]
            outside = (np.searchsorted(at, lone) + quotes) % 2 == 0
            if outside.any() or not around[data[np.where(opens, at - 1, at + 1)]].all():
                return False
            quotes += len(at)
        before, chunk = chunk[-1:], following
    return quotes % 2 == 0 and before != b"\r"


def rewrite(file: io.BufferedReader, what: str, head: Head, target: IO[bytes]) -> None:
    """Write the records of a CSV file with every cell quoted.

    Raises:
        UsageError: A record has more or fewer cells than the first one.
    """
    try:
        for _, cells in _even(records(file, what, head.separator, errors="strict"), what):
            quoted = (f'"{cell.replace(chr(_QUOTE), chr(_QUOTE) * 2)}"' for cell in cells)
            target.write((head.separator.join(quoted) + "\n").encode())
    except UnicodeDecodeError as error:
        raise not_utf8(file, what) from error
    target.flush()


def require_even(file: io.BufferedReader, what: str, separator: str) -> None:
    """Refuse a file with a record that has more or fewer cells than the first one."""
    for _ in _even(records(file, what, separator), what):
        pass


def not_utf8(file: io.BufferedReader, what: str) -> UsageError:
    """Return the refusal of a file that is not UTF-8."""
    file.seek(0)
    try:
        file.read().decode()
    except UnicodeDecodeError as error:
        where = f"the byte {error.object[error.start]:#04x} at offset {error.start:,}"
        return refusal(what, f"is not UTF-8: {where}; save it as UTF-8")
    return refusal(what, "is not UTF-8; save it as UTF-8")


def _even(found: Iterator[tuple[int, list[str]]], what: str) -> Iterator[tuple[int, list[str]]]:
    width = None
    for line, cells in found:
        width = len(cells) if width is None else width
        if len(cells) != width:
            count = f"{len(cells)} cell{'s' * (len(cells) != 1)}"
            raise refusal(what, f"line {line} has {count}, but the first line has {width}")
        yield line, cells


def _detected(line: str, decimal: str) -> str:
    """Return the separator that stands most often in a line outside quotes; a decimal mark only if no other does."""
    bare = re.sub(r'"[^"]*"?', "", line)
    return max(SEPARATORS, key=lambda one: (bare.count(one) > 0 and one != decimal, bare.count(one)))


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.,]*\d[\d.,]*", text.strip()) is not None


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
