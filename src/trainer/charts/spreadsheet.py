"""Writes the numbers of runs as CSV in tidy form, one value per row, for spreadsheets and pandas."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from trainer.charts import from_runs
from trainer.charts.from_runs import Groups, Measured
from trainer.errors import printable
from trainer.runs.differences import number_of, setting
from trainer.runs.entries import RunSummary
from trainer.runs.ranking import Ranking
from trainer.text import show

_OBEYED = ("=", "+", "-", "@")  # a spreadsheet treats text that begins like this as a formula


def of_runs(several: Iterable[Measured], keys: Sequence[str], metrics: Iterable[str]) -> str:
    """Return a row for each value: run, the settings in which the runs differ, step, metric, value. A gap is empty.

    Args:
        several: The runs.
        keys: The settings.
        metrics: The metrics.
    """
    metrics = list(metrics)
    rows = (
        [*_identity(one.entry, keys), step, metric, value]
        for one in several
        for metric in metrics
        if metric in one.curves
        for step, value in zip(one.curves[metric].steps, one.curves[metric].values, strict=True)
    )
    return _written(["run", *keys, "step", "metric", "value"], rows)


def of_means(groups: Groups, keys: Sequence[str], metrics: Sequence[str]) -> str:
    """Return a row for each mean of a group: its settings, step, metric, mean, the edges of the band, number of runs.

    Args:
        groups: The runs, by the values of the settings.
        keys: The settings.
        metrics: The metrics.
    """
    rows: list[list[Any]] = []
    for values, members in groups.items():
        for metric in metrics:
            if whole := from_runs.complete(members, metric):
                line = from_runs.mean(whole)
                band = (line.low, line.high) if line.low else (line.y, line.y)
                for step, value, low, high in zip(line.x, line.y, *band, strict=True):
                    rows.append([*values, step, metric, value, low, high, len(whole)])
    return _written([*keys, "step", "metric", "mean", "low", "high", "runs"], rows)


def of_results(found: Iterable[RunSummary], keys: Sequence[str], by: Ranking) -> str:
    """Return a row for each run: run, the settings in which the runs differ, state, metric, value.

    Args:
        found: The runs.
        keys: The settings.
        by: The metric of the value; a failed run has no value.
    """
    rows = ([*_identity(one, keys), one.state, by.metric, from_runs.result(one, by)] for one in found)
    return _written(["run", *keys, "state", "metric", "value"], rows)


def _identity(of: RunSummary, keys: Iterable[str]) -> list[Any]:
    return [of.short, *(setting(of, key) for key in keys)]


def _written(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, head))
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Return the content of a cell: a number in full, "" for None, nan and inf, never text that is a formula."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = printable(value if isinstance(value, str) else show(value))
    return f"'{text}" if text.startswith(_OBEYED) and number_of(text) is None else text
