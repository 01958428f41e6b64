"""Finds where each setting gets its value: the command, lines of config files, or the schema."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from trainer.config import compose, docstrings, option_files, secrets, settings
from trainer.config.arguments import Choice
from trainer.config.catalog import GROUPS, Catalog, near_path, shipped_configs

COMMAND = "the command"
_ROOT = "config.yaml"
_DEFAULTS_KEY = re.compile(r"(override\s+)?(?:optional\s+)?/?(\w+)(?:@.*)?")


class Source(NamedTuple):
    """A place that sets a value.

    Args:
        value: The value set there.
        place: The file, as a user would name it, and the line.
        remark: A remark: the comment beside the value, or the typed word that implies it.
        file: The file; None for the command.
        line: The line, counted from 1; None if unknown.
    """

    value: Any
    place: str
    remark: str = ""
    file: Path | None = None
    line: int | None = None


def of(choice: Choice, catalog: Catalog) -> Mapping[str, list[Source]]:
    """Return the sources of each group and setting of a job by dotted key; the first source wins.

    Args:
        choice: The words of the job.
        catalog: The options that can be selected.
    """
    found: defaultdict[str, list[Source]] = defaultdict(list)
    for key, (default, _) in settings.documented().items():
        known = settings.declared(key)
        if (place := docstrings.place(known.owner, known.name)) is not None:
            found[key].append(of_source(default, place, "the default"))
    for file, section in compose.merged_files(choice.groups, catalog):
        for key, source in _read(file, section):
            found[key].append(source)
    for word in choice.groups:
        group, _, option = word.partition("=")
        found[group].append(Source(None if option == "null" else option, COMMAND))
    for override in choice.values:
        key, (word,) = override.key_or_group, secrets.words([str(override.input_line)])
        for leaf, value in settings.flat({key: override.value()}).items():
            found[leaf].append(Source(value, COMMAND, "" if leaf == key else word))
        if (other := {"steps": "epochs", "epochs": "steps"}.get(key)) is not None:
            found[other].append(Source(None, COMMAND, f"replaced by {word}"))
    return {key: sources[::-1] for key, sources in found.items()}


def of_source(value: Any, place: docstrings.Place, remark: str) -> Source:
    """Return the Source of a default in the source code of a class."""
    return Source(value, f"{place.name}:{place.line}", remark, place.file, place.line)


def _read(file: Path, section: str) -> Iterator[tuple[str, Source]]:
    """Yield the settings of a file by dotted key, and the choices of its defaults list by group."""
    shipped = shipped_configs()
    name = str("configs" / file.relative_to(shipped)) if file.is_relative_to(shipped) else near_path(file)
    text = file.read_text(encoding="utf-8")
    root = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return
    for key, node in root.value:
        if key.value == "defaults":
            for group, value, line in _chosen(node, file == shipped / _ROOT):
                yield group, Source(value, f"{name}:{line}", "", file, line)
    content = option_files.read(file, "")
    lines = {key: _line_and_comment(*nodes, text.splitlines()) for key, nodes in _leaves(root)}
    prefix = f"{section}." if section else ""
    content.pop("defaults", None)
    for leaf, value in settings.flat(content).items():
        number, comment = lines.get(leaf, (None, ""))
        yield f"{prefix}{leaf}", Source(value, name if number is None else f"{name}:{number}", comment, file, number)


def _chosen(node: yaml.Node, of_root: bool) -> Iterator[tuple[str, str | None, int]]:
    """Yield group, option and line of each choice that a defaults list makes for the whole configuration."""
    for item in node.value if isinstance(node, yaml.SequenceNode) else []:
        for key, value in item.value if isinstance(item, yaml.MappingNode) else []:
            match = _DEFAULTS_KEY.fullmatch(key.value)
            if match and match[2] in GROUPS and (of_root or match[1]):
                option = None if value.tag.endswith(":null") else value.value
                yield match[2], option, key.start_mark.line + 1


def _leaves(node: yaml.MappingNode, prefix: str = "") -> Iterator[tuple[str, tuple[yaml.Node, yaml.Node]]]:
    for key, value in node.value:
        if isinstance(value, yaml.MappingNode):
            yield from _leaves(value, f"{prefix}{key.value}.")
        else:
            yield f"{prefix}{key.value}", (key, value)


def _line_and_comment(key: yaml.Node, value: yaml.Node, lines: list[str]) -> tuple[int, str]:
    """Return the line of a setting and the comment after its value."""
    row, column = value.end_mark.line, value.end_mark.column
    after = lines[row][column:].strip() if row < len(lines) else ""
    return key.start_mark.line + 1, after if after.startswith("#") else ""
