"""`trainer explain`: a setting's effective value, where it was set, which values it overrides, and what it does."""

from __future__ import annotations

import inspect
import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table

from trainer.config import annotations as values
from trainer.config import arguments, docstrings, secrets, settings
from trainer.config.catalog import GROUPS, SEVERAL, Catalog, summary
from trainer.config.settings import SECTIONS
from trainer.errors import UsageError, refusal
from trainer.terminal import screen
from trainer.text import show

if TYPE_CHECKING:
    from trainer.config.arguments import Choice, CommandLine
    from trainer.config.compose import JobConfig
    from trainer.config.origins import Source
    from trainer.training.instantiate import Argument

_TARGET = "_target_"
_UNSET = "???"
_LEAST = 10  # characters of a value
_LENGTHS = ("steps", "epochs")  # only one of them can be set


class Composed(NamedTuple):
    """A composed configuration and the sources of its values.

    Args:
        job: The composed job.
        sources: The sources of each value by dotted key; the first source wins.
        catalog: The options that can be selected.
        words: The typed overrides, secrets redacted.
        folders: The flags that name further config folders.
    """

    job: JobConfig
    sources: Mapping[str, Sequence[Source]]
    catalog: Catalog
    words: list[str]
    folders: list[str]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by their dotted keys."""
        return settings.flat(self.job.settings.to_dict())


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, ("--json", *arguments.CONFIG_DIR_FLAGS), "explain")
    keys = [word for word in words.overrides if "=" not in word]
    if len(keys) > 1:
        raise refusal(" ".join(keys), "one setting at a time", f"explain {keys[0]}")
    words.overrides = [word for word in words.overrides if "=" in word]
    catalog = words.catalog()
    choices = arguments.jobs(words, catalog)
    try:
        found, composed = _explained(keys, words, choices, catalog)
    except UsageError as error:
        from trainer.config.option_files import with_source

        raise with_source(error, choices, catalog) from error.__cause__
    for warning in catalog.warnings():
        screen.note(f"warning: {warning}")
    if "json" in words.flags:
        screen.as_json(found)
        return 0
    _print(found)
    commands = {what: ["trainer", *command, *composed.folders] for what, command in _next(found, composed)}
    screen.next_commands({shlex.join(command): what for what, command in commands.items()})
    return 0


def _explained(
    keys: Sequence[str], words: CommandLine, choices: list[Choice], catalog: Catalog
) -> tuple[dict[str, Any], Composed]:
    from trainer.config import compose, origins

    (job,) = compose.compose_jobs(choices, catalog)
    folders = [part for folder in words.config_dirs for part in ("--config-dir", folder)]
    composed = Composed(job, origins.of(choices[0], catalog), catalog, secrets.words(words.overrides), folders)
    if not keys:
        return {"settings": [*_selected(composed), *_set(composed)]}, composed
    return _about(keys[0], composed), composed


def _about(key: str, composed: Composed) -> dict[str, Any]:
    """Return the explanation of a group, a section or a setting.

    Raises:
        UsageError: There is no such setting.
    """
    present = composed.settings
    group = key.partition(".")[0]
    if key in GROUPS:
        return _group(key, composed)
    if key in present or any(f"{key}.".startswith(f"{section}.") for section in composed.job.settings.selected):
        inner = [*_set(composed, key)]
        return {"key": key, "meaning": "", "settings": inner} if inner else _setting(key, present.get(key), composed)
    if key in SECTIONS:
        return {"key": key, "meaning": str(SECTIONS[key].__doc__).rstrip("."), "settings": [*_set(composed, key)]}
    if group in SECTIONS:
        settings.declared(key)  # raises: a section has no such setting
    from trainer.config.compose import no_such_setting

    raise no_such_setting(key, present, composed.catalog)


def _group(group: str, composed: Composed) -> dict[str, Any]:
    return {
        "key": group,
        "value": _chosen(group, composed),
        "meaning": GROUPS[group],
        "sources": _places(group, composed.sources[group]),
        "settings": [*_set(composed, group)],
        "options": {name: summary(file) for name, file in composed.catalog.options(group).items()},
    }


def _setting(key: str, value: Any, composed: Composed) -> dict[str, Any]:
    """Return the explanation of a setting; a component's setting may have the default of its class."""
    parts = composed.job.settings.selected
    group = next((section for section in parts if key.startswith(f"{section}.")), "")
    name = key.removeprefix(f"{group}.")
    sources, target, limits = [*composed.sources.get(key, ())], None, ""
    if not group:
        known = settings.declared(key)
        kind, what, limits = known.kind, known.doc, known.limits
    elif name == _TARGET:
        kind, what = str, f"the class of the {group}"
    else:
        from trainer.training import instantiate

        part = parts[group]
        target, (first, _, inner) = part[_TARGET], name.partition(".")
        is_set = key in composed.settings
        cls = instantiate.locate(part, group)
        argument = instantiate.argument(cls, first if is_set else name, group)
        if argument.cls is not cls:  # an argument of the class that feeds a Dataset of torch
            target = f"{argument.cls.__module__}.{argument.cls.__qualname__}"
        kind, what = Any if inner else argument.kind, docstrings.sentence(argument.cls, first)
        if is_set and value != _UNSET:
            instantiate.fitting(key, value, kind)
        if not inner and argument.default is not inspect.Parameter.empty:
            default = _default_of(argument, first, target)
            sources.insert(len(sources) if is_set else 0, default)
            value = value if is_set else default.value
        elif not is_set:  # set by an experiment for another option
            sources = []
    words, or_null = values.choices(kind), values.fits(None, kind)[0] and kind is not Any
    return {
        "key": key,
        "value": _shown(key, value),
        "meaning": what,
        "type": ("a word or null" if or_null else "a word") if words else values.describe(kind),
        "limits": limits,
        "choices": words,
        "class": target,
        "sources": _places(key, sources),
        "notes": [
            *(note for note in composed.job.notes if note.startswith(f"{key}=")),
            *([f"has no value; add {key}=VALUE"] if value == _UNSET else []),
        ],
    }


def _default_of(argument: Argument, name: str, target: str) -> Source:
    """Return the default of a constructor argument as a Source."""
    from trainer.config.origins import Source, of_source

    default = [*argument.default] if isinstance(argument.default, tuple) else argument.default
    if not isinstance(default, bool | int | float | str | list | None):
        default = str(default)
    remark, place = f"the default of {target}", docstrings.place(argument.cls, name)
    return Source(default, remark) if place is None else of_source(default, place, remark)


def _selected(composed: Composed) -> Iterator[dict[str, Any]]:
    """Yield a line for each group: its option and where it is chosen."""
    for group in GROUPS:
        yield _line(group, _chosen(group, composed), composed.sources[group])


def _chosen(group: str, composed: Composed) -> Any:
    return composed.sources[group][0].value if group in SEVERAL else composed.job.choices.get(group)


def _set(composed: Composed, section: str = "") -> Iterator[dict[str, Any]]:
    """Yield a line for each setting, or each setting of a section: its value and where it is set."""
    for key, value in composed.settings.items():
        if key.startswith(f"{section}." if section else ""):
            known = key
            while known not in composed.sources and "." in known:  # a section that an interpolation refers to
                known = known.rpartition(".")[0]
            yield _line(key, value, composed.sources[known])


def _line(key: str, value: Any, sources: Sequence[Source]) -> dict[str, Any]:
    return {"key": key, "value": _shown(key, value), "sources": _places(key, sources)}


def _places(key: str, sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return the sources of a setting as plain data, the effective one first."""
    return [
        {
            "value": _shown(key, source.value),
            "place": source.place,
            "remark": secrets.hide(source.remark),
            "file": None if source.file is None else str(source.file),
            "line": source.line,
        }
        for source in sources
    ]


def _shown(key: str, value: Any) -> Any:
    return secrets.tree({key: value})[key]


def _print(found: Mapping[str, Any]) -> None:
    if "key" in found:
        value = f"={show(found['value'])}" if "value" in found else ""
        screen.heading(found["key"] + value, "")
    facts = {name: found.get(name) for name in ("meaning", "type", "limits", "choices", "class")}
    screen.rows({name: fact if isinstance(fact, str) else ", ".join(fact) for name, fact in facts.items() if fact})
    if sources := found.get("sources"):
        screen.table(_table(sources))
    for note in found.get("notes", ()):
        screen.say(f"  {note}")
    if lines := found.get("settings"):
        screen.table(_overview(lines))
    if "options" in found:
        screen.heading("options", "")
        screen.rows(found["options"])


def _overview(lines: Iterable[Mapping[str, Any]]) -> Table:
    """Return a table of settings; a narrow screen folds values first, so that places can be copied."""
    cells = [(line["key"], show(line["value"]), line["sources"][0]["place"]) for line in lines]
    table = screen.columns(["setting", "value", "set by"], (), cells)
    if screen.stdout.is_terminal:
        longest = [max(map(len, column)) for column in zip(*cells, strict=True)]
        table.columns[1].max_width = max(screen.stdout.width - longest[0] - longest[2] - 4, _LEAST)
    return table


def _table(sources: Iterable[Mapping[str, Any]]) -> Table:
    names = itertools.chain(("  set by", "  overrides"), itertools.repeat(""))
    cells = [(show(source["value"]), f"{source['place']}  {source['remark']}".rstrip()) for source in sources]
    table = screen.columns(("", "", ""), (), [(name, *line) for name, line in zip(names, cells, strict=False)])
    table.show_header, table.columns[0].style = False, "bold"
    return table


def _next(found: Mapping[str, Any], composed: Composed) -> Iterator[tuple[str, list[str]]]:
    """Yield what the user may do next and the words of the command that does it."""
    key, words = str(found.get("key")), composed.words
    if "sources" not in found:
        most = max(found["settings"], key=lambda line: len(line["sources"]))  # overrides the most values
        yield "explain a setting", ["explain", most["key"], *words]
        yield "train it", ["run", *words]
        return
    if "options" in found:
        other = next((name for name in found["options"] if name != found["value"]), None)
        if other is not None:
            yield "choose another", ["run", *_without(words, key), f"{key}={other}"]
        if found["value"] is not None:
            yield "see its file", ["list", f"{key}={found['value']}"]
        return
    other = next((word for word in found["choices"] if word != found["value"]), found["value"])
    if other not in (None, _UNSET, secrets.MARK) and not key.endswith(_TARGET):
        others = _without(words, *(_LENGTHS if key in _LENGTHS else [key]))
        yield "set it", ["run", *others, arguments.word(key, other)]
    yield "see other settings", ["explain", *([key.partition(".")[0]] if "." in key else []), *words]


def _without(words: Iterable[str], *keys: str) -> list[str]:
    return [word for word in words if word.lstrip("+").partition("=")[0] not in keys]
