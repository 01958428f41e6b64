"""JSON from files: read with limits, written, and whether it has the shape that a TypedDict describes."""

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
    MOST_JSON,
    MOST_PREPROCESS,
    MOST_PREPROCESS_VALUES,
    MOST_VALUES,
    Unreadable,
    content,
    opened,
)
from trainer.text import is_number

Check = Callable[[Any], bool]

DEEPEST = 100  # whoever goes through the data level by level must come to the end


@functools.cache
def has_shape(kind: Any) -> Check:
    """Return a function that says whether a value is of a kind: a TypedDict, or a dict, list or union of plain ones.

    Keys that a TypedDict does not name may hold anything.
    """
    check, sure = _check(kind), _sure(kind)
    return (lambda value: type(value) in sure or check(value)) if sure else check


def _check(kind: Any) -> Check:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: True
    if kind in (str, dict):
        return lambda value: isinstance(value, kind)
    if kind is int:  # as most are, else looked at more closely
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
    """Return types of which any value is of a kind: to look at the type is quicker than to check the value."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return frozenset[type]().union(*map(_sure, typing.get_args(kind)))
    return frozenset({kind} & {str, bool, float, types.NoneType})


@functools.cache
def checks(kind: Any) -> dict[str, Check]:
    """Return a function for each key of a TypedDict that says whether a value is of its kind."""
    return {key: has_shape(hint) for key, hint in typing.get_type_hints(kind).items()}


def _all_of(kind: Any) -> Callable[[Collection[Any]], bool]:
    """Return a function that says whether several values are all of a kind."""
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
    """Return the value with null where it is not a finite number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return value


def as_json(data: dict[str, Any], in_ascii: bool = True) -> bytes:
    """Return a file's content, a line for each key: indenting all of it would take four times as long."""
    encode = json.JSONEncoder(allow_nan=False, ensure_ascii=in_ascii).encode
    items = (f" {encode(key)}: {encode(value)}" for key, value in data.items())
    return ("{\n" + ",\n".join(items) + "\n}\n").encode()


def _refuse(constant: str) -> None:
    raise Unreadable(f"holds {constant}")


_JSON = json.JSONDecoder(parse_constant=_refuse)


def json_data(path: str | Path, as_is: bool = False, most: int = MOST_JSON) -> Any:
    """Return what a JSON file holds, with the control characters in its texts escaped, which a terminal would obey.

    Args:
        path: The file.
        as_is: Whether texts are to stay as they are, for whoever compares them with data before showing them.
        most: Bytes that it may have.

    Raises:
        OSError: It can't be read.
        ValueError: It is no JSON, or more than such a file may hold.
    """
    return _json_data(content(path), as_is, MOST_VALUES)


def preprocess_data(path: str | Path) -> Any:
    """Return what a preprocess.json holds, its texts as they are; raises what `json_data` does."""
    return _json_data(content(path, MOST_PREPROCESS), True, MOST_PREPROCESS_VALUES)


def _json_data(text: bytes, as_is: bool, values: int) -> Any:
    containers = require_few(text, values=values)
    is_to_stay = as_is or is_plain(text)
    characters = text.decode()
    del text
    data = decoded(characters)
    if containers > DEEPEST:
        require_shallow(data)
    return data if is_to_stay else escaped(data)


def is_plain(text: bytes) -> bool:
    """Return whether the texts in a text of JSON need no second look: most hold no control character.

    In ASCII, JSON has these as escapes only, but for DEL.
    """
    return text.isascii() and b"\\" not in text and b"\x7f" not in text


def require_few(text: bytes, containers: int = MOST_CONTAINERS, values: int = MOST_VALUES) -> int:
    """Return how many lists and dicts a text of JSON has, at most: brackets within its texts count, too.

    Raises:
        Unreadable: They, or the values, are more than such a file may have; to decode them could fill the memory.
    """
    found = text.count(b"{") + text.count(b"[")
    if found > containers:
        raise Unreadable(f"has {found:,} lists and dicts, more than the {containers:,} that such a file may have")
    if (commas := text.count(b",")) > values:
        raise Unreadable(f"has {commas:,} values, more than the {values:,} that such a file may have")
    return found


def decoded(text: str) -> Any:
    """Return what a text of JSON holds.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return _JSON.decode(text)
    except RecursionError as error:
        raise Unreadable("is nested too deeply") from error


def json_lines(path: Path) -> Iterator[Any]:
    """Yield what the lines of a file hold, each of which is JSON.

    Raises:
        OSError: It can't be read.
        ValueError: A line is no JSON; names it.
    """
    with os.fdopen(opened(path), "rb") as file:
        for number, line in enumerate(iter(partial(file.readline, LONGEST_ROW), b""), 1):
            try:
                yield _JSON.decode(line.decode())
            except (ValueError, RecursionError) as error:
                raise Unreadable(f"line {number}: {error}") from error


def require_shallow(data: Any) -> None:
    """Refuse what is nested too deeply, level by level: most of many containers hold no others.

    Raises:
        Unreadable: It is.
    """
    level = [data]
    for _ in range(DEEPEST + 1):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [one for values in inner for one in values if isinstance(one, dict | list)]
        if not level:
            return
    raise Unreadable("is nested too deeply")


def escaped(data: Any) -> Any:
    """Return the data with its texts escaped, in their own lists and dicts where that can be: a copy takes memory."""
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, list):
        data[:] = map(escaped, data)
    elif isinstance(data, dict):
        items = [(printable(key), escaped(value)) for key, value in data.items()]
        data.clear()
        data.update(items)
    return data
