"""What a picture shows, whoever draws it: lines in panels, or numbers in a grid. Plain data, without libraries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

STEP = "step"  # what x counts where lines are curves
_DECADES = 2  # a positive axis that spans more is logarithmic
_EVEN = 1.5  # values whose ratios are more even than their distances by this factor were chosen on a log scale


class Point(NamedTuple):
    """A point that is marked, and what the legend says of it, if anything."""

    x: float
    y: float
    label: str = ""


@dataclass(frozen=True)
class Line:
    """Points joined in the order of x.

    Args:
        label: What the legend calls it.
        x: Rising numbers.
        y: As many numbers; nan is a gap.
        colour: Lines of one number share a colour; None is pale and stands behind the others.
        low: The lower edge of a band around the line, as long as y.
        high: The upper edge.
        dashed: Whether it is drawn in dashes.
        dots: Whether each point is marked.
        joined: Whether the points are joined.
        best: The point to be marked as the best.
        broken: Whether its last point is marked as where a run broke off.
        faint: Whether it is thin, for it goes up and down so much that it would hide others.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int | None = 0
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dashed: bool = False
    dots: bool = False
    joined: bool = True
    best: Point | None = None
    broken: bool = False
    faint: bool = False

    def thinned(self, buckets: int) -> tuple[list[float], list[float]]:
        """Return its points, of many only those that a picture of so many columns can show.

        Of each column stay the first, the lowest, the highest and the last value, and a gap if there is one.
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
    """Return the indices of the first, lowest, highest and last value of a part, and of its first gap."""
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
        lines: What is drawn; of lines that cross, earlier ones stand in front.
        x_label: What x counts.
        y_label: What y measures.
        log_x: Whether x is on a log scale.
        log_y: Whether y is on a log scale.
        ticks: Where x has ticks; empty: where they suit.
        top: Where y ends, when lines that run off go beyond; None: where they end.
        failed: Where runs have no y because they failed.
        band: What the bands around lines are.
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
        runs: How many have a result.
        failed: How many failed.
    """

    value: float | None
    spread: float | None = None
    runs: int = 0
    failed: int = 0


@dataclass(frozen=True)
class HeatMap:
    """Numbers over two settings.

    Args:
        columns: The values of the first, in order.
        rows: The values of the second, the lowest at the bottom.
        cells: What is known, by (column, row); combinations that were not run are missing.
        x_label: The first setting.
        y_label: The second.
        z_label: What the numbers are.
        log: Whether colours follow the logarithm.
        best: The best square.
        descending: Whether more is better.
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
    """Everything in one picture.

    Args:
        parts: Panels, or a heat map, next to each other.
        title: What stands above.
        legend: What stands above the names of the lines.
        ordered: Whether the colours of the lines follow a number that rises from line to line.
    """

    parts: Sequence[Panel | HeatMap]
    title: str = ""
    legend: str = ""
    ordered: bool = False


def is_wide(values: Iterable[float]) -> bool:
    """Say whether numbers are all positive and span more than two decades, so that they want a log scale."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > 10**_DECADES * min(finite)


def is_geometric(values: Iterable[float]) -> bool:
    """Say whether the distinct values of a setting stand on a log scale: 1e-4, 1e-3, 1e-2 or 16, 32, 64."""
    levels = sorted(set(values))
    if len(levels) < 2 or levels[0] <= 0:
        return False
    if len(levels) == 2:
        return levels[1] >= 10 * levels[0]
    gaps = [after - before for before, after in pairwise(levels)]
    ratios = [math.log(after / before) for before, after in pairwise(levels)]
    return max(gaps) / min(gaps) > _EVEN * max(ratios) / min(ratios)
