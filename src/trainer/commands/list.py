"""`trainer list`: the groups, options and settings, read from the config folders without torch and Hydra."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from trainer import text
from trainer.config import arguments, settings
from trainer.config.catalog import GROUPS, Catalog, near_path, summary
from trainer.errors import UsageError, nearest, refusal
from trainer.terminal import screen

SETTINGS = "settings"


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, ("--json", *arguments.CONFIG_DIR_FLAGS), "list")
    catalog = words.catalog()
    for warning in catalog.warnings():
        screen.note(f"warning: {warning}")
    if len(words.overrides) == 1 and "=" in words.overrides[0]:
        return _show_option(words.overrides[0], catalog, as_json="json" in words.flags)
    names = words.overrides or list(GROUPS)
    listed = {name: _settings() if name == SETTINGS else _options(_known(name, catalog), catalog) for name in names}
    if "json" in words.flags:
        screen.as_json(listed)
        return 0
    for group, entries in listed.items():
        screen.heading(group, GROUPS.get(group, "set with key=value; an option's own settings as group.key=value"))
        screen.rows(dict(map(_row, entries)))
    _next(names[-1], catalog)
    return 0


def _known(word: str, catalog: Catalog) -> str:
    """Return the group that a word names.

    Raises:
        UsageError: There is no such group; the message suggests the nearest.
    """
    if word in GROUPS:
        return word
    near = SETTINGS if word in settings.documented() else nearest(word, [*GROUPS, SETTINGS]) or catalog.group_of(word)
    raise refusal(f"list {word}", "no such group", [*GROUPS, SETTINGS], near and f"list {near}")


def _options(group: str, catalog: Catalog) -> list[dict[str, Any]]:
    default = catalog.defaults().get(group)
    return [
        {
            "name": name,
            "summary": summary(file),
            "default": name == default,
            "file": str(file),
            "shipped": catalog.is_shipped(file),
        }
        for name, file in catalog.options(group).items()
    ]


def _settings() -> list[dict[str, Any]]:
    known = settings.documented().items()
    return [{"name": name, "summary": doc, "default": default} for name, (default, doc) in known]


def _row(entry: dict[str, Any]) -> tuple[str, str]:
    """Return the two columns of an entry."""
    if "file" not in entry:
        return f"{entry['name']}={text.show(entry['default'])}", entry["summary"]
    marks = ["(default)"] if entry["default"] else []
    if not entry["shipped"]:
        marks.append(f"({near_path(Path(entry['file']))})")
    return entry["name"], " ".join([entry["summary"], *marks]).strip()


def _show_option(word: str, catalog: Catalog, as_json: bool) -> int:
    group, _, name = word.partition("=")
    if group not in GROUPS:
        raise refusal(word, "is not GROUP=OPTION", [f"{group}=OPTION" for group in GROUPS])
    option = catalog.match(group, name)
    entry = next((entry for entry in _options(group, catalog) if entry["name"] == option), None)
    if entry is None:
        raise UsageError(f"{word}: selects nothing")
    if as_json:
        screen.as_json(entry)
        return 0
    for line in Path(entry["file"]).read_text(encoding="utf-8", errors="replace").splitlines():
        screen.say(line)
    screen.next_commands({shlex.join(["trainer", "run", f"{group}={option}"]): "choose it"})
    return 0


def _next(group: str, catalog: Catalog) -> None:
    options = catalog.options(group) if group in GROUPS else {}
    other = next((name for name in options if name != catalog.defaults().get(group)), None)
    if other is None:
        screen.next_commands({"trainer run steps=1000 seed=1": "change settings"})
        return
    word = f"{group}={other}"
    commands = {
        shlex.join(["trainer", "run", word]): "choose one",
        shlex.join(["trainer", "list", word]): "see its settings",
    }
    screen.next_commands(commands)
