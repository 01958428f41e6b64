"""Reads single fields of status.json and sweep.json, fast enough to list thousands of runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from trainer.errors import printable
from trainer.files import plain_json
from trainer.files.reading import MOST_CONTAINERS, Unreadable, content

_NONE = object()
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder()


def _fields(text: bytes) -> dict[str, Any]:
    try:
        if not text.isascii():
            text.decode()  # msgspec validates UTF-8 only where it decodes
        return _FIELDS.decode(text)
    except RecursionError as error:
        raise Unreadable("is nested too deeply") from error
    except msgspec.DecodeError:
        # msgspec rejects lone surrogates, which represent file names that aren't UTF-8.
        data = plain_json.decoded(text.decode())
        plain_json.require_shallow(data)
        if not isinstance(data, dict):
            raise Unreadable("is not a JSON object") from None
        return data


def _value(raw: msgspec.Raw) -> Any:
    text = bytes(raw)
    value = _VALUE.decode(text)
    if len(text) > 2 * plain_json.DEEPEST and text.count(b"{") + text.count(b"[") > plain_json.DEEPEST:
        plain_json.require_shallow(value)
    return value


class Fields(Mapping[str, Any]):
    """The fields of a JSON file, without those whose values do not have the types that a TypedDict declares.

    A field is decoded and checked when it is read, since a listing reads only a few fields of each file. Control
    characters in strings are escaped, because a terminal would obey them.

    Args:
        path: The file.
        kind: The TypedDict.

    Raises:
        OSError: The file can't be read.
        ValueError: The file is not a JSON object or exceeds a limit.
    """

    __slots__ = ("_checks", "_fields", "_is_plain")

    def __init__(self, path: str | Path, kind: Any) -> None:
        text = content(path)
        if len(text) > MOST_CONTAINERS:  # a shorter text can't exceed the limit, and counting is as slow as decoding
            plain_json.require_few(text)
        self._is_plain = plain_json.is_plain(text)
        self._checks = plain_json.checks(kind)
        fields = _fields(text)
        self._fields = fields if self._is_plain else {printable(key): value for key, value in fields.items()}

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default if it is missing or of another type."""
        if (raw := self._fields.get(key, _NONE)) is _NONE:
            return default
        try:
            value = _value(raw) if type(raw) is msgspec.Raw else raw
        except (ValueError, RecursionError):  # such as a number outside the range of a float
            return default
        if not self._is_plain:
            value = plain_json.escaped(value)
        check = self._checks.get(key)
        return value if check is None or check(value) else default

    def __getitem__(self, key: str) -> Any:
        """Return a value."""
        if (value := self.get(key, _NONE)) is _NONE:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        """Yield the keys whose values have the declared types."""
        return (key for key in self._fields if self.get(key, _NONE) is not _NONE)

    def __len__(self) -> int:
        """Return the number of these keys."""
        return sum(1 for _ in self)
