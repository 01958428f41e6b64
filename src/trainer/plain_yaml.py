"""YAML files of runs: written, and read again, though somebody else may have made them: plain values, not too many."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import yaml

from trainer.reading import Unreadable, content

MOST_BYTES = 2**20
MOST_LEVELS = 32
MOST_VALUES = 10_000


def data(path: Path) -> Any:
    """Return what a YAML file of plain values holds; one with aliases, tags or keys given twice is refused.

    Raises:
        OSError: It can't be read.
        ValueError: It is no such file.
    """
    try:
        return copy.deepcopy(_parsed(content(path, MOST_BYTES).decode()))
    except (TypeError, LookupError, AttributeError) as error:  # a constructor of PyYAML that met nonsense
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Unreadable(f"{where}{problem or ' '.join(str(error).split())}") from error


def require_readable(text: str) -> None:
    """Refuse a text that `data` would refuse, or have no end with.

    Raises:
        ValueError: It is too large.
    """
    if (size := len(text.encode())) > MOST_BYTES:
        raise Unreadable(f"has {size:,} bytes, more than the {MOST_BYTES:,} that such a file may have")
    try:
        _require_plain(text)
    except yaml.YAMLError as error:
        raise Unreadable(str(getattr(error, "problem", None) or error)) from error


def text(data: Any) -> str:
    """Return plain values as YAML, in the order in which they are there."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


@functools.lru_cache(maxsize=4)  # who trains a run looks at its configuration several times
def _parsed(text: str) -> Any:
    _require_plain(text)
    return yaml.load(text, _PlainLoader)


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
            if depth + (not inner) > MOST_LEVELS or count > MOST_VALUES:
                most = f"{MOST_LEVELS} levels" if count <= MOST_VALUES else f"{MOST_VALUES:,} values"
                raise yaml.composer.ComposerError(None, None, f"more than {most}", mark)


# The parser and the writer in C where PyYAML was built with them.
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
