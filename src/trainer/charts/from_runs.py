"""Turns runs into what a picture shows of them: their curves, means over seeds, a result over the settings swept."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from trainer.charts.picture import Cell, HeatMap, Line, Panel, Point, is_geometric, is_wide
from trainer.errors import UsageError, printable
from trainer.runs import curves
from trainer.runs.curves import Curve
from trainer.runs.differences import grouped, ordered, setting
from trainer.runs.directory import RunDirectory
from trainer.runs.entries import RunSummary
from trainer.runs.ranking import Ranking
from trainer.text import count, number, tick

LOSSES = ("loss", "validation_loss")
MOST = 10  # lines in colours of their own
_RUNS_OFF = 3.0  # of the height of the other lines, how much is left to those that run off
_Groups = Mapping[tuple[str, ...], Sequence["Measured"]]


@dataclass(frozen=True)
class Measured:
    """A run with what it measured, and what it is called in a picture."""

    entry: RunSummary
    curves: Mapping[str, Curve]
    label: str

    @property
    def failed(self) -> bool:
        """Whether the run failed."""
        return self.entry.state == "failed"


def of_run(of: RunSummary, metrics: Sequence[str] = LOSSES) -> list[Panel]:
    """Return the metrics of one run, those of a kind in one panel, with the best evaluation marked.

    Args:
        of: The run.
        metrics: What to draw: the training loss and the validation loss, unless others are named.

    Raises:
        UsageError: Its metrics.jsonl can't be read.
    """
    found = measured(of, metrics)
    kinds = dict.fromkeys(_kind(name) for name in metrics if name in found)
    panels = []
    for kind in kinds:
        names = [name for name in metrics if name in found and _kind(name) == kind]
        lines = [
            Line(
                title(name) if len(names) > 1 else "",
                found[name].steps,
                found[name].values,
                int(name.startswith("validation_")),
                best=_best(of, name, found[name], labelled=True),
                broken=of.state == "failed" and name == "loss",
                faint=name == "loss" and len(names) > 1 and _is_rough(found[name]),
            )
            for name in reversed(names)
        ]
        label = _with_loss(names[0], [of])
        panels.append(panel(lines, label.removeprefix("training ") if len(names) > 1 else label))
    return panels


def of_runs(several: Sequence[Measured], metrics: Sequence[str], bright: set[str]) -> list[Panel]:
    """Return a panel a metric with a line a run.

    Args:
        several: The runs, in the order of the legend.
        metrics: What to draw.
        bright: The names of the runs that are in colour, all others are pale.
    """
    colours = {one.entry.short: index for index, one in enumerate(o for o in several if o.entry.short in bright)}
    panels = []
    for metric in metrics:
        lines = []
        for one in several:
            if curve := one.curves.get(metric):
                colour = colours.get(one.entry.short)
                best = None if colour is None else _best(one.entry, metric, curve)
                label = "" if colour is None else one.label
                lines.append(Line(label, curve.steps, curve.values, colour, best=best, broken=one.failed))
        if lines:
            panels.append(panel(lines, _with_loss(metric, [one.entry for one in several])))
    return panels


def of_groups(groups: _Groups, metrics: Sequence[str], bright: set[tuple[str, ...]]) -> list[Panel]:
    """Return a panel a metric with a line a group: the mean of its runs, in a band that is their spread.

    A mean goes as far as all of the group do. Failed runs are no part of it: each is a dashed line that breaks off.

    Args:
        groups: The runs, by the values of the settings that they share.
        metrics: What to draw.
        bright: The groups that are in colour. All others are pale; of a single one, so are the runs it is made of.
    """
    colours = {values: index for index, values in enumerate(v for v in groups if v in bright)}
    panels = []
    for metric in metrics:
        lines, behind, most = [], [], 1
        for values, members in groups.items():
            colour = colours.get(values)
            label = "" if colour is None else _group_label(values, members, groups.values())
            whole = [one.curves[metric] for one in members if metric in one.curves and not one.failed]
            most = max(most, len(whole))
            if whole:
                line = mean(whole, label, colour)
                lines.append(line if colour is not None else replace(line, low=(), high=()))
            for one in members:
                if metric in one.curves and (one.failed or len(groups) == 1):
                    curve, shade = one.curves[metric], colour if one.failed else None
                    name = label if one.failed and not whole and one is members[0] else ""
                    behind.append(Line(name, curve.steps, curve.values, shade, dashed=one.failed, broken=one.failed))
        if lines or behind:
            of = [one.entry for members in groups.values() for one in members]
            panels.append(replace(panel([*lines, *behind], _with_loss(metric, of)), band=_band(most)))
    return panels


def against(found: Sequence[RunSummary], by: Ranking, key: str, others: Sequence[str]) -> Panel:
    """Return the results of runs over a setting that is a number, a line for each combination of other settings.

    Args:
        found: The runs.
        by: What their results are.
        key: The setting.
        others: Settings to tell apart; over the rest, the seeds, goes the mean.
    """
    of_key = {one.short: float(setting(one, key)) for one in found}
    levels = sorted(set(of_key.values()))
    lines, failed, most = [], set(), 1
    for colour, (values, members) in enumerate(grouped(found, others).items()):
        results: dict[float, list[float]] = {level: [] for level in levels}
        for one in members:
            value = result(one, by)
            if value is None:
                failed.add(of_key[one.short])
            else:
                results[of_key[one.short]].append(value)
        most = max(most, *map(len, results.values()))
        label = ", ".join(values) or mean_of([len(of) for of in results.values() if of])
        at = [level for level in levels if results[level]]
        if at:
            lines.append(_spread(at, [results[level] for level in at], label if len(found) > len(at) else "", colour))
            if any(len(of) > 1 for of in results.values()):
                each_x = [level for level in at for _ in results[level]]
                each_y = [value for level in at for value in results[level]]
                lines.append(Line("", each_x, each_y, None, dots=True, joined=False))
    points = [
        (y, x, index) for index, line in enumerate(lines) if line.joined for x, y in zip(line.x, line.y, strict=True)
    ]
    if points:
        y, x, index = max(points) if by.descending else min(points)
        label = f"best {number(y)} at {key}={tick(x)}"
        lines[index] = replace(lines[index], best=Point(x, y, label))
    log_y = is_wide(y for line in lines for y in line.y) and not _is_share(str(by.metric))
    ticks = levels if len(levels) <= MOST else ()
    return Panel(
        lines, key, result_title(found, by), is_geometric(levels), log_y, ticks, failed=sorted(failed), band=_band(most)
    )


def heat_map(found: Sequence[RunSummary], by: Ranking, column: str, row: str) -> HeatMap:
    """Return the results of runs over two settings, the mean over all others.

    Args:
        found: The runs.
        by: What their results are.
        column: The setting that goes to the right.
        row: The setting that goes up.
    """
    cells = {}
    for (x, y), members in grouped(found, [column, row]).items():
        results = [value for one in members if (value := result(one, by)) is not None]
        failed = sum(one.state == "failed" for one in members)
        mean = statistics.fmean(results) if results else None
        cells[x, y] = Cell(mean, statistics.stdev(results) if len(results) > 1 else None, len(results), failed)
    known = {place: cell.value for place, cell in cells.items() if cell.value is not None}
    best = (max if by.descending else min)(known, key=known.__getitem__) if known else None
    return HeatMap(
        ordered(x for x, _ in cells),
        ordered(y for _, y in cells),
        cells,
        column,
        row,
        result_title(found, by),
        is_wide(known.values()) and not _is_share(str(by.metric)),
        best,
        by.descending,
    )


def measured(of: RunSummary, metrics: Iterable[str]) -> dict[str, Curve]:
    """Return metrics of a run by name, those that it has not measured left out.

    Raises:
        UsageError: Its metrics.jsonl can't be read.
    """
    path = RunDirectory(of.path).metrics
    try:
        return curves.read(path, metrics)
    except FileNotFoundError:
        return {}  # it has not begun
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} can't be read: it {error}") from error


def result(of: RunSummary, by: Ranking) -> float | None:
    """Return what a run is judged by; None if it failed or has no such number."""
    value = None if of.state == "failed" else by.value(of)
    return value if value is not None and abs(value) <= curves.LARGEST else None


def result_title(found: Sequence[RunSummary], by: Ranking) -> str:
    """Return the name of what runs are judged by."""
    watched = any(one.best is not None and one.best["metric"] == by.metric for one in found)
    return f"{'best' if watched else 'last'} {_with_loss(str(by.metric), found)}"


def mean_of(counts: Sequence[int]) -> str:
    """Say of how many runs the means of some groups are; nothing if they have one each."""
    most, least = max(counts, default=0), min(counts, default=0)
    if most <= 1:
        return ""
    return f"mean of {most}" if most == least else f"mean of {least} to {most}"


def stops_apart(members: Iterable[Measured], metrics: Iterable[str]) -> bool:
    """Say whether runs of a group that did not fail stopped at different steps."""
    whole = [one for one in members if not one.failed]
    return any(len({one.curves[name].steps[-1] for one in whole if name in one.curves}) > 1 for name in metrics)


def title(metric: str) -> str:
    """Return the name of a metric as one reads it."""
    return {"loss": "training loss", "lr": "learning rate"}.get(metric, printable(metric).replace("_", " "))


def panel(lines: Sequence[Line], y_label: str) -> Panel:
    """Return lines over the steps in axes that suit them: a run that fails may leave them upwards."""
    inside = [y for line in lines if not line.broken for y in line.y if math.isfinite(y)]
    inside += [line.y[0] for line in lines if line.broken and len(line.y) and math.isfinite(line.y[0])]
    everything = [y for line in lines for y in line.y if math.isfinite(y)]
    linear = any(word in y_label for word in ("accuracy", "learning rate"))
    top = None
    if any(not line.broken for line in lines) and inside:
        low, high = min(inside), max(inside)
        limit = high * 10 if is_wide(inside) else high + (high - low) * _RUNS_OFF / 10
        top = limit if max(everything) > limit else None
    log = is_wide(everything if top is None else (min(y, top) for y in everything)) and not linear
    return Panel(lines, y_label=y_label, log_y=log, top=top)


def _best(of: RunSummary, metric: str, curve: Curve, labelled: bool = False) -> Point | None:
    """Return the best evaluation of a run if it is one of this metric."""
    best = of.best
    if best is None or best["metric"] != metric or not isinstance(best["step"], int):
        return None
    value = curve.at(best["step"])
    label = f"best {number(value)} at step {best['step']:,}" if labelled else ""
    return Point(best["step"], value, label) if math.isfinite(value) else None


def mean(of: Sequence[Curve], label: str = "", colour: int | None = 0) -> Line:
    """Return the mean of curves at all steps at which one of them has a value and all of them have begun and go on."""
    if all(curve.steps == of[0].steps for curve in of):
        steps: Sequence[int] = of[0].steps
        columns = list(zip(*(curve.values for curve in of), strict=True))
    else:
        first, last = max(curve.steps[0] for curve in of), min(curve.steps[-1] for curve in of)
        steps = sorted({step for curve in of for step in curve.steps if first <= step <= last})
        columns = [tuple(curve.at(step) for curve in of) for step in steps]
    return _spread(steps, columns, label, colour, dots=False)


def _spread(
    x: Sequence[float], of: Sequence[Sequence[float]], label: str, colour: int | None, dots: bool = True
) -> Line:
    """Return a line through means, in a band: the standard deviation to either side; of two values their range.

    A band of positive numbers does not reach zero: there it ends at the lowest of them.
    """
    means = [_fmean(values) for values in of]
    low: list[float] = []
    high: list[float] = []
    if max(map(len, of), default=1) > 1:
        for mean, values in zip(means, of, strict=True):
            below, above = _edges(mean, values)
            low.append(below)
            high.append(above)
    return Line(label, x, means, colour, low, high, dots=dots)


def _fmean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan


def _edges(mean: float, values: Sequence[float]) -> tuple[float, float]:
    if not math.isfinite(mean) or len(values) == 1:
        return mean, mean
    if len(values) == 2:
        return min(values), max(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    low = mean - spread
    return (min(values) if low <= 0 < min(values) else low), mean + spread


def _group_label(values: tuple[str, ...], members: Sequence[Measured], groups: Iterable[Sequence[Measured]]) -> str:
    """Return what the line of a group is called: its values, and its runs where the groups differ in them."""
    failed = sum(one.failed for one in members)
    whole = len(members) - failed
    counts = {len(group) - sum(one.failed for one in group) for group in groups} - {0}
    facts = [count(whole, "run")] if whole and len(counts) > 1 else []
    facts += [f"{failed} failed"] if failed else []
    label = ", ".join(values) or mean_of([whole])
    return f"{label} ({', '.join(facts)})" if facts else label


def _band(most: int) -> str:
    """Return what the band around means of so many values is."""
    return "" if most < 2 else "range" if most == 2 else "± standard deviation"


def _is_rough(curve: Curve) -> bool:
    """Say whether a curve goes up and down at most steps, as a loss over single batches does."""
    turns = sum(
        (b - a) * (c - b) < 0 for a, b, c in zip(curve.values, curve.values[1:], curve.values[2:], strict=False)
    )
    return turns > len(curve.values) / 4


def _kind(metric: str) -> str:
    return metric.removeprefix("validation_")


def _is_share(metric: str) -> bool:
    return metric.endswith("accuracy")


def _with_loss(metric: str, found: Sequence[RunSummary]) -> str:
    """Return the name of a metric, and of a loss which one it is."""
    used = {one.choices.get("loss") for one in found}
    name = title(metric)
    return f"{name} ({used.pop()})" if name.endswith("loss") and len(used) == 1 and None not in used else name
