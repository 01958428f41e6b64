"""Finds runs by what people type, reads their status and ranks them. Never imports torch."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from trainer.errors import UsageError, nearest, unknown
from trainer.files import garbage
from trainer.runs.directory import RUNS, RunDir

_JOB = re.compile(r"[0-9]{3,9}")


def find(word: str) -> Path:
    """Return the directory of a run or a sweep.

    Raises:
        UsageError: There is none, or several fit; the message lists them.
    """
    path = Path(word)
    try:
        if word and is_run(path):
            return path
        is_folder = bool(word) and path.is_dir()
    except OSError as error:
        raise UsageError(f"{word}: {error.strerror}") from error
    if word == "best":
        return best(every()).path
    if word.endswith("/best") and is_sweep(sweep := find(word.removesuffix("/best"))):
        return best([sweep]).path
    head, _, job = word.partition("/")
    named = [p for p in every() if p.name == head or p.name[-4:] == head]
    if head == "last" and not named:
        named = every()[-1:]
        if not named:
            raise UsageError("last: there are no runs here yet; start one with `trainer run`")
    if len(named) > 1:
        raise UsageError(f"{word}: several runs fit: {', '.join(p.name for p in named)}")
    if named:
        found = named[0] / job if job else named[0]
        if is_run(found):
            return found
        raise UsageError(f"{word}: {named[0]} has no job {job}; it has {_jobs(named[0])}")
    if is_folder:
        raise UsageError(f"{word}: {path.absolute()} is not a run: it has no config.yaml")
    letters = [p.name[-4:] for p in every()]
    near = nearest(word, letters + [p.name for p in every()])
    some = f"; the newest are {', '.join(letters[-5:])}" if letters else f"; there are no runs in {RUNS.absolute()}"
    raise UsageError(f"{word}: no such run{some}" + (f"; did you mean {near}?" if near else ""))


def only(command: str, words: Sequence[str]) -> Path:
    """Return the directory of the one run or sweep that the words of a command name.

    Raises:
        UsageError: They name none or several, or there is no such run.
    """
    if len(words) != 1:
        which = "one run at a time" if words else "which run?"
        raise UsageError(f"{command}: {which} `trainer {command} last`, or a path, an id or its four letters")
    return find(words[0])


def is_sweep(path: Path) -> bool:
    """Say whether a directory holds a sweep."""
    return os.path.isfile(f"{path}/sweep.json")


def jobs(path: Path) -> list[Path]:
    """Return the job directories of a sweep, in their order."""
    with os.scandir(path) as found:
        names = [one.name for one in found if _JOB.fullmatch(one.name) and one.is_dir(follow_symlinks=False)]
    return [path / name for name in sorted(names, key=int)]


def is_run(path: Path) -> bool:
    """Say whether a directory holds a run or a sweep."""
    return RunDir(path).exists or is_sweep(path)


def every() -> list[Path]:
    """Return the directories of all runs and sweeps in ./runs, the oldest first."""
    if not RUNS.is_dir():
        return []
    return [path for name in sorted(os.listdir(RUNS)) if is_run(path := RUNS / name)]


@dataclass(frozen=True)
class Entry:
    """A run as its status.json tells it."""

    path: Path
    state: str
    status: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of its directory: an id, or the number of a job."""
        return self.path.name

    @property
    def short(self) -> str:
        """What one types to mean it."""
        return RunDir(self.path).short

    @property
    def swept(self) -> Mapping[str, str]:
        """What a sweep set in it."""
        return self.status.get("swept") or {}

    @property
    def step(self) -> int:
        """Finished steps."""
        return int(self.status.get("step", 0))

    @property
    def steps(self) -> int:
        """Steps that it is to take."""
        return int(self.status.get("steps", 0))

    @cached_property
    def metrics(self) -> Mapping[str, float | None]:
        """The newest loss and the newest evaluation."""
        return self.status.get("metrics") or {}

    @cached_property
    def best(self) -> Mapping[str, Any] | None:
        """The best evaluation."""
        return self.status.get("best")

    @property
    def error(self) -> str | None:
        """What it failed for."""
        return self.status.get("error")

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Its settings."""
        return self.status.get("config") or {}

    @cached_property
    def choices(self) -> Mapping[str, str]:
        """What the groups select."""
        return self.status.get("choices") or {}

    @property
    def segments(self) -> Sequence[Mapping[str, Any]]:
        """Its starts: the first one and each resume."""
        return self.status.get("segments") or []

    def to_dict(self) -> dict[str, Any]:
        """Return all that is known of it as plain data."""
        return {"run": self.short, "path": str(self.path), **self.status, "state": self.state}


def entry(path: Path) -> Entry:
    """Read the run in a directory; one that nobody trains any more and that has not ended was interrupted."""
    rundir = RunDir(path)
    status = rundir.status_as_needed()
    state = status.get("state", "unreadable")
    return Entry(path, "interrupted" if state == "running" and not rundir.is_held() else state, status)


def entries(folders: Iterable[Path]) -> list[Entry]:
    """Read the runs in directories, and of sweeps every job."""
    found = []
    with garbage.uncollected():
        for folder in folders:
            found += [entry(job) for job in jobs(folder)] if is_sweep(folder) else [entry(folder)]
    return found


@dataclass(frozen=True)
class Ranking:
    """The metric that runs are compared by; None when their numbers do not compare."""

    metric: str | None
    descending: bool = False

    def value(self, of: Entry) -> float | None:
        """Return what a run is ranked by: its best evaluation if that is of this metric, else its last value."""
        if self.metric is None:
            return None
        if of.best is not None and of.best["metric"] == self.metric:
            return cast("float | None", of.best["value"])
        return of.metrics.get(self.metric)

    def key(self, of: Entry) -> tuple[bool, float]:
        """Return what sorts runs best first, those that failed or have no value last."""
        value = self.value(of)
        if of.state == "failed" or value is None or not math.isfinite(value):
            return True, 0.0
        return False, -value if self.descending else value


def ranking(of: Sequence[Entry], metric: str | None = None) -> Ranking:
    """Choose the metric that runs compare by: what they monitored, else the loss, unless data or losses differ.

    Args:
        of: The runs.
        metric: The one that is asked for, whether or not they compare.

    Raises:
        UsageError: None of the runs has such a metric.
    """
    measured = sorted({name for one in of for name in one.metrics})
    watched = [(best["metric"], one.config.get("mode")) for one in of if (best := one.best) is not None]
    if metric is not None:
        metric = metric.replace(" ", "_")
        if metric not in measured:
            raise unknown(f"--by={metric}", "no run here has such a metric", metric, measured, "--by=")
    else:
        if differ(of, "data"):
            return Ranking(None)
        if differ(of, "loss"):
            if "validation_accuracy" not in measured:
                return Ranking(None)
            metric = "validation_accuracy"
        else:
            usual = "validation_loss" if "validation_loss" in measured else "loss"
            names = {name for name, _ in watched}
            metric = names.pop() if len(names) == 1 else usual
    modes = {mode for name, mode in watched if name == metric}
    return Ranking(metric, modes == {"max"} or (metric == "validation_accuracy" and modes != {"min"}))


def differ(of: Sequence[Entry], group: str) -> bool:
    """Say whether runs have different parts of a group, or the same with other settings."""
    parts = [(one.choices.get(group), config.get(group)) for one in of if (config := one.config)]
    return any(part != parts[0] for part in parts)


def best(folders: Iterable[Path]) -> Entry:
    """Return the best run in directories of runs and sweeps.

    Raises:
        UsageError: There is none, or the runs do not compare.
    """
    known = entries(folders)
    by = ranking(known)
    if by.metric is None:
        raise UsageError("best: the runs have different losses or data; `trainer runs --by METRIC` shows them by one")
    first = min(known, key=by.key, default=None)
    if first is None or by.key(first)[0]:
        raise UsageError("best: there is no run here yet that has a result; start one with `trainer run`")
    return first


def _jobs(path: Path) -> str:
    names = [p.name for p in jobs(path)] if is_sweep(path) else []
    return f"{names[0]} to {names[-1]}" if names else "none"
