"""Whether data that was read from a file has the shape that a TypedDict describes."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from trainer.config.annotations import fits

Check = Callable[[Any], bool]
_NONE = object()


@functools.cache
def has_shape(kind: Any) -> Check:
    """Return a function that says whether a value is of a kind: a TypedDict, or a dict, list or union of plain ones.

    Keys that a TypedDict does not name may hold anything.
    """
    check, sure = _check(kind), _sure(kind)
    return (lambda value: type(value) in sure or check(value)) if sure else check


class Parts(Mapping[str, Any]):
    """What of a dict has the shape that a TypedDict gives it; nothing of anything else.

    A value is checked when it is asked for: of thousands of files only a few values are.

    Args:
        data: What was read.
        kind: The TypedDict.
    """

    __slots__ = ("_checks", "_data")

    def __init__(self, data: Any, kind: Any) -> None:
        self._data = data if isinstance(data, dict) else {}
        self._checks = _checks(kind)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, the default where there is none or one of another kind."""
        value = self._data.get(key, default)
        check = self._checks.get(key)
        return value if check is None or value is default or check(value) else default

    def __getitem__(self, key: str) -> Any:
        """Return a value."""
        if (value := self.get(key, _NONE)) is _NONE:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        """Yield the keys whose values are of their kinds."""
        return (key for key in self._data if self.get(key, _NONE) is not _NONE)

    def __len__(self) -> int:
        """Count them."""
        return sum(1 for _ in self)


def _check(kind: Any) -> Check:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: True
    if kind in (str, dict):
        return lambda value: isinstance(value, kind)
    if kind is int:  # as most are, else looked at more closely
        return lambda value: (type(value) is int and 0 <= value < 2**63) or fits(value, int)[0]
    if origin in (typing.Union, types.UnionType):
        checks = list(map(has_shape, arguments))
        return lambda value: any(check(value) for check in checks)
    if typing.is_typeddict(kind):
        return _dict_with(_checks(kind), kind.__required_keys__)
    if origin is dict:
        keys, values = map(_all_of, arguments)
        return lambda value: isinstance(value, dict) and keys(value) and values(value.values())
    if origin is list:
        items = _all_of(*arguments)
        return lambda value: isinstance(value, list) and items(value)
    return lambda value: fits(value, kind)[0]


def _sure(kind: Any) -> frozenset[type]:
    """Return types of which any value is of a kind: to look at the type is quicker than to check the value."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return frozenset[type]().union(*map(_sure, typing.get_args(kind)))
    return frozenset({kind} & {str, bool, float, types.NoneType})


@functools.cache
def _checks(kind: Any) -> dict[str, Check]:
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
