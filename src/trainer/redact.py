"""Keeps secrets out of every file and message: values under keys that end in token, secret, password or key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trainer.errors import refusal

MARK = "<redacted>"
_SECRET = re.compile(r"(token|secret|password|key)$", re.IGNORECASE)
_SHORTEST = 4  # characters; shorter values would be found by chance everywhere
_known: set[str] = set()


def is_secret(key: str) -> bool:
    """Say whether the value under a dotted key is a secret."""
    return _SECRET.search(key) is not None


def tree(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as plain data with every secret replaced by a mark."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if is_secret(key) and value is not None and not isinstance(value, bool):
            _note(value)
            found[key] = MARK
        else:
            found[key] = tree(value) if isinstance(value, dict) else value
    return found


def words(typed: Iterable[str]) -> list[str]:
    """Return the words of a command with every secret replaced by a mark."""
    shown = []
    for word in typed:
        key, equals, value = word.partition("=")
        if equals and value and is_secret(key):
            _note(value)
            word = f"{key}={MARK}"
        shown.append(word)
    return shown


def hide(text: str) -> str:
    """Return a text in which the secrets seen so far are replaced by a mark."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, MARK)
    return text


def secrets(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the secrets in settings with their dotted keys."""
    for key, value in data.items():
        if is_secret(key) and value is not None and not isinstance(value, bool):
            yield prefix + key, value
        elif isinstance(value, dict):
            yield from secrets(value, f"{prefix}{key}.")


def filled(data: Mapping[str, Any], values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings with secrets put back where their marks stand.

    Args:
        data: Settings as plain data.
        values: The secrets by their dotted keys.
    """
    found = {}
    for key, value in data.items():
        inner = filled(value, values, f"{prefix}{key}.") if isinstance(value, dict) else value
        found[key] = values.get(prefix + key, inner) if value == MARK else inner
    return found


def require_given(data: Mapping[str, Any]) -> None:
    """Refuse settings that still have a mark where a secret is needed.

    Raises:
        UsageError: They have; names the key.
    """
    for key, value in secrets(data):
        if value == MARK:
            raise refusal(key, "is a secret, which is not kept with a run; it has to be given again", f"{key}=VALUE")


def _note(value: Any) -> None:
    if isinstance(value, dict):
        for inner in value.values():
            _note(inner)
    elif isinstance(value, list):
        for inner in value:
            _note(inner)
    elif len(str(value)) >= _SHORTEST and value != MARK:
        _known.add(str(value).strip("'\""))
