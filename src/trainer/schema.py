"""Whether data that was read from a file has the shape that a TypedDict describes."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from trainer.values import fits

Check = Callable[[Any], bool]


@functools.cache
def has_shape(kind: Any) -> Check:
    """Return a function that says whether a value is of a kind: a TypedDict, or a dict, list or union of plain ones.

    Keys that a TypedDict does not name may hold anything.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: True
    if kind in (str, dict):
        return lambda value: isinstance(value, kind)
    if origin in (typing.Union, types.UnionType):
        return _any_of([has_shape(argument) for argument in arguments])
    if typing.is_typeddict(kind):
        return _dict_with(_checks(kind), kind.__required_keys__)
    if origin is dict:
        return _dict_of(*map(has_shape, arguments))
    if origin is list:
        return _list_of(*map(has_shape, arguments))
    return lambda value: fits(value, kind)[0]


def parts(data: Any, kind: Any) -> dict[str, Any]:
    """Return what of a dict has the shape that a TypedDict gives it; {} of anything else."""
    if not isinstance(data, dict):
        return {}
    checks = _checks(kind)
    return {key: value for key, value in data.items() if key not in checks or checks[key](value)}


@functools.cache
def _checks(kind: Any) -> dict[str, Check]:
    return {key: has_shape(hint) for key, hint in typing.get_type_hints(kind).items()}


def _any_of(checks: Iterable[Check]) -> Check:
    return lambda value: any(check(value) for check in checks)


def _dict_with(inner: dict[str, Check], required: frozenset[str]) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, dict) or not required <= value.keys():
            return False
        return all(key not in inner or inner[key](item) for key, item in value.items())

    return check


def _dict_of(key_check: Check, item_check: Check) -> Check:
    def check(value: Any) -> bool:
        return isinstance(value, dict) and all(key_check(key) and item_check(item) for key, item in value.items())

    return check


def _list_of(item_check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(item_check, value))
