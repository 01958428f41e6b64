"""Turns runs into the parts of a picture: curves, means over seeds, results over the swept settings."""

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
MOST = 10  # lines in color
_RUNS_OFF = 3.0  # space above the other lines for diverging ones, in tenths of their height
Groups = Mapping[tuple[str, ...], Sequence["Measured"]]  # by the values of some settings


@dataclass(frozen=True)
class Measured:
    """A run with its curves, and its label in a picture."""

    entry: RunSummary
    curves: Mapping[str, Curve]
    label: str

    @property
    def failed(self) -> bool:
        """Whether the run failed."""
        return self.entry.state == "failed"


def of_run(of: RunSummary, metrics: Sequence[str] = LOSSES) -> list[Panel]:
    """Return the curves of one run, a metric and its validation metric in one panel, with the best evaluation marked.

    Args:
        of: The run.
        metrics: The metrics to draw.

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
    """Return a panel for each metric, with a line for each run.

    Args:
        several: The runs, in the order of the legend.
        metrics: The metrics to draw.
        bright: The names of the runs in color; all others are pale.
    """
    colors = {one.entry.short: index for index, one in enumerate(o for o in several if o.entry.short in bright)}
    panels = []
    for metric in metrics:
        lines = []
        for one in several:
            if curve := one.curves.get(metric):
                color = colors.get(one.entry.short)
                best = None if color is None else _best(one.entry, metric, curve)
                label = "" if color is None else one.label
                lines.append(Line(label, curve.steps, curve.values, color, best=best, broken=one.failed))
        if lines:
            panels.append(panel(lines, _with_loss(metric, [one.entry for one in several])))
    return panels


def of_groups(groups: Groups, metrics: Sequence[str], bright: set[tuple[str, ...]]) -> list[Panel]:
    """Return a panel for each metric, with a line for each group: the mean of its runs, in a band for their deviation.

    A mean ends where the first run of its group ends. Failed runs are not in the mean: each is a dashed line.

    Args:
        groups: The runs, by the values of their common settings.
        metrics: The metrics to draw.
        bright: The groups in color; all others are pale. The runs of a single group are drawn too, in pale.
    """
    colors = {values: index for index, values in enumerate(v for v in groups if v in bright)}
    panels = []
    for metric in metrics:
        lines, behind, most = [], [], 1
        for values, members in groups.items():
            color = colors.get(values)
            label = "" if color is None else _group_label(values, members, groups.values())
            whole = complete(members, metric)
            most = max(most, len(whole))
            if whole:
                line = mean(whole, label, color)
                lines.append(line if color is not None else replace(line, low=(), high=()))
            for one in members:
                if metric in one.curves and (one.failed or len(groups) == 1):
                    curve, shade = one.curves[metric], color if one.failed else None
                    name = label if one.failed and not whole and one is members[0] else ""
                    behind.append(Line(name, curve.steps, curve.values, shade, dashed=one.failed, broken=one.failed))
        if lines or behind:
            of = [one.entry for members in groups.values() for one in members]
            panels.append(replace(panel([*lines, *behind], _with_loss(metric, of)), band=_band(most)))
    return panels


def against(found: Sequence[RunSummary], by: Ranking, key: str, others: Sequence[str]) -> Panel:
    """Return the results of runs over a numeric setting, with a line for each combination of other settings.

    Args:
        found: The runs.
        by: The metric of the results.
        key: The setting.
        others: The settings that separate the lines; the mean is taken over the rest, such as seeds.
    """
    of_key = {one.short: float(setting(one, key)) for one in found}
    levels = sorted(set(of_key.values()))
    failed = sorted({of_key[one.short] for one in found if result(one, by) is None})
    lines, most = [], 1
    for color, (values, members) in enumerate(grouped(found, others).items()):
        of_level: dict[float, list[RunSummary]] = {}
        for one in members:
            of_level.setdefault(of_key[one.short], []).append(one)
        known = {level: numbers for level in sorted(of_level) if (numbers := results(of_level[level], by))}
        if not known:
            continue
        most = max(most, *map(len, known.values()))
        label = ", ".join(values) or mean_of([*map(len, known.values())])
        lines.append(_mean_line([*known], [*known.values()], label if len(found) > len(known) else "", color))
        if any(len(numbers) > 1 for numbers in known.values()):
            each_x = [level for level, numbers in known.items() for _ in numbers]
            each_y = [value for numbers in known.values() for value in numbers]
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
        lines, key, result_title(found, by), is_geometric(levels), log_y, ticks, failed=failed, band=_band(most)
    )


def heat_map(found: Sequence[RunSummary], by: Ranking, column: str, row: str) -> HeatMap:
    """Return the results of runs over two settings, averaged over all others.

    Args:
        found: The runs.
        by: The metric of the results.
        column: The setting on the horizontal axis.
        row: The setting on the vertical axis.
    """
    cells = {}
    for (x, y), members in grouped(found, [column, row]).items():
        numbers = results(members, by)
        failed = sum(one.state == "failed" for one in members)
        mean = statistics.fmean(numbers) if numbers else None
        cells[x, y] = Cell(mean, statistics.stdev(numbers) if len(numbers) > 1 else None, len(numbers), failed)
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
    """Return the curves of a run by metric, without the metrics that it has not measured.

    Raises:
        UsageError: Its metrics.jsonl can't be read.
    """
    path = RunDirectory(of.path).metrics
    try:
        return curves.read(path, metrics)
    except FileNotFoundError:
        return {}  # it has not started
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} can't be read: it {error}") from error


def result(of: RunSummary, by: Ranking) -> float | None:
    """Return the value that ranks a run; None if it failed or has none."""
    value = None if of.state == "failed" else by.value(of)
    return value if value is not None and abs(value) <= curves.LARGEST else None


def results(found: Iterable[RunSummary], by: Ranking) -> list[float]:
    """Return the values that rank runs, without the runs that have none."""
    return [value for one in found if (value := result(one, by)) is not None]


def complete(members: Iterable[Measured], metric: str) -> list[Curve]:
    """Return the curves of a metric of the runs that did not fail."""
    return [one.curves[metric] for one in members if metric in one.curves and not one.failed]


def result_title(found: Sequence[RunSummary], by: Ranking) -> str:
    """Return the name of the metric that ranks runs, as an axis shows it."""
    watched = any(one.best is not None and one.best["metric"] == by.metric for one in found)
    return f"{'best' if watched else 'last'} {_with_loss(str(by.metric), found)}"


def mean_of(counts: Sequence[int]) -> str:
    """Return in words how many runs are averaged in each group, "" if only one.

    Args:
        counts: The numbers of runs in the groups.
    """
    most, least = max(counts, default=0), min(counts, default=0)
    if most <= 1:
        return ""
    return f"mean of {most}" if most == least else f"mean of {least} to {most}"


def stops_apart(members: Iterable[Measured], metrics: Iterable[str]) -> bool:
    """Return whether the runs of a group that did not fail stopped at different steps."""
    members = list(members)
    return any(len({curve.steps[-1] for curve in complete(members, name)}) > 1 for name in metrics)


def title(metric: str) -> str:
    """Return the name of a metric as an axis shows it."""
    return {"loss": "training loss", "lr": "learning rate"}.get(metric, printable(metric).replace("_", " "))


def panel(lines: Sequence[Line], y_label: str) -> Panel:
    """Return a panel of lines over the steps with suitable axes; a diverging run may leave it at the top."""
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
    """Return the best evaluation of a run if it is of this metric."""
    best = of.best
    if best is None or best["metric"] != metric or not isinstance(best["step"], int):
        return None
    # The evaluation after the last step has no row.
    value = best["value"] if best["step"] > curve.steps[-1] else curve.at(best["step"])
    if value is None or not abs(value) <= curves.LARGEST:
        return None
    return Point(best["step"], value, f"best {number(value)} at step {best['step']:,}" if labelled else "")


def mean(of: Sequence[Curve], label: str = "", color: int | None = 0) -> Line:
    """Return the mean of curves at each step of any of them, within the range of steps that all of them cover."""
    if all(curve.steps == of[0].steps for curve in of):
        steps: Sequence[int] = of[0].steps
        columns = list(zip(*(curve.values for curve in of), strict=True))
    else:
        first, last = max(curve.steps[0] for curve in of), min(curve.steps[-1] for curve in of)
        steps = sorted({step for curve in of for step in curve.steps if first <= step <= last})
        columns = [tuple(curve.at(step) for curve in of) for step in steps]
    return _mean_line(steps, columns, label, color, dots=False)


def _mean_line(
    x: Sequence[float], of: Sequence[Sequence[float]], label: str, color: int | None, dots: bool = True
) -> Line:
    """Return a line through means, in a band of one standard deviation to either side, or the range of two values.

    A band of positive numbers does not reach zero: it ends at the lowest of them instead.
    """
    means = [_fmean(values) for values in of]
    low: list[float] = []
    high: list[float] = []
    if max(map(len, of), default=1) > 1:
        for mean, values in zip(means, of, strict=True):
            below, above = _edges(mean, values)
            low.append(below)
            high.append(above)
    return Line(label, x, means, color, low, high, dots=dots)


def _fmean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan


def _edges(mean: float, values: Sequence[float]) -> tuple[float, float]:
    if not math.isfinite(mean) or len(values) == 1:
        return mean, mean
    if len(values) == 2:
        return min(values), max(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    low = mean - deviation
    return (min(values) if low <= 0 < min(values) else low), mean + deviation


def _group_label(values: tuple[str, ...], members: Sequence[Measured], groups: Iterable[Sequence[Measured]]) -> str:
    """Return the label of a group: its values, and its number of runs if the groups differ in size."""
    failed = sum(one.failed for one in members)
    whole = len(members) - failed
    counts = {len(group) - sum(one.failed for one in group) for group in groups} - {0}
    facts = [count(whole, "run")] if whole and len(counts) > 1 else []
    facts += [f"{failed} failed"] if failed else []
    label = ", ".join(values) or mean_of([whole])
    return f"{label} ({', '.join(facts)})" if facts else label


def _band(most: int) -> str:
    """Return the meaning of the band around means of at most `most` values."""
    return "" if most < 2 else "range" if most == 2 else "± standard deviation"


def _is_rough(curve: Curve) -> bool:
    """Return whether a curve zigzags, like the loss of single batches."""
    turns = sum(
        (b - a) * (c - b) < 0 for a, b, c in zip(curve.values, curve.values[1:], curve.values[2:], strict=False)
    )
    return turns > len(curve.values) / 4


def _kind(metric: str) -> str:
    return metric.removeprefix("validation_")


def _is_share(metric: str) -> bool:
    return metric.endswith("accuracy")


def _with_loss(metric: str, found: Sequence[RunSummary]) -> str:
    """Return the name of a metric; for a loss, also which loss function it is."""
    used = {one.choices.get("loss") for one in found}
    name = title(metric)
    return f"{name} ({used.pop()})" if name.endswith("loss") and len(used) == 1 and None not in used else name
