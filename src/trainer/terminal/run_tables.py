"""Tables of runs and of the jobs of a sweep, best first, with mean and spread over seeds."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from trainer.errors import printable
from trainer.runs import entries as run_entries
from trainer.runs.directory import RunDirectory
from trainer.runs.entries import RunSummary
from trainer.runs.ranking import Group, Ranking, ranked_groups, ranking
from trainer.terminal import advice, screen
from trainer.text import number, typed

FIRST = 30


def looks(found: Sequence[RunSummary]) -> dict[str, str]:
    """Return the commands that look closer at the first of several runs."""
    names = [shlex.quote(one.short) for one in found[:2]]
    commands = {f"trainer show {names[0]}": "look at the first"}
    if len(names) > 1:
        commands[f"trainer compare {' '.join(names)}"] = "see how the first two differ"
    return commands


def runs_table(found: list[RunSummary], by: Ranking) -> Table:
    """Return a table of runs: what was typed to make each, and its numbers."""
    metrics = list(dict.fromkeys(name for one in found for name in one.metrics))
    named = any(one.status.get("name") for one in found)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("run", no_wrap=True)
    if named:
        table.add_column("name", overflow="fold")
    table.add_column("settings", overflow="fold")
    table.add_column("state", no_wrap=True)
    for title in ("step", *(name.replace("_", " ") for name in metrics)):
        table.add_column(title, justify="right")
    ranked = any(one.best is not None and one.best["metric"] == by.metric for one in found)
    if ranked:
        table.add_column(f"best {str(by.metric).replace('_', ' ')}", justify="right")
    for one in found:
        cells: list[str | Text] = [printable(one.short)]
        cells += [Text(printable(one.status.get("name") or ""))] if named else []
        cells += [Text(printable(typed(run_entries.typed(one.status)))), screen.state(one.state), f"{one.step:,}"]
        cells += [number(one.metrics.get(name)) if name in one.metrics else "" for name in metrics]
        if ranked and one.best is not None and one.best["metric"] == by.metric:
            cells.append(f"{number(by.value(one))} at {one.best['step']:,}")
        table.add_row(*cells)
    return table


def print_results(path: Path, jobs: Sequence[RunSummary], swept: Sequence[str]) -> None:
    """Print the table of a sweep's jobs, the means over seeds, the failures, and what one may type next."""
    by = ranking(jobs)
    entries = sorted(jobs, key=by.key)
    screen.table(_jobs(entries[:FIRST], by, swept))
    if len(entries) > FIRST:
        command = f"trainer runs {shlex.quote(RunDirectory(path).short)} --all"
        screen.say(f"{FIRST} of {len(entries):,} jobs; `{command}` shows the others")
    several = "seed" in swept and len(entries) > 1
    if several and by.metric is not None and any(e.state == "done" for e in entries):
        keys = [key for key in swept if key != "seed"]
        values = {key: [one.swept.get(key, "") for one in entries] for key in keys}
        screen.table(means_table(ranked_groups(entries, by, values), by, entries, "seeds"))
    if by.metric is None:
        screen.say("not ranked: the jobs have different losses or data")
    failed = [e for e in entries if e.state == "failed"]
    for one in failed:
        screen.say(f"failed: {one.name} ({typed(one.swept)}): {one.error}")
        screen.rows({k: v for k, v in advice.findings(one.status.get("diagnosis") or {}).items() if k == "helps"})
    _next(path, entries, ranked=by.metric is not None)


def _jobs(entries: list[RunSummary], by: Ranking, swept: Sequence[str]) -> Table:
    metrics = list(dict.fromkeys(name for e in entries for name in e.metrics))
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("job", no_wrap=True)
    for key in swept:
        table.add_column(key, overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("step", justify="right")
    for name in metrics:
        table.add_column(name.replace("_", " "), justify="right")
    if by.metric is not None and any(e.best for e in entries):
        table.add_column(f"best {by.metric.replace('_', ' ')}", justify="right")
    for e in entries:
        cells: list[str | Text] = [
            e.name,
            *(Text(e.swept.get(key, "")) for key in swept),
            screen.state(e.state),
            f"{e.step:,}",
        ]
        cells += [number(e.metrics.get(name)) if name in e.metrics else "" for name in metrics]
        if e.best is not None and by.metric is not None:
            cells.append(f"{number(by.value(e))} at {e.best['step']:,}")
        table.add_row(*cells)
    return table


def means_table(groups: list[Group], by: Ranking, found: list[RunSummary], what: str) -> Table:
    """Return a table of groups of runs: mean and spread of the metric that they are ranked by."""
    is_best = any(one.best is not None and one.best["metric"] == by.metric for one in found)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for key in groups[0].settings if groups else ():
        table.add_column(key, overflow="fold")
    metric = str(by.metric).replace("_", " ")
    for title in (f"mean {'best ' * is_best}{metric}", "spread", what):
        table.add_column(title, justify="right")
    for group in groups:
        spread = "" if group.spread is None else number(group.spread)
        table.add_row(*map(Text, group.settings.values()), number(group.mean), spread, str(len(group.numbers)))
    return table


def _next(path: Path, entries: list[RunSummary], ranked: bool) -> None:
    commands = looks(entries)
    left = [e for e in entries if e.state != "done"]
    if left and all(advice.recurs(e.status) for e in left):
        commands.update(advice.after_failure(RunDirectory(path / left[0].name), left[0].status))
    elif left and not RunDirectory(path).is_held():
        commands[f"trainer resume {shlex.quote(RunDirectory(path).short)}"] = "run what is not done"
    elif ranked:
        best = RunDirectory(path / entries[0].name)
        command = next(iter(advice.longer("complete", best, best.read_status())))
        commands[command] = "go on with the best"
    screen.next_commands(commands)
