"""Reads files of runs, which somebody else may have made: regular files of bounded size, plain data, no links."""

from __future__ import annotations

import errno
import functools
import json
import os
import pickle
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from trainer.errors import printable

MOST_YAML = 2**20  # bytes
MOST_JSON = 2**26
DEEPEST = 32  # levels of a YAML file
MOST_VALUES = 10_000
_LARGE = 2**27
_DEEPEST_JSON = 100  # whoever goes through the data level by level must come to the end


class Unreadable(ValueError):
    """A file is not what a run would hold; the message says what is wrong, without the path."""


def _refuse(constant: str) -> None:
    raise Unreadable(f"holds {constant}")


_JSON = json.JSONDecoder(parse_constant=_refuse)


def opened(path: Path) -> int:
    """Open a regular file for reading and return its descriptor; links are not followed, pipes not waited for.

    Raises:
        OSError: It can't be opened, or is something else.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def content(path: Path, most: int = MOST_JSON) -> bytes:
    """Return the bytes of a file.

    Raises:
        OSError: It can't be read.
        Unreadable: It has more than `most` bytes.
    """
    descriptor = opened(path)
    try:
        found = os.fstat(descriptor)
        if found.st_size > most:
            raise Unreadable(f"has {found.st_size:,} bytes, more than the {most:,} that such a file may have")
        if found.st_size > _LARGE and found.st_blocks * 512 < found.st_size // 100:
            raise Unreadable(f"claims {found.st_size:,} bytes, and nearly none of them were ever written")
        data = b""
        while chunk := os.read(descriptor, found.st_size - len(data)):
            data += chunk
        return data
    finally:
        os.close(descriptor)


def json_data(path: Path, as_is: bool = False) -> Any:
    """Return what a JSON file holds, with the control characters in its texts escaped, which a terminal would obey.

    Args:
        path: The file.
        as_is: Whether texts are to stay as they are, for whoever compares them with data before showing them.

    Raises:
        OSError: It can't be read.
        ValueError: It is no JSON.
    """
    text = content(path)
    try:
        data = _JSON.decode(text.decode())
    except RecursionError as error:
        raise Unreadable("is nested too deeply") from error
    # Most files need no second look: in ASCII, JSON has control characters as escapes only, but for DEL.
    is_plain = text.isascii() and b"\\" not in text and b"\x7f" not in text
    is_shallow = text.count(b"{") + text.count(b"[") <= _DEEPEST_JSON
    if is_plain and is_shallow:
        return data
    escaped = _printable(data)  # refuses what is nested too deeply
    return data if as_is else escaped


def json_lines(path: Path) -> Iterator[Any]:
    """Yield what the lines of a file hold, each of which is JSON.

    Raises:
        OSError: It can't be read.
        ValueError: A line is no JSON; names it.
    """
    with os.fdopen(opened(path), "rb") as file:
        for number, line in enumerate(iter(partial(file.readline, MOST_JSON), b""), 1):
            try:
                yield _JSON.decode(line.decode())
            except (ValueError, RecursionError) as error:
                raise Unreadable(f"line {number}: {error}") from error


def _printable(data: Any, depth: int = 0) -> Any:
    if isinstance(data, str):
        return printable(data)
    if not isinstance(data, dict | list):
        return data
    if depth == _DEEPEST_JSON:
        raise Unreadable("is nested too deeply")
    if isinstance(data, dict):
        return {printable(key): _printable(value, depth + 1) for key, value in data.items()}
    return [_printable(value, depth + 1) for value in data]


def yaml_data(path: Path) -> Any:
    """Return what a YAML file of plain values holds; one with aliases, tags or keys given twice is refused.

    Raises:
        OSError: It can't be read.
        ValueError: It is no such file.
    """
    try:
        return pickle.loads(_parsed(content(path, MOST_YAML).decode()))
    except (TypeError, LookupError, AttributeError) as error:  # a constructor of PyYAML that met nonsense
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Unreadable(f"{where}{problem or ' '.join(str(error).split())}") from error


@functools.lru_cache(maxsize=4)  # who trains a run looks at its configuration several times
def _parsed(text: str) -> bytes:
    """Return what a YAML text holds, pickled, so that everyone gets data of their own."""
    _require_plain(text)
    return pickle.dumps(yaml.load(text, _PlainLoader))


def _require_plain(text: str) -> None:
    """Refuse aliases and nesting that a few bytes can blow up, and tags."""
    depth = count = 0
    for event in yaml.parse(text, _Loader):
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias, which is not allowed here", mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, "a tag, which is not allowed here", mark)
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            count += 1
            inner = isinstance(event, yaml.CollectionStartEvent)
            depth += inner
            if depth + (not inner) > DEEPEST or count > MOST_VALUES:
                most = f"{DEEPEST} levels" if count <= MOST_VALUES else f"{MOST_VALUES:,} values"
                raise yaml.composer.ComposerError(None, None, f"more than {most}", mark)


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the parser in C where PyYAML was built with it


class _PlainLoader(_Loader):  # type: ignore[misc]
    """PyYAML's safe loader, to which a key that is given twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                problem = f"{key.value} is given twice" if isinstance(key, yaml.ScalarNode) else "a key that is no text"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
