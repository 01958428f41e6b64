"""Reads JSON and JSON-lines files with limits, writes JSON, and checks data against a TypedDict."""

from __future__ import annotations

import functools
import json
import math
import os
import types
import typing
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from trainer.errors import printable
from trainer.files.reading import (
    LONGEST_ROW,
    MOST_CONTAINERS,
    MOST_PREPROCESS,
    MOST_PREPROCESS_VALUES,
    MOST_VALUES,
    Unreadable,
    content,
    opened,
)
from trainer.text import is_number

Check = Callable[[Any], bool]

DEEPEST = 100  # levels of nesting; protects recursive code
_BLOCK = 2**20  # bytes read at a time


@functools.cache
def has_shape(kind: Any) -> Check:
    """Return a function that checks whether a value has a type: a TypedDict, or a dict, list or union of plain types.

    Keys that a TypedDict does not name may hold any value.
    """
    check, sure = _check(kind), _sure(kind)
    return (lambda value: type(value) in sure or check(value)) if sure else check


def _check(kind: Any) -> Check:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: True
    if kind in (str, dict):
        return lambda value: isinstance(value, kind)
    if kind is int:  # the common case first, because it is fast
        return lambda value: (type(value) is int and 0 <= value < 2**63) or (is_number(value) and value % 1 == 0)
    if origin in (typing.Union, types.UnionType):
        either = list(map(has_shape, arguments))
        return lambda value: any(check(value) for check in either)
    if typing.is_typeddict(kind):
        return _dict_with(checks(kind), kind.__required_keys__)
    if origin is dict:
        keys, values = map(_all_of, arguments)
        return lambda value: isinstance(value, dict) and keys(value) and values(value.values())
    if origin is list:
        items = _all_of(*arguments)
        return lambda value: isinstance(value, list) and items(value)
    if kind is float:
        return is_number
    if origin is typing.Literal:
        return lambda value: value in arguments
    return lambda value: isinstance(value, kind)


def _sure(kind: Any) -> frozenset[type]:
    """Return the classes all of whose instances have a type: testing the class is faster than checking the value."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return frozenset[type]().union(*map(_sure, typing.get_args(kind)))
    return frozenset({kind} & {str, bool, float, types.NoneType})


@functools.cache
def checks(kind: Any) -> dict[str, Check]:
    """Return, for each key of a TypedDict, a function that checks whether a value has the declared type."""
    return {key: has_shape(hint) for key, hint in typing.get_type_hints(kind).items()}


def _all_of(kind: Any) -> Callable[[Collection[Any]], bool]:
    if kind is Any:
        return lambda values: True
    check, sure = has_shape(kind), _sure(kind)
    return lambda values: sure.issuperset(map(type, values)) or all(map(check, values))


def _dict_with(inner: dict[str, Check], required: frozenset[str]) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, dict) or not required <= value.keys():
            return False
        return all(inner[key](item) for key, item in value.items() if key in inner)

    return check


def finite(value: Any) -> Any:
    """Return a copy of data in which numbers that are not finite are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return value


def as_json(data: dict[str, Any], in_ascii: bool = True) -> bytes:
    """Return data as the content of a JSON file, one line per key; indenting every level takes four times as long."""
    encode = json.JSONEncoder(allow_nan=False, ensure_ascii=in_ascii).encode
    items = (f" {encode(key)}: {encode(value)}" for key, value in data.items())
    return ("{\n" + ",\n".join(items) + "\n}\n").encode()


def as_indented_json(data: Any) -> bytes:
    """Return data as the content of a JSON file with every level indented."""
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def _refuse(constant: str) -> None:
    raise Unreadable(f"contains {constant}")


_JSON = json.JSONDecoder(parse_constant=_refuse)


def json_data(path: str | Path, as_is: bool = False) -> Any:
    """Return the data of a JSON file, with control characters in strings escaped, because a terminal would obey them.

    Args:
        path: The file.
        as_is: Whether to leave strings unescaped, for callers that compare them rather than print them.

    Raises:
        OSError: The file can't be read.
        ValueError: The file is not JSON or exceeds a limit.
    """
    return _json_data(content(path), as_is, MOST_VALUES)


def preprocess_data(path: str | Path) -> Any:
    """Return the data of a preprocess.json with strings unescaped; raises the same errors as `json_data`."""
    return _json_data(content(path, MOST_PREPROCESS), True, MOST_PREPROCESS_VALUES)


def _json_data(text: bytes, as_is: bool, values: int) -> Any:
    containers = require_few(text, values=values)
    stays = as_is or is_plain(text)
    characters = text.decode()
    del text
    data = decoded(characters)
    if containers > DEEPEST:
        require_shallow(data)
    return data if stays else escaped(data)


def is_plain(text: bytes) -> bool:
    """Return whether the strings in JSON text certainly contain no control characters.

    In ASCII, JSON can only write them as escapes, except for DEL.
    """
    return text.isascii() and b"\\" not in text and b"\x7f" not in text


def require_few(text: bytes, containers: int = MOST_CONTAINERS, values: int = MOST_VALUES) -> int:
    """Return an upper bound on the number of lists and dicts in JSON text, which includes brackets in strings.

    Raises:
        Unreadable: There are too many of them, or too many values: decoding them could exhaust memory.
    """
    found = text.count(b"{") + text.count(b"[")
    if found > containers:
        raise Unreadable(f"has {found:,} lists and dicts, more than the limit of {containers:,}")
    if (commas := text.count(b",")) > values:
        raise Unreadable(f"has {commas:,} values, more than the limit of {values:,}")
    return found


def decoded(text: str) -> Any:
    """Return the data in JSON text.

    Raises:
        ValueError: The text is not JSON.
    """
    try:
        return _JSON.decode(text)
    except RecursionError as error:
        raise Unreadable("is nested too deeply") from error


def json_lines(path: Path) -> Iterator[Any]:
    """Yield the data in each line of a JSON-lines file.

    Raises:
        OSError: The file can't be read.
        ValueError: A line is not JSON; the message gives its number.
    """
    with os.fdopen(opened(path), "rb") as file:
        for number, line in enumerate(iter(partial(file.readline, LONGEST_ROW), b""), 1):
            try:
                yield _JSON.decode(line.decode())
            except (ValueError, RecursionError) as error:
                raise Unreadable(f"line {number}: {error}") from error


def readable_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects in a JSON-lines file and skip damaged lines; reads a block at a time, so any size is fine.

    Raises:
        OSError: The file can't be read.
        Unreadable: A line is too long.
    """
    with os.fdopen(opened(path), "rb") as file:
        rest = b""
        while block := file.read(_BLOCK):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if len(rest) > LONGEST_ROW:
                raise Unreadable(f"has a row of more than {LONGEST_ROW:,} bytes")
            yield from _objects(lines)
        yield from _objects([rest])


def _objects(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the objects in complete lines: parsed all at once, which is fast, or one by one if a line is damaged."""
    try:
        rows = json.loads(b"[" + b",".join(filter(None, lines)) + b"]")
    except (ValueError, RecursionError):
        if len(lines) > 1:
            for line in lines:
                yield from _objects([line])
        return
    yield from (row for row in rows if isinstance(row, dict))


def require_shallow(data: Any) -> None:
    """Check the nesting of data, level by level: of many containers, most hold no others.

    Raises:
        Unreadable: The data are nested too deeply.
    """
    level = [data]
    for _ in range(DEEPEST + 1):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [one for values in inner for one in values if isinstance(one, dict | list)]
        if not level:
            return
    raise Unreadable("is nested too deeply")


def escaped(data: Any) -> Any:
    """Return data with strings escaped; lists and dicts are changed in place, because a copy would take memory."""
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, list):
        data[:] = map(escaped, data)
    elif isinstance(data, dict):
        items = [(printable(key), escaped(value)) for key, value in data.items()]
        data.clear()
        data.update(items)
    return data
