"""Keeps secrets out of files and messages: the values of keys that end in token, secret, password or key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trainer.errors import refusal

MARK = "<redacted>"
_SECRET = re.compile(r"(token|secret|password|key)$", re.IGNORECASE)
_WITHIN = re.compile(r"(token|secret|password|key)['\"]?\s*[:=]", re.IGNORECASE)
_UNSET = re.compile(r"^([\w.]*(?:token|secret|password|key))[\s:]+(.+)$", re.IGNORECASE)
_COUNTING = re.compile(r"(token|key)$", re.IGNORECASE)
_LEAST = 1000  # smaller numbers are token indices or counts of keys
_LINE = re.compile(r"^(\s*(?:- )?['\"]?[\w.]*(?:token|secret|password|key)['\"]?: ).+$", re.IGNORECASE | re.MULTILINE)
_SHORTEST = 6  # characters; shorter values would match unrelated text
_UNMISTAKABLE = 12  # characters; values this long are hidden within words, too
_known: set[str] = set()


def is_secret(key: str) -> bool:
    """Return whether the value of a dotted key is a secret."""
    return _SECRET.search(key) is not None


def tree(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as plain data with every secret redacted."""
    return {key: _redacted(key, value) for key, value in data.items()}


def _redacted(key: str, value: Any) -> Any:
    if _holds(key, value):
        return MARK
    if isinstance(value, dict):
        return tree(value)
    return [_redacted("", item) for item in value] if isinstance(value, list) else value


def _holds(key: str, value: Any) -> bool:
    """Return whether a value under a secret key is a secret; small numbers and flags are not."""
    if value is None or isinstance(value, bool):
        return False
    counts = isinstance(value, int | float) and abs(value) < _LEAST and _COUNTING.search(key)
    return is_secret(key) and not counts


def know(data: Any) -> None:
    """Redact the secrets of these settings in all later messages."""
    for _, value in secrets(data):
        _note(value)


def words(typed: Iterable[str]) -> list[str]:
    """Return the words of a command with every secret redacted, and redact these secrets in all later messages."""
    shown = []
    for word in typed:
        key, equals, value = word.partition("=")
        if equals and _holds(key, _parsed(value)):
            _note(value)
            word = f"{key}={MARK}"
        elif value[:1] in ("[", "{") and _WITHIN.search(value):
            word = f"{key}={MARK}"
        elif not equals and (match := _UNSET.search(word)):
            _note(match[2])
            word = f"{match[1]} {MARK}"
        shown.append(word)
    return shown


def _parsed(text: str) -> Any:
    """Parse a typed value just far enough to tell whether it can be a secret."""
    if text.lower() in ("", "null", "true", "false"):
        return None
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text


def hide(text: str) -> str:
    """Return a text with all known secrets redacted."""
    for value in sorted(_known, key=len, reverse=True):
        pattern = re.escape(value)
        text = re.sub(pattern if len(value) >= _UNMISTAKABLE else rf"(?<!\w){pattern}(?!\w)", MARK, text)
    return text


def hide_lines(text: str) -> str:
    """Return printed YAML with all known secrets and the values of all secret keys redacted."""
    return _LINE.sub(rf"\1{MARK}", hide(text))


def secrets(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the secrets in settings with their dotted keys; list items are numbered from 0."""
    items = data.items() if isinstance(data, Mapping) else enumerate(data)
    for key, value in items:
        if _holds(str(key), value):
            yield f"{prefix}{key}", value
        elif isinstance(value, dict | list):
            yield from secrets(value, f"{prefix}{key}.")


def filled(data: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Return settings with redacted secrets filled in again.

    Args:
        data: Settings as plain data.
        values: The secrets by their dotted keys.
    """
    if isinstance(data, dict):
        return {key: filled(value, values, f"{prefix}{key}.") for key, value in data.items()}
    if isinstance(data, list):
        return [filled(value, values, f"{prefix}{index}.") for index, value in enumerate(data)]
    return values.get(prefix[:-1], data) if data == MARK else data


def require_given(data: Mapping[str, Any]) -> None:
    """Refuse settings with a redacted secret.

    Raises:
        UsageError: A secret is redacted; names its key.
    """
    for key, value in secrets(data):
        if value == MARK:
            raise refusal(key, "is a secret, which is not stored with a run and must be given again", f"{key}=VALUE")


def _note(value: Any) -> None:
    if isinstance(value, dict):
        for inner in value.values():
            _note(inner)
    elif isinstance(value, list):
        for inner in value:
            _note(inner)
    else:
        text = str(value).strip("'\"")
        if len(text) >= _SHORTEST and text != MARK:
            _known.add(text)
