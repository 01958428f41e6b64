"""Draws in a terminal: lines as braille dots in color, as marks without color, as ASCII without Unicode.

screen.stdout.print(text_chart.draw(Panel([Line("loss", steps, losses)], y_label="loss"), screen.stdout))
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.console import Console
from rich.text import Text

from trainer.charts.picture import Cell, HeatMap, Line, Panel
from trainer.text import tick

WIDEST = 100  # columns
_TALLEST, _LOWEST = 16, 8  # rows of a chart with its axis
_BESIDES = 8  # rows of the screen that stay free
_COLOURS = (
    "cyan",
    "magenta",
    "yellow",
    "green",
    "red",
    "blue",
    "bright_cyan",
    "bright_magenta",
    "bright_green",
    "white",
)
_PALE = "bright_black"
_MARKS = "*o+x#@%&=~"
_PALE_MARK = "."
_BEST, _BROKEN, _POINT = ("◆", "O"), ("✗", "X"), ("●", "O")  # in Unicode and in ASCII
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of a braille character, by column and row
_BRAILLE = 0x2800
_SAME, _TINY = 1e-12, 1e-270  # numbers this close are drawn as one: relative to their size, or to _TINY
_TICK_COLUMNS = 12  # per x tick
_TICK_ROWS = 4  # per y tick


def draw(panel: Panel, console: Console, height: int | None = None) -> Text:
    """Return a chart of lines as text, with axes and a legend.

    Args:
        panel: The lines. A line without a finite value appears only in the legend.
        console: The console to draw for, with its width, characters and colors.
        height: Rows of the chart and its axis; None: chosen for the console.
    """
    width = max(min(console.width, WIDEST), 20)
    height = height or max(min(console.height - _BESIDES, _TALLEST), _LOWEST)
    unicode, colors = console.encoding.startswith("utf"), console.color_system is not None
    points = [(x, y) for line in panel.lines for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    xs = [*(x for x, _ in points), *panel.failed]
    if panel.top is not None:
        points = [(x, min(y, panel.top)) for x, y in points]
    if not points:
        return Text("nothing to draw: no value is a finite number")
    y_axis = _Axis([y for _, y in points], panel.log_y, max(height // _TICK_ROWS, 2))
    gutter = max(map(len, y_axis.labels.values())) + 2
    columns = width - gutter
    x_axis = _Axis(xs, panel.log_x, max(columns // _TICK_COLUMNS, 2), panel.ticks, from_zero=True)
    num_rows = height - 2
    dotted = unicode and (colors or len(panel.lines) == 1)
    canvas = _Canvas(columns, num_rows, dotted, unicode)
    behind = [line for line in panel.lines if line.color is None]
    for line in (*behind, *(line for line in reversed(panel.lines) if line.color is not None)):
        canvas.add(line, x_axis, y_axis, panel.top, _mark(line))
    for value in panel.failed:
        canvas.mark_failed(x_axis.at(value))
    parts = [Text(_fit(_named(panel), width), style="bold")] if panel.y_label else []
    parts += _framed(canvas, y_axis, gutter, unicode)
    parts += _below(x_axis, panel.x_label, gutter, columns, unicode)
    parts += _legend(panel, width, dotted, unicode)
    return Text("\n").join(parts)


def rows(found: HeatMap, spread: bool) -> Iterator[list[Text]]:
    """Yield the rows of a heat map as cells of a table, the best cell in bold, with or without the deviations."""
    for row in reversed(found.rows):
        cells = [Text(row, style="bold")]
        for column in found.columns:
            cell = found.cells.get((column, row))
            value = "" if cell is None else _cell(cell, spread)
            cells.append(Text(value, style="bold green" if (column, row) == found.best else ""))
        yield cells


def _cell(cell: Cell, spread: bool) -> str:
    if cell.value is None:
        return "failed" if cell.failed else "no result"
    deviation = f"\n± {cell.spread:.2g}" if spread and cell.spread is not None else ""
    return f"{cell.value:.3g}{deviation}" + (f"\n{cell.failed} failed" if cell.failed else "")


class _Axis:
    """An axis: the positions of values, from 0 to 1, and the ticks.

    Args:
        values: All finite values.
        log: Whether it is logarithmic.
        most: The approximate number of ticks that fit.
        ticks: The values of the ticks; empty: chosen automatically.
        from_zero: Whether it starts at 0 if the values start close to 0.
    """

    def __init__(
        self, values: Sequence[float], log: bool, most: int, ticks: Sequence[float] = (), from_zero: bool = False
    ) -> None:
        self._map: Callable[[float], float] = math.log10 if log else float
        low, high = min(values), max(values)
        if from_zero and not log and 0 < low <= high / 20:
            low = 0.0
        if high - low <= _SAME * max(abs(low), abs(high), _TINY):
            room = abs(low) / 2 if abs(low) > _TINY else 1.0
            low, high = (low / 2, high * 2) if log else (low - room, high + room)
        self._low, self._high = self._map(low), self._map(high)
        chosen = ticks or (_decades(low, high, most) if log else _round_numbers(low, high, most))
        self.labels = {value: tick(value) for value in chosen}

    def at(self, value: float) -> float:
        """Return the position of a value."""
        return (self._map(value) - self._low) / (self._high - self._low)


def _round_numbers(low: float, high: float, most: int) -> list[float]:
    """Return the multiples of 1, 2 or 5 times a power of ten between two numbers, about `most` of them."""
    least = (high - low) / most
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float, most: int) -> list[float]:
    """Return the powers of ten between two positive numbers, about `most` of them; round numbers if there are few."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first < 1:
        return [
            factor * 10.0**power
            for power in range(first - 1, last + 1)
            for factor in (1, 2, 5)
            if low <= factor * 10.0**power <= high
        ] or _round_numbers(low, high, most)
    stride = max(math.ceil((last - first + 1) / (most + 1)), 1)
    return [10.0**power for power in range(first, last + 1) if power % stride == 0]


class _Canvas:
    """A grid of characters to draw lines into, as braille dots or as marks.

    Args:
        columns: Characters per row.
        rows: Number of rows.
        dotted: Whether a character has 2 x 4 dots.
        unicode: Whether the marks of points may be Unicode.
    """

    def __init__(self, columns: int, rows: int, dotted: bool, unicode: bool) -> None:
        self._columns, self._rows, self._ascii = columns, rows, not unicode
        self._across, self._down = (2, 4) if dotted else (1, 1)
        self._dots = [[0] * columns for _ in range(rows)]
        self._marks: list[list[str]] = [[""] * columns for _ in range(rows)]
        self._styles = [[""] * columns for _ in range(rows)]

    def add(self, line: Line, x: _Axis, y: _Axis, top: float | None, mark: str) -> None:
        """Draw a line over the existing content.

        Args:
            line: The line.
            x: The horizontal axis.
            y: The vertical axis.
            top: The position of all higher values.
            mark: The character for its points if there are no dots.
        """
        style = _style(line)
        before: tuple[int, int] | None = None
        for value_x, value_y in zip(*line.thinned(self._columns * self._across), strict=True):
            if not math.isfinite(value_y):
                before = None
                continue
            now = self._dot(x.at(value_x), y.at(value_y if top is None else min(value_y, top)))
            for column, row in _between(before if before and line.joined else now, now):
                self._set(column, row, mark, style)
            before = now
            if line.dots:
                self._put(now, _POINT[self._ascii], style)
        if line.best is not None:
            self._put(self._dot(x.at(line.best.x), y.at(line.best.y)), _BEST[self._ascii], f"bold {style}")
        if line.broken and before is not None:
            self._put(before, _BROKEN[self._ascii], f"bold {style}")

    def mark_failed(self, across: float) -> None:
        """Mark a failed run at the upper edge."""
        self._put(self._dot(across, 1.0), _BROKEN[self._ascii], "bold red")

    def _dot(self, across: float, up: float) -> tuple[int, int]:
        """Return the dot, counted from the upper left, at a position of the axes."""
        columns, rows = self._columns * self._across, self._rows * self._down
        return _within(across * (columns - 1), columns), _within((1 - up) * (rows - 1), rows)

    def _set(self, column: int, row: int, mark: str, style: str) -> None:
        where = row // self._down, column // self._across
        if self._down > 1:
            self._dots[where[0]][where[1]] |= _DOTS[column % 2][row % 4]
            self._marks[where[0]][where[1]] = ""
        else:
            self._marks[where[0]][where[1]] = mark
        self._styles[where[0]][where[1]] = style

    def _put(self, dot: tuple[int, int], character: str, style: str) -> None:
        row, column = dot[1] // self._down, dot[0] // self._across
        self._marks[row][column], self._styles[row][column] = character, style

    def lines(self) -> Iterator[Text]:
        """Yield the rows, from the top."""
        for dots, marks, styles in zip(self._dots, self._marks, self._styles, strict=True):
            row = zip(styles, dots, marks, strict=True)
            text = Text()
            for style, cells in itertools.groupby(row, key=lambda cell: cell[0]):
                text.append("".join(mark or (chr(_BRAILLE + bits) if bits else " ") for _, bits, mark in cells), style)
            text.rstrip()
            yield text


def _within(value: float, size: int) -> int:
    return min(max(round(value), 0), size - 1)


def _between(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    across, down = end[0] - start[0], end[1] - start[1]
    steps = max(abs(across), abs(down), 1)
    for index in range(steps + 1):
        yield start[0] + round(across * index / steps), start[1] + round(down * index / steps)


def _style(line: Line) -> str:
    return _PALE if line.color is None else _COLOURS[line.color % len(_COLOURS)]


def _mark(line: Line) -> str:
    return _PALE_MARK if line.color is None else _MARKS[line.color % len(_MARKS)]


def _named(panel: Panel) -> str:
    return f"{panel.y_label} (log scale)" if panel.log_y else panel.y_label


def _framed(canvas: _Canvas, axis: _Axis, gutter: int, unicode: bool) -> list[Text]:
    """Return the rows of a canvas behind the vertical axis and its ticks."""
    rows = list(canvas.lines())
    labels = {_within((1 - axis.at(value)) * (len(rows) - 1), len(rows)): text for value, text in axis.labels.items()}
    bar, notch = ("│", "┤") if unicode else ("|", "+")
    return [
        Text.assemble((f"{labels.get(index, ''):>{gutter - 2}} {notch if index in labels else bar}", "dim"), row)
        for index, row in enumerate(rows)
    ]


def _below(axis: _Axis, label: str, gutter: int, columns: int, unicode: bool) -> list[Text]:
    """Return the horizontal axis with the numbers at its ticks and its label, on the right if there is room."""
    corner, bar, notch = ("└", "─", "┬") if unicode else ("+", "-", "+")
    line, numbers = [bar] * columns, [" "] * columns
    free = columns - len(label) - 1
    for value, text in axis.labels.items():
        column = _within(axis.at(value) * (columns - 1), columns)
        start = min(max(column - len(text) // 2, 0), columns - len(text))
        if start >= 0 and "".join(numbers[max(start - 1, 0) : start + len(text) + 1]).isspace():
            line[column] = notch
            numbers[start : start + len(text)] = text
            free = free if start + len(text) < free else -1
    rows = [Text(" " * (gutter - 1) + corner + "".join(line), style="dim")]
    if label and free > 0:
        numbers[free + 1 :] = label
        label = ""
    rows.append(Text(" " * gutter + "".join(numbers).rstrip(), style="dim"))
    return rows + ([Text(label.rjust(gutter + columns), style="dim")] if label else [])


def _legend(panel: Panel, width: int, dotted: bool, unicode: bool) -> list[Text]:
    """Return the labels of the lines, arranged in rows that fit."""
    entries, seen = [], set()
    for line in panel.lines:
        if line.label and line.label not in seen:
            seen.add(line.label)
            key = "━━" if dotted else _mark(line) * 2
            entries.append(Text.assemble((key, _style(line)), f" {_fit(line.label, width - 3)}"))
        if line.best is not None and line.best.label:
            mark = (_BEST[not unicode], f"bold {_style(line)}")
            entries.append(Text.assemble(mark, f" {_fit(line.best.label, width - 2)}"))
    if panel.failed:
        entries.append(Text.assemble((_BROKEN[not unicode], "bold red"), " failed"))
    return list(_flowing(entries, width))


def _flowing(entries: Iterable[Text], width: int) -> Iterator[Text]:
    row = Text()
    for entry in entries:
        if row and len(row) + 3 + len(entry) > width:
            yield row
            row = Text()
        row = Text.assemble(row, "   ", entry) if row else entry
    if row:
        yield row


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 3, 1)]}..."


def charts(panels: Iterable[Panel], console: Console) -> None:
    """Print panels of curves."""
    for panel in panels:
        console.print(draw(panel, console), soft_wrap=True)
