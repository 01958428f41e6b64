"""Tables of runs and of the jobs of a sweep, best first, with mean and standard deviation over seeds."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from trainer.runs import entries as run_entries
from trainer.runs.directory import RunDirectory
from trainer.runs.entries import RunSummary
from trainer.runs.ranking import Group, Ranking, ranked_groups, ranking
from trainer.terminal import advice, screen
from trainer.text import number, typed

FIRST = 30


def looks(found: Sequence[RunSummary]) -> dict[str, str]:
    """Return the commands that show the first of several runs, and compare the first two."""
    names = [shlex.quote(one.short) for one in found[:2]]
    commands = {f"trainer show {names[0]}": "show the first"}
    if len(names) > 1:
        commands[f"trainer compare {' '.join(names)}"] = "compare the first two"
    return commands


def runs_table(found: list[RunSummary], by: Ranking) -> Table:
    """Return a table of runs: the settings typed for each, and its numbers."""
    texts: dict[str, Callable[[RunSummary], str]] = {"run": lambda one: one.short}
    if any(one.status.get("name") for one in found):
        texts["name"] = lambda one: one.status.get("name") or ""
    return _table(found, by, {**texts, "settings": lambda one: typed(run_entries.typed(one.status))})


def print_results(path: Path, jobs: Sequence[RunSummary], swept: Sequence[str]) -> None:
    """Print the table of a sweep's jobs, the means over seeds, the failures, and the commands to type next."""
    by = ranking(jobs)
    entries = sorted(jobs, key=by.key)
    texts: dict[str, Callable[[RunSummary], str]] = {key: partial(_value, key=key) for key in swept}
    screen.table(_table(entries[:FIRST], by, {"job": lambda one: one.name, **texts}))
    if len(entries) > FIRST:
        command = f"trainer runs {shlex.quote(RunDirectory(path).short)} --all"
        screen.say(f"{FIRST} of {len(entries):,} jobs; `{command}` shows all")
    several = "seed" in swept and len(entries) > 1
    if several and by.metric is not None and any(e.state == "done" for e in entries):
        keys = [key for key in swept if key != "seed"]
        screen.table(means_table(ranked_groups(entries, by, keys, _value), by, entries, "seeds"))
    if by.metric is None:
        screen.say("not ranked: the jobs have different losses or data")
    for one in entries:
        if one.state == "failed":
            screen.say(f"failed: {one.name} ({typed(one.swept)}): {one.error}")
            screen.rows({k: v for k, v in advice.findings(one.status.get("diagnosis") or {}).items() if k == "fix"})
    _next(path, entries, ranked=by.metric is not None)


def means_table(groups: list[Group], by: Ranking, found: list[RunSummary], what: str) -> Table:
    """Return a table of groups of runs: mean and standard deviation of the metric that ranks them."""
    best = "best " * any(_is_best(one, by) for one in found)
    headings = (f"mean {best}{str(by.metric).replace('_', ' ')}", "std", what)
    lines = []
    for group in groups:
        deviation = "" if group.spread is None else number(group.spread)
        lines.append((*group.settings.values(), number(group.mean), deviation, str(len(group.numbers))))
    return screen.columns([*groups[0].settings] if groups else (), headings, lines)


def _table(found: list[RunSummary], by: Ranking, texts: Mapping[str, Callable[[RunSummary], str]]) -> Table:
    """Return a table of runs with their states and numbers.

    Args:
        found: The runs.
        by: What ranks them.
        texts: The columns before the state, by their headings; the first of them is never wrapped.
    """
    metrics = list(dict.fromkeys(name for one in found for name in one.metrics))
    numbers = ["step", *(name.replace("_", " ") for name in metrics)]
    if any(_is_best(one, by) for one in found):
        numbers.append(f"best {str(by.metric).replace('_', ' ')}")
    lines = []
    for one in found:
        line: list[str | Text] = [*(of(one) for of in texts.values()), screen.state(one.state), f"{one.step:,}"]
        line += [number(one.metrics[name]) if name in one.metrics else "" for name in metrics]
        if one.best is not None and _is_best(one, by):
            line.append(f"{number(by.value(one))} at {one.best['step']:,}")
        lines.append(line)
    return screen.columns((*texts, "state"), numbers, lines, unbroken=(next(iter(texts)), "state"))


def _is_best(one: RunSummary, by: Ranking) -> bool:
    """Return whether a run is ranked by its best evaluation, not by its last value."""
    return one.best is not None and one.best["metric"] == by.metric


def _value(one: RunSummary, key: str) -> str:
    return one.swept.get(key, "")


def _next(path: Path, entries: list[RunSummary], ranked: bool) -> None:
    commands = looks(entries)
    left = [e for e in entries if e.state != "done"]
    if left and all(advice.recurs(e.status) for e in left):
        commands.update(advice.after_failure(RunDirectory(path / left[0].name), left[0].status))
    elif left and not RunDirectory(path).is_held():
        commands[f"trainer resume {shlex.quote(RunDirectory(path).short)}"] = "run the unfinished jobs"
    elif ranked:
        best = RunDirectory(path / entries[0].name)
        command = next(iter(advice.longer("complete", best, best.read_status())))
        commands[command] = "train the best longer"
    screen.next_commands(commands)
