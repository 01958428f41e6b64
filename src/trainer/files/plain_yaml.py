"""Writes and reads the YAML files of runs, which may be untrusted: plain values only, with limits."""

from __future__ import annotations

import copy
import functools
import json
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from trainer.files.reading import Unreadable, content

MOST_BYTES = 2**20
MOST_LEVELS = 32
MOST_VALUES = 10_000
MOST_DIGITS = 100  # of a number; longer and non-decimal numbers are read as strings


def data(path: Path) -> Any:
    """Return the data of a YAML file of plain values.

    Raises:
        OSError: The file can't be read.
        ValueError: The file is not YAML, exceeds a limit, or has aliases, tags or duplicate keys.
    """
    try:
        return copy.deepcopy(_parsed(content(path, MOST_BYTES).decode()))
    except (TypeError, LookupError, AttributeError) as error:  # raised by PyYAML's constructors for malformed values
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Unreadable(f"{where}{problem or ' '.join(str(error).split())}") from error


def require_readable(data: Any) -> None:
    """Check that plain values, once written, can be read back by `data` unchanged.

    Raises:
        ValueError: There are too many values, or one is too long.
    """
    written = text(data)
    if (size := len(written.encode())) > MOST_BYTES:
        raise Unreadable(f"has {size:,} bytes, more than the limit of {MOST_BYTES:,}")
    try:
        _require_plain(written)
        found = yaml.load(written, _PlainLoader)
    except yaml.YAMLError as error:
        raise Unreadable(str(getattr(error, "problem", None) or error)) from error
    if json.dumps(found, default=str) != json.dumps(data, default=str):
        raise Unreadable(f"a number of more than {MOST_DIGITS} digits")


def text(data: Any) -> str:
    """Return plain values as YAML, in their own order."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


@functools.lru_cache(maxsize=4)  # training a run reads its configuration several times
def _parsed(text: str) -> Any:
    _require_plain(text)
    return yaml.load(text, _PlainLoader)


def _require_plain(text: str) -> None:
    """Refuse tags, and aliases and nesting, with which a few bytes could expand to gigabytes."""
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
            if depth + (not inner) > MOST_LEVELS or count > MOST_VALUES:
                most = f"{MOST_LEVELS} levels" if count <= MOST_VALUES else f"{MOST_VALUES:,} values"
                raise yaml.composer.ComposerError(None, None, f"more than {most}", mark)


# The C parser and writer if PyYAML was built with them.
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return, by first character, the patterns of unquoted scalars that are not strings.

    Only decimal numbers count: parsing sexagesimal numbers (1:30:0) takes time quadratic in their length, and Python
    does not print numbers in hexadecimal (0xff).
    """
    kinds = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")
    found = {
        first: [(tag, form) for tag, form in known if tag in kinds]
        for first, known in _Loader.yaml_implicit_resolvers.items()
    }
    digits = f"[0-9]{{1,{MOST_DIGITS}}}"
    whole = re.compile(rf"[-+]?(?:0|(?!0){digits})\Z")
    broken = re.compile(rf"[-+]?(?:{digits}\.(?:{digits})?(?:[eE][-+][0-9]{{1,5}})?|\.inf)\Z|\.nan\Z")
    numbers = [("tag:yaml.org,2002:int", whole), ("tag:yaml.org,2002:float", broken)]
    return found | dict.fromkeys("-+.0123456789", numbers)


class _PlainLoader(_Loader):  # type: ignore[misc]
    """PyYAML's safe loader, restricted to decimal numbers, without dates, and with duplicate keys as errors."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = _resolvers()

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                problem = f"{key.value} is given twice" if isinstance(key, yaml.ScalarNode) else "a key is not a string"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
