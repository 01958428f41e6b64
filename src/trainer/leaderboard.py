"""The results of a sweep as a table: best first, mean and spread over seeds, failures named."""

from __future__ import annotations

import math
import shlex
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from trainer import advice, screen
from trainer.progress import number
from trainer.rundir import RunDir
from trainer.values import typed


@dataclass(frozen=True)
class Entry:
    """One job as its status.json tells it."""

    name: str
    swept: dict[str, str]
    state: str
    step: int
    steps: int
    metrics: dict[str, float | None]
    best: dict[str, Any] | None
    error: str | None
    mode: str | None


@dataclass(frozen=True)
class Ranking:
    """The metric that jobs are compared by; None when their numbers do not compare."""

    metric: str | None
    descending: bool = False

    def value(self, entry: Entry) -> float | None:
        """Return what the job is ranked by: its best evaluation if that is of this metric, else its last value."""
        if self.metric is None:
            return None
        if entry.best is not None and entry.best["metric"] == self.metric:
            return float(entry.best["value"])
        return entry.metrics.get(self.metric)

    def key(self, entry: Entry) -> tuple[bool, float]:
        """Return what sorts jobs best first, those that failed or have no value last."""
        value = self.value(entry)
        if entry.state == "failed" or value is None or not math.isfinite(value):
            return True, 0.0
        return False, -value if self.descending else value


def entry(path: Path) -> Entry:
    """Read the job in a directory."""
    rundir = RunDir(path)
    status = rundir.read_status()
    state = status.get("state", "unreadable")
    return Entry(
        path.name,
        status.get("swept") or {},
        "interrupted" if state == "running" and not rundir.is_held() else state,
        status.get("step", 0),
        status.get("steps", 0),
        status.get("metrics") or {},
        status.get("best"),
        status.get("error"),
        (status.get("config") or {}).get("mode"),
    )


def ranking(entries: list[Entry]) -> Ranking:
    """Choose the metric: what the jobs monitored, else the loss, unless the losses are different ones."""
    monitored = {e.best["metric"] for e in entries if e.best is not None}
    measured = {name for e in entries for name in e.metrics}
    swept = {key.partition(".")[0] for e in entries for key in e.swept}
    if "data" in swept:
        return Ranking(None)
    if "loss" in swept:
        return Ranking("validation_accuracy", True) if "validation_accuracy" in measured else Ranking(None)
    metric = monitored.pop() if len(monitored) == 1 else "validation_loss" if "validation_loss" in measured else "loss"
    modes = {e.mode for e in entries}
    return Ranking(metric, modes == {"max"} or (metric == "validation_accuracy" and modes == {None}))


def print_results(path: Path, jobs: Sequence[str], swept: Sequence[str]) -> None:
    """Print the table of a sweep's jobs, the means over seeds, the failures, and what one may type next."""
    entries = [entry(path / name) for name in jobs]
    by = ranking(entries)
    entries.sort(key=by.key)
    screen.table(_jobs(entries, by, swept))
    several = "seed" in swept and len(entries) > 1
    if several and by.metric is not None and any(e.state == "done" for e in entries):
        screen.table(_over_seeds(entries, by, [key for key in swept if key != "seed"]))
    if by.metric is None:
        screen.say("not ranked: the jobs have different losses or data")
    failed = [e for e in entries if e.state == "failed"]
    for one in failed:
        screen.say(f"failed: {one.name} ({typed(one.swept)}): {one.error}")
    _next(path, entries, ranked=by.metric is not None)


def _jobs(entries: list[Entry], by: Ranking, swept: Sequence[str]) -> Table:
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
    return _whole_numbers(table)


def _whole_numbers(table: Table) -> Table:
    """Return a table whose headings give way on a narrow screen, but never its numbers."""
    for column in table.columns:
        if column.justify == "right":
            column.min_width = max((len(str(cell)) for cell in column.cells), default=0)
            column.overflow = "fold"
    return table


def _over_seeds(entries: list[Entry], by: Ranking, keys: list[str]) -> Table:
    groups: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for e in entries:
        value = by.value(e)
        if value is not None and e.state == "done":
            groups[tuple(e.swept.get(key, "") for key in keys)].append(value)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for key in keys:
        table.add_column(key, overflow="fold")
    for title in (f"mean {str(by.metric).replace('_', ' ')}", "spread", "seeds"):
        table.add_column(title, justify="right")
    order = sorted(groups.items(), key=lambda item: statistics.fmean(item[1]), reverse=by.descending)
    for chosen, values in order:
        spread = number(statistics.stdev(values)) if len(values) > 1 else ""
        table.add_row(*map(Text, chosen), number(statistics.fmean(values)), spread, str(len(values)))
    return _whole_numbers(table)


def _next(path: Path, entries: list[Entry], ranked: bool) -> None:
    if any(e.state != "done" for e in entries):
        screen.next_commands({f"trainer resume {shlex.quote(RunDir(path).short)}": "run what is not done"})
    elif ranked:
        best = RunDir(path / entries[0].name)
        command = next(iter(advice.after_end("complete", best, best.read_status())))
        screen.next_commands({command: "go on with the best"})
