"""Reads single fields of a JSON file that listings go through by the thousand: status.json and sweep.json."""

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
    """Return the fields of an object, not decoded yet."""
    try:
        if not text.isascii():
            text.decode()  # msgspec looks at a text when it decodes it
        return _FIELDS.decode(text)
    except RecursionError as error:
        raise Unreadable("is nested too deeply") from error
    except msgspec.DecodeError:
        # It refuses half of a surrogate pair, which stands for a name of a file that is no UTF-8.
        data = plain_json.decoded(text.decode())
        plain_json.require_shallow(data)
        if not isinstance(data, dict):
            raise Unreadable("holds no object") from None
        return data


def _value(raw: msgspec.Raw) -> Any:
    text = bytes(raw)
    value = _VALUE.decode(text)
    if len(text) > 2 * plain_json.DEEPEST and text.count(b"{") + text.count(b"[") > plain_json.DEEPEST:
        plain_json.require_shallow(value)
    return value


class Fields(Mapping[str, Any]):
    """The fields of a JSON file that have the kinds that a TypedDict gives them; any other is passed over.

    A field is decoded and checked when it is asked for: of thousands of files only a few fields are. Control
    characters in texts are escaped, which a terminal would obey.

    Args:
        path: The file.
        kind: The TypedDict.

    Raises:
        OSError: It can't be read.
        ValueError: It is no JSON object, or more than such a file may hold.
    """

    __slots__ = ("_checks", "_fields", "_is_plain")

    def __init__(self, path: str | Path, kind: Any) -> None:
        text = content(path)
        if len(text) > MOST_CONTAINERS:  # else it can't hold more, and to count takes as long as to decode
            plain_json.require_few(text)
        self._is_plain = plain_json.is_plain(text)
        self._checks = plain_json.checks(kind)
        fields = _fields(text)
        self._fields = fields if self._is_plain else {printable(key): value for key, value in fields.items()}

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, the default where there is none or one of another kind."""
        if (raw := self._fields.get(key, _NONE)) is _NONE:
            return default
        try:
            value = _value(raw) if type(raw) is msgspec.Raw else raw
        except (ValueError, RecursionError):  # as a number that none of Python's holds
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
        """Yield the keys whose values are of their kinds."""
        return (key for key in self._fields if self.get(key, _NONE) is not _NONE)

    def __len__(self) -> int:
        """Count them."""
        return sum(1 for _ in self)
