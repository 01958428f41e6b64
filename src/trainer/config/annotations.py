"""Checks plain config values against type annotations and says what an annotation allows."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

from trainer.config.secrets import MARK, is_secret
from trainer.errors import UsageError, nearest, refusal
from trainer.text import is_number, show

_SEQUENCES = (list, tuple, Sequence, typing.get_origin(typing.Iterable[int]))
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a section"}


def fits(value: Any, kind: Any) -> tuple[bool, Any]:
    """Return whether a plain value fits a type annotation, and the value converted (1e5 to an integer).

    No value fits an annotation that allows no plain value (a Tensor, a Callable).
    """
    if kind is Any:
        return True, value
    if kind in (None, type(None)):
        return value is None, value
    if kind in (str, bool):
        return isinstance(value, kind), value
    if kind is int:
        whole = is_number(value) and math.isfinite(value) and value == int(value)
        return whole, int(value) if whole else value
    if kind is float:
        return is_number(value), value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return next((hit for hit in (fits(value, a) for a in arguments) if hit[0]), (False, value))
    if origin is Literal:
        return value in arguments, value
    if origin in _SEQUENCES or kind in _SEQUENCES:
        return _fits_sequence(value, origin, arguments)
    if kind is dict or origin is dict:
        return isinstance(value, dict), value
    return isinstance(kind, type) and isinstance(value, kind), value


def describe(kind: Any) -> str:
    """Return in words which values an annotation allows; empty if it allows no plain value."""
    if kind in _NAMES:
        return _NAMES[kind]
    if kind in (None, type(None)):
        return "null"
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) or origin is dict:
        return "a section"
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(filter(None, map(describe, arguments))))
    if origin in _SEQUENCES or kind in _SEQUENCES:
        inner = describe(arguments[0]).removeprefix("a ") if arguments else ""
        example = "[a,b]" if inner == "text" else "[8,8]"
        return f"a list of {inner}s, as in {example}" if inner else "a list"
    return ""


def choices(kind: Any) -> list[str]:
    """Return the words that an annotation allows; [] if it is not a choice of words."""
    if typing.get_origin(kind) is Literal:
        return [a for a in typing.get_args(kind) if isinstance(a, str)]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [word for argument in typing.get_args(kind) for word in choices(argument)]
    return []


def misfit(key: str, value: Any, kind: Any) -> UsageError:
    """Return the error for a value that does not fit the annotation of `key`."""
    if value is None:
        return refusal(f"{key}=null", "needs a value", describe(kind))
    if value == "???":
        return refusal(key, f"has no value; add {key}=VALUE", describe(kind))
    words, shown = choices(kind), MARK if is_secret(key) else show(value)
    if words:
        near = nearest(str(value), words)
        return refusal(f"{key}={shown}", "no such choice", describe(kind), near and f"{key}={near}")
    is_bare = describe(kind).startswith("text") and isinstance(value, bool | int | float)
    return refusal(f"{key}={shown}", f"is not {describe(kind)}", (), f"""{key}="'{shown}'\"""" if is_bare else None)


def _fits_sequence(value: Any, origin: Any, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    if not isinstance(value, list | tuple):
        return False, value
    kinds = [a for a in arguments if a is not Ellipsis]
    if not kinds:
        return True, list(value)
    if origin is tuple and Ellipsis not in arguments:
        if len(kinds) != len(value):
            return False, value
    else:
        kinds = kinds[:1] * len(value)
    items = [fits(item, kind) for item, kind in zip(value, kinds, strict=True)]
    return all(ok for ok, _ in items), [converted for _, converted in items]
