"""`trainer runs`, and the results of a sweep: tables of runs, best first, with mean and spread over seeds."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from trainer.config import arguments
from trainer.config.annotations import show, typed
from trainer.config.arguments import Words
from trainer.config.settings import flat
from trainer.errors import UsageError, printable, refusal, unknown
from trainer.files import garbage
from trainer.runs import find
from trainer.runs.directory import RunDir
from trainer.runs.find import Entry, Ranking, ranking
from trainer.terminal import advice, screen
from trainer.terminal.progress import number

HELP = """Usage: trainer runs [DIR] [KEY=VALUE ...] [--by METRIC] [--group-by KEY,...]
                    [--all] [--json]

Shows the runs in ./runs, or in DIR or the sweep of that id, best first. Runs
with different losses or data do not compare; they stand newest first unless
--by names a metric.

  KEY=VALUE        only runs with that setting, choice or state:
                   model=dynamic, optim.lr=1e-4, state=done, name=first
  --by METRIC      what to rank by: loss, validation_loss, ...
  --group-by KEYS  mean and spread over the runs that are equal in these
  --all            all of them; otherwise the first 30
  --json           for programs: everything that is known of each run

Examples:
  trainer runs
  trainer runs model=dynamic --by loss
  trainer runs --group-by model,optim.lr
  trainer runs results --json
"""
FIRST = 30


def main(argv: list[str]) -> int:
    """Run `trainer runs` and return its exit code."""
    words = arguments.split(argv, ("--by", "--group-by", "--all", "--json", *arguments.HELP_FLAGS))
    if "help" in words.flags:
        sys.stdout.write(HELP)
        return 0
    with garbage.uncollected():
        return _rank(words)


def _rank(words: Words) -> int:
    """Print the runs that the words ask for, best first, and return the exit code."""
    folders = [word for word in words.overrides if "=" not in word]
    if len(folders) > 1:
        raise UsageError(f"runs: one directory at a time; {' '.join(folders)} are {len(folders)}")
    known = find.entries(_below(folders[0]) if folders else find.every())
    wanted = dict(word.split("=", 1) for word in words.overrides if "=" in word)
    for key in wanted if known else ():
        _require_setting(known, key)
    found = [one for one in known if all(_has(one, key, value) for key, value in wanted.items())]
    if not known:
        where = folders[0] if folders else "./runs"
        raise UsageError(f"there are no runs in {where}; start one with `trainer run`")
    if not found:
        _explain_none(known, wanted)
    by = ranking(found, words.flags.get("by"))
    found.sort(key=lambda one: str(one.path), reverse=True)
    found.sort(key=by.key)
    if "group_by" in words.flags:
        groups = _grouped(found, by, words.flags["group_by"].split(","))
        if "json" in words.flags:
            screen.as_json([group.to_dict() for group in groups])
        else:
            screen.table(_means(groups, by, found, "runs"))
        return 0
    if "json" in words.flags:
        screen.as_json([one.to_dict() for one in found])
        return 0
    shown = found if "all" in words.flags else found[:FIRST]
    screen.table(_table(shown, by))
    if len(shown) < len(found):
        screen.say(f"{len(shown)} of {len(found):,} runs; --all shows the others")
    if by.metric is None:
        screen.say("not ranked: the runs have different losses or data; --by METRIC ranks them")
    screen.next_commands({**_looks(found), f"trainer resume {shlex.quote(found[0].short)}": "go on with the first"})
    return 0


def _below(word: str) -> list[Path]:
    """Return the runs and sweeps in a directory, or the one that a word means.

    Raises:
        UsageError: There is no such directory.
    """
    folder = Path(word)
    if folder.is_dir() and not find.is_run(folder):
        return [path for path in sorted(folder.iterdir()) if find.is_run(path)]
    try:
        return [find.find(word)]
    except UsageError as error:
        raise UsageError(f"{word}: no such directory, and no such run or sweep") from error


def _looks(found: Sequence[Entry]) -> dict[str, str]:
    """Return the commands that look closer at the first of several runs."""
    names = [shlex.quote(one.short) for one in found[:2]]
    commands = {f"trainer show {names[0]}": "look at the first"}
    if len(names) > 1:
        commands[f"trainer compare {' '.join(names)}"] = "see how the first two differ"
    return commands


def setting(of: Entry, key: str) -> Any:
    """Return what a run has under a key: a choice, a setting, its state or its name; None if it has none."""
    if key in ("state", "name"):
        return of.state if key == "state" else of.status.get("name")
    if key in of.choices:
        return of.choices[key]
    found: Any = of.config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return None if isinstance(found, dict) else found


def _has(of: Entry, key: str, value: str) -> bool:
    there = setting(of, key)
    return value == show(there) or (isinstance(there, int | float) and number_of(value) == there)


def number_of(text: str) -> float | None:
    """Return the number that a text is, None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def _require_setting(known: list[Entry], key: str) -> None:
    """Refuse a key that no run has.

    Raises:
        UsageError: None has; names the nearest.
    """
    if all(setting(one, key) is None for one in known):
        keys = {"state", "name", *(key for one in known for key in (*one.choices, *flat(dict(one.config))))}
        if key not in keys:
            raise unknown(key, "no run has such a setting", key, keys)


def _explain_none(known: list[Entry], wanted: dict[str, str]) -> None:
    """Refuse filters that no run fits.

    Raises:
        UsageError: Always; names the first filter that leaves none, and what there is.
    """
    for key, value in wanted.items():
        there = sorted({show(setting(one, key)) for one in known if setting(one, key) is not None})
        if not any(_has(one, key, value) for one in known):
            raise unknown(f"{key}={value}", "no run has that", value, there, f"{key}=")
    raise UsageError(f"no run has {' and '.join(f'{key}={value}' for key, value in wanted.items())} at once")


def _table(found: list[Entry], by: Ranking) -> Table:
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
        cells += [Text(printable(typed(advice.typed(one.status)))), screen.state(one.state), f"{one.step:,}"]
        cells += [number(one.metrics.get(name)) if name in one.metrics else "" for name in metrics]
        if ranked and one.best is not None and one.best["metric"] == by.metric:
            cells.append(f"{number(by.value(one))} at {one.best['step']:,}")
        table.add_row(*cells)
    return table


@dataclass(frozen=True)
class Group:
    """Runs that are equal in some settings, with the values of the metric that they compare by."""

    settings: dict[str, str]
    numbers: list[float]

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return statistics.fmean(self.numbers)

    @property
    def spread(self) -> float | None:
        """Their standard deviation, None of one."""
        return statistics.stdev(self.numbers) if len(self.numbers) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return {**self.settings, "mean": self.mean, "spread": self.spread, "runs": len(self.numbers)}


def _grouped(found: list[Entry], by: Ranking, keys: list[str]) -> list[Group]:
    """Return groups of the runs that are equal in some settings, the best mean first.

    Raises:
        UsageError: No run has such a setting, or the runs do not compare.
    """
    if by.metric is None:
        raise refusal("--group-by", "the runs have different losses or data", "--by METRIC as well")
    for key in keys:
        _require_setting(found, key)
    return _groups(found, by, {key: [show(setting(one, key)) for one in found] for key in keys})


def print_results(path: Path, jobs: Sequence[Entry], swept: Sequence[str]) -> None:
    """Print the table of a sweep's jobs, the means over seeds, the failures, and what one may type next."""
    by = ranking(jobs)
    entries = sorted(jobs, key=by.key)
    screen.table(_jobs(entries[:FIRST], by, swept))
    if len(entries) > FIRST:
        command = f"trainer runs {shlex.quote(RunDir(path).short)} --all"
        screen.say(f"{FIRST} of {len(entries):,} jobs; `{command}` shows the others")
    several = "seed" in swept and len(entries) > 1
    if several and by.metric is not None and any(e.state == "done" for e in entries):
        keys = [key for key in swept if key != "seed"]
        values = {key: [one.swept.get(key, "") for one in entries] for key in keys}
        screen.table(_means(_groups(entries, by, values), by, entries, "seeds"))
    if by.metric is None:
        screen.say("not ranked: the jobs have different losses or data")
    failed = [e for e in entries if e.state == "failed"]
    for one in failed:
        screen.say(f"failed: {one.name} ({typed(one.swept)}): {one.error}")
        screen.rows({k: v for k, v in advice.findings(one.status.get("diagnosis") or {}).items() if k == "helps"})
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
    return table


def _groups(found: list[Entry], by: Ranking, values: dict[str, list[str]]) -> list[Group]:
    """Return groups of the runs that are equal in what `values` holds for each, the best mean first."""
    numbers: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for index, one in enumerate(found):
        value = by.value(one)
        if value is not None and one.state == "done":
            numbers[tuple(texts[index] for texts in values.values())].append(value)
    groups = [Group(dict(zip(values, chosen, strict=True)), all_) for chosen, all_ in numbers.items()]
    return sorted(groups, key=lambda group: group.mean, reverse=by.descending)


def _means(groups: list[Group], by: Ranking, found: list[Entry], what: str) -> Table:
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


def _next(path: Path, entries: list[Entry], ranked: bool) -> None:
    commands = _looks(entries)
    left = [e for e in entries if e.state != "done"]
    if left and all(advice.recurs(e.status) for e in left):
        commands.update(advice.after_failure(RunDir(path / left[0].name), left[0].status))
    elif left and not RunDir(path).is_held():
        commands[f"trainer resume {shlex.quote(RunDir(path).short)}"] = "run what is not done"
    elif ranked:
        best = RunDir(path / entries[0].name)
        command = next(iter(advice.longer("complete", best, best.read_status())))
        commands[command] = "go on with the best"
    screen.next_commands(commands)
