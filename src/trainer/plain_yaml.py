"""Reads YAML files of runs, which somebody else may have made: plain values of bounded number and depth."""

from __future__ import annotations

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
        return yaml.load(content(path, MOST_BYTES).decode(), _PlainLoader)
    except (TypeError, LookupError, AttributeError) as error:  # a constructor of PyYAML that met nonsense
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Unreadable(f"{where}{problem or ' '.join(str(error).split())}") from error


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader for plain values only: no aliases and no nesting that a few bytes can blow up, no tags."""

    _depth, _count = 0, 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias, which is not allowed here", mark)
        if getattr(self.peek_event(), "tag", None) is not None:  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "a tag, which is not allowed here", mark)
        self._depth += 1
        self._count += 1
        if self._depth > MOST_LEVELS or self._count > MOST_VALUES:
            most = f"{MOST_LEVELS} levels" if self._depth > MOST_LEVELS else f"{MOST_VALUES:,} values"
            raise yaml.composer.ComposerError(None, None, f"more than {most}", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                problem = f"{key.value} is given twice" if isinstance(key, yaml.ScalarNode) else "a key that is no text"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
