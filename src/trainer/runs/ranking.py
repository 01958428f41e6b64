"""Ranks runs by a metric, and groups runs that have the same values in some settings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from trainer.errors import UsageError, unknown
from trainer.runs.differences import grouped
from trainer.runs.entries import RunSummary, entries


@dataclass(frozen=True)
class Ranking:
    """The metric by which runs are compared; None if their numbers are not comparable."""

    metric: str | None
    descending: bool = False

    def value(self, of: RunSummary) -> float | None:
        """Return the value by which a run is ranked: its best evaluation if that is of this metric, else the latest."""
        if self.metric is None:
            return None
        if of.best is not None and of.best["metric"] == self.metric:
            return cast("float | None", of.best["value"])
        return of.metrics.get(self.metric)

    def key(self, of: RunSummary) -> tuple[bool, float]:
        """Return a sort key: best runs first, failed runs and runs without a value last."""
        value = self.value(of)
        if of.state == "failed" or value is None or not math.isfinite(value):
            return True, 0.0
        return False, -value if self.descending else value


def ranking(of: Sequence[RunSummary], metric: str | None = None) -> Ranking:
    """Choose the metric by which runs are compared: the monitored one, else the loss, unless data or losses differ.

    Args:
        of: The runs.
        metric: The metric asked for, which is used even if the runs are not comparable.

    Raises:
        UsageError: None of the runs has such a metric.
    """
    measured = sorted({name for one in of for name in one.metrics})
    watched = [(best["metric"], _mode(one.config)) for one in of if (best := one.best) is not None]
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


def differ(of: Sequence[RunSummary], group: str) -> bool:
    """Return whether runs have different options or settings in a group."""
    parts = [(one.choices.get(group), config.get(group)) for one in of if (config := one.config)]
    return any(part != parts[0] for part in parts)


def best(folders: Iterable[Path]) -> RunSummary:
    """Return the best run in directories of runs and sweeps.

    Raises:
        UsageError: There is none, or the runs are not comparable.
    """
    known = entries(folders)
    by = ranking(known)
    if by.metric is None:
        raise UsageError("best: the runs have different losses or data; `trainer runs --by METRIC` ranks them")
    first = min(known, key=by.key, default=None)
    if first is None or by.key(first)[0]:
        raise UsageError("best: no run here has a result yet; start one with `trainer run`")
    return first


@dataclass(frozen=True)
class Group:
    """Runs that have the same values in some settings, with their values of the ranking metric."""

    settings: dict[str, str]
    numbers: list[float]

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return statistics.fmean(self.numbers)

    @property
    def spread(self) -> float | None:
        """The sample standard deviation of the values, None for a single value."""
        return statistics.stdev(self.numbers) if len(self.numbers) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the group as plain data."""
        return {**self.settings, "mean": self.mean, "spread": self.spread, "runs": len(self.numbers)}


def ranked_groups(
    found: list[RunSummary], by: Ranking, keys: Sequence[str], text: Callable[[RunSummary, str], str]
) -> list[Group]:
    """Return groups of the runs that have the same text for each key, the best mean first."""
    groups = []
    for values, members in grouped(found, keys, text).items():
        numbers = [value for one in members if one.state == "done" and (value := by.value(one)) is not None]
        if numbers:
            groups.append(Group(dict(zip(keys, values, strict=True)), numbers))
    return sorted(groups, key=lambda group: group.mean, reverse=by.descending)


def _mode(config: Mapping[str, Any]) -> str | None:
    """Return the mode in an unchecked configuration."""
    mode = config.get("mode")
    return mode if isinstance(mode, str) else None
