"""Describes pictures as plain data for the modules that draw: lines in panels, or numbers in a grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

STEP = "step"  # the x axis of curves
_DECADES = 2  # a positive axis that spans more is logarithmic
_EVEN = 1.5  # values are on a log scale if their ratios are this much more even than their distances


class Point(NamedTuple):
    """A marked point, and its label in the legend, if any."""

    x: float
    y: float
    label: str = ""


@dataclass(frozen=True)
class Line:
    """Points joined in the order of x.

    Args:
        label: The label in the legend.
        x: Increasing numbers.
        y: As many numbers; nan is a gap.
        color: The number of the color; None is pale and stands behind the others.
        low: The lower edge of a band around the line, as long as y.
        high: The upper edge.
        dashed: Whether the line is dashed.
        dots: Whether each point is marked.
        joined: Whether the points are joined.
        best: The point to mark as the best.
        broken: Whether to mark the last point as the end of a failed run.
        faint: Whether the line is thin, because its zigzags would hide others.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    color: int | None = 0
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dashed: bool = False
    dots: bool = False
    joined: bool = True
    best: Point | None = None
    broken: bool = False
    faint: bool = False

    def thinned(self, buckets: int) -> tuple[list[float], list[float]]:
        """Return its points, reduced to those that a picture with so many columns can show.

        Each column keeps its first, lowest, highest and last value, and a gap if there is one.
        """
        if len(self.x) <= 4 * buckets:
            return list(self.x), list(self.y)
        first, width = self.x[0], (self.x[-1] - self.x[0]) / buckets or 1.0
        x: list[float] = []
        y: list[float] = []
        start, size = 0, len(self.x)
        while start < size:
            edge = first + width * (math.floor((self.x[start] - first) / width) + 1)
            end = start + 1
            while end < size and self.x[end] < edge:
                end += 1
            for index in _extremes(self.y, start, end):
                x.append(self.x[index])
                y.append(self.y[index])
            start = end
        return x, y


def _extremes(y: Sequence[float], start: int, end: int) -> list[int]:
    """Return the indices of the first, lowest, highest and last value in a range, and of the first gap."""
    kept = {start, end - 1}
    finite = [index for index in range(start, end) if math.isfinite(y[index])]
    if finite:
        kept |= {min(finite, key=y.__getitem__), max(finite, key=y.__getitem__)}
    if len(finite) < end - start:
        kept.add(next(index for index in range(start, end) if not math.isfinite(y[index])))
    return sorted(kept)


@dataclass(frozen=True)
class Panel:
    """Lines in one pair of axes.

    Args:
        lines: The lines; earlier ones stand in front.
        x_label: The quantity on the x axis.
        y_label: The quantity on the y axis.
        log_x: Whether x is on a log scale.
        log_y: Whether y is on a log scale.
        ticks: The ticks of x; empty: chosen automatically.
        top: The upper end of y if diverging lines go beyond it; None: the highest value.
        failed: The x of runs that have no y because they failed.
        band: The meaning of the bands around lines.
    """

    lines: Sequence[Line]
    x_label: str = STEP
    y_label: str = ""
    log_x: bool = False
    log_y: bool = False
    ticks: Sequence[float] = ()
    top: float | None = None
    failed: Sequence[float] = ()
    band: str = ""


@dataclass(frozen=True)
class Cell:
    """One square of a heat map.

    Args:
        value: The mean over its runs; None if none of them has a result.
        spread: Their standard deviation; None for a single run.
        runs: The number of runs with a result.
        failed: The number of failed runs.
    """

    value: float | None
    spread: float | None = None
    runs: int = 0
    failed: int = 0


@dataclass(frozen=True)
class HeatMap:
    """Numbers over two settings.

    Args:
        columns: The values of the first setting, in order.
        rows: The values of the second setting, the lowest at the bottom.
        cells: The cells by (column, row), without the combinations that were not run.
        x_label: The first setting.
        y_label: The second setting.
        z_label: The quantity of the numbers.
        log: Whether the colors are on a log scale.
        best: The best cell.
        descending: Whether higher is better.
    """

    columns: Sequence[str]
    rows: Sequence[str]
    cells: dict[tuple[str, str], Cell]
    x_label: str
    y_label: str
    z_label: str
    log: bool = False
    best: tuple[str, str] | None = None
    descending: bool = False


@dataclass(frozen=True)
class Picture:
    """A whole picture.

    Args:
        parts: Panels, or a heat map, side by side.
        title: The title.
        legend: The heading of the legend.
        ordered: Whether the colors are a gradient, for a number that increases from line to line.
    """

    parts: Sequence[Panel | HeatMap]
    title: str = ""
    legend: str = ""
    ordered: bool = False


def is_wide(values: Iterable[float]) -> bool:
    """Return whether numbers need a log scale: all positive, over more than two decades."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > 10**_DECADES * min(finite)


def is_geometric(values: Iterable[float]) -> bool:
    """Return whether the distinct values of a setting are on a log scale: 1e-4, 1e-3, 1e-2 or 16, 32, 64."""
    levels = sorted(set(values))
    if len(levels) < 2 or levels[0] <= 0:
        return False
    if len(levels) == 2:
        return levels[1] >= 10 * levels[0]
    gaps = [after - before for before, after in pairwise(levels)]
    ratios = [math.log(after / before) for before, after in pairwise(levels)]
    return max(gaps) / min(gaps) > _EVEN * max(ratios) / min(ratios)
