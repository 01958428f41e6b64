"""`trainer compare`: the differences between runs and their results, side by side. Without torch."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from trainer.config import arguments
from trainer.config.catalog import GROUPS
from trainer.config.settings import COMPONENTS, Settings, flat
from trainer.errors import UsageError
from trainer.files import garbage
from trainer.runs import directory, find
from trainer.runs import entries as run_entries
from trainer.runs.directory import RunDirectory
from trainer.runs.entries import RunSummary
from trainer.runs.ranking import ranking
from trainer.terminal import screen
from trainer.text import number, show

MOST = 8  # columns
_SHORT_SUM = 12  # digits of a SHA-256 that are shown
Differences = dict[str, dict[str, Any]]  # key -> run -> value, for the runs that have the key


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, ("--json",), "compare")
    found = _named(words.overrides)
    choices = _choices(found)
    differing = {
        "choices": choices,
        "settings": _settings(found, choices),
        "circumstances": _differing({name: _circumstances(one) for name, one in found.items()}),
    }
    if "json" in words.flags:
        screen.as_json({**differing, "results": {name: _result(one) for name, one in found.items()}})
        return 0
    _print(found, differing)
    return 0


def _named(words: Sequence[str]) -> dict[str, RunSummary]:
    """Return the named runs, and the jobs of the named sweeps, each by the word to type for it.

    Raises:
        UsageError: There are fewer than two runs.
    """
    folders = []
    for word in words:
        path = find.find(word)
        folders += directory.jobs(path) if directory.is_sweep(path) else [path]
    with garbage.uncollected():
        entries = [run_entries.entry(path) for path in {path.resolve(): path for path in folders}.values()]
    if len(entries) < 2:
        what = f"{' and '.join(words)} are the same run" if len(words) > 1 else "needs two runs or more"
        raise UsageError(f"compare: {what}; `trainer compare last best`, or paths, ids or their last four letters")
    shorts = [one.short for one in entries]
    return {one.short if shorts.count(one.short) == 1 else str(one.path): one for one in entries}


def _choices(found: Mapping[str, RunSummary]) -> Differences:
    """Return the groups in which the runs select different options."""
    differing = _differing({name: one.choices for name, one in found.items()})
    return {group: differing[group] for group in GROUPS if group in differing}


def _settings(found: Mapping[str, RunSummary], choices: Collection[str]) -> Differences:
    """Return the settings that differ.

    Where the runs have different components, settings without effect that only some of them have are left out.
    """
    configs = {name: flat(dict(one.config) or RunDirectory(one.path).read_config()) for name, one in found.items()}
    differing = _differing(configs)
    swapped = {group for group in COMPONENTS if f"{group}._target_" in differing or group in choices}
    places = {name: place for place, name in enumerate(Settings.__dataclass_fields__)}
    shown = {}
    for key in sorted(differing, key=lambda key: places.get(key.partition(".")[0], len(places))):
        values = differing[key]
        group, _, name = key.partition(".")
        is_missing = len(values) < len(found)
        if group in swapped and (name == "_target_" or (is_missing and _is_idle(values.values()))):
            continue
        shown[key] = values
    return shown


def _is_idle(values: Iterable[Any]) -> bool:
    """Return whether all values have no effect: null, false or 0."""
    return all(value in (None, False, 0) for value in values)


def _circumstances(one: RunSummary) -> dict[str, Any]:
    """Return the other facts that results depend on, as of the last start: versions, machine, commit, modules."""
    segment = one.segments[-1] if one.segments else {}
    facts = flat({part: dict(segment.get(part, {})) for part in ("versions", "machine")})
    facts.pop("machine.threads", None)  # shown with the settings
    code = {f"code {name}": sum_ for name, sum_ in (one.status.get("code") or {}).items()}
    return {**facts, "git": segment.get("git"), **code}


def _differing(of: Mapping[str, Mapping[str, Any]]) -> Differences:
    """Return the keys whose values differ between runs, or that only some runs have."""
    keys = dict.fromkeys(key for values in of.values() for key in values)
    held = {key: {name: values[key] for name, values in of.items() if key in values} for key in keys}
    return {
        key: values
        for key, values in held.items()
        if len(values) < len(of) or any(value != next(iter(values.values())) for value in values.values())
    }


def _result(one: RunSummary) -> dict[str, Any]:
    """Return the state and the results of a run as plain data."""
    known = {"path": str(one.path), "state": one.state, "step": one.step, "metrics": one.metrics}
    return {**known, "best": one.best, "error": one.error}


def _print(found: Mapping[str, RunSummary], differing: Mapping[str, Differences]) -> None:
    results = _results(found)
    shown = list(found)[:MOST]
    parts = [{key: {n: show(v) for n, v in of.items()} for key, of in part.items()} for part in differing.values()]
    for key, of in parts[-1].items():
        if key.startswith("code "):
            parts[-1][key] = {name: sum_[:_SHORT_SUM] for name, sum_ in of.items()}
    if any(parts):
        _side_by_side(shown, [*parts, results])
    elif _differing({name: {**_result(one), "path": None} for name, one in found.items()}):
        screen.say("only the results differ")
        _side_by_side(shown, [results])
    else:
        screen.say("no differences: choices, settings, versions, machine and results are the same")
    if len(shown) < len(found):
        screen.say(f"{len(shown)} of {len(found):,} runs; --json shows all")
    by = ranking(list(found.values()))
    best = min(found, key=lambda name: by.key(found[name]))
    what = "show the best" if by.metric is not None else "show the first"
    screen.next_commands({f"trainer show {shlex.quote(best)}": what})


def _results(found: Mapping[str, RunSummary]) -> dict[str, dict[str, str]]:
    """Return the rows of the table of results: the text of each run by the name of the row."""
    rows: dict[str, dict[str, str]] = {"state": {}, "step": {}}
    for name, one in found.items():
        rows["state"][name], rows["step"][name] = one.state, f"{one.step:,}"
        for metric, value in one.metrics.items():
            rows.setdefault(metric.replace("_", " "), {})[name] = number(value)
    for name, one in found.items():
        if one.best is not None:
            row = rows.setdefault(f"best {one.best['metric'].replace('_', ' ')}", {})
            row[name] = f"{number(one.best['value'])} at {one.best['step']:,}"
    return rows


def _side_by_side(names: Sequence[str], parts: Sequence[Mapping[str, Mapping[str, str]]]) -> None:
    """Print a table in parts, each with as many columns of runs as fit on the screen."""
    count = len(names)
    while count > 2 and not screen.fits(_table(names[:count], parts)):
        count -= 1
    if screen.fits(content := _table(names[:count], parts)):
        screen.table(content)
        if names[count:]:
            screen.say("")
            _side_by_side(names[count:], parts)
        return
    for key, values in (line for part in parts for line in part.items()):  # not even two runs fit: one below the other
        screen.heading(key, "")
        screen.rows({name: values[name] for name in names if name in values})


def _table(names: Sequence[str], parts: Sequence[Mapping[str, Mapping[str, str]]]) -> Table:
    """Return a table with a column for each run and an empty line between its parts."""
    lines: list[list[str]] = []
    for part in filter(None, parts):
        lines += [[""]] if lines else []
        lines += [[key, *(values.get(name, "") for name in names)] for key, values in part.items()]
    return screen.columns(("", *names), (), lines)
