"""What a run shows while it trains: a live display on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trainer.loop import Row

REFRESH_SECONDS = 0.1
_FIRST_LINE, _SLOWEST_LINE = 1.0, 60.0


@dataclass
class Standing:
    """What the display shows besides the newest row."""

    steps: int
    first_step: int
    steps_per_epoch: int
    best: Callable[[], tuple[int | None, float | None]]
    numbers: Callable[[], dict[str, Any] | None]


class Display(Protocol):
    """Something that is entered for the duration of a run and reads its rows."""

    def __enter__(self) -> Display:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the screen in order."""

    def __call__(self, row: Row) -> None:
        """Take a row."""


class LiveDisplay:
    """A bar and the newest numbers, redrawn about ten times a second whatever the step rate."""

    def __init__(self, console: Console, standing: Standing) -> None:
        self._standing = standing
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._start = self._next = time.perf_counter()
        self._row: Row = {}
        self._validation: Row = {}

    def __enter__(self) -> LiveDisplay:
        """Begin to show."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear the display."""
        self._live.stop()

    def __call__(self, row: Row) -> None:
        """Take a row; redraw if it is time."""
        if "loss" in row:
            self._row = row
        else:
            self._validation = row
        now = time.perf_counter()
        if now >= self._next:
            self._live.update(self._render(now), refresh=True)
            self._next = time.perf_counter() + REFRESH_SECONDS

    def _render(self, now: float) -> RenderableType:
        standing, step = self._standing, self._row.get("step", self._standing.first_step)
        rate = (step - standing.first_step) / max(now - self._start, 1e-9)
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1, min_width=4)
        bar.add_column(no_wrap=True, justify="right")
        left = duration((standing.steps - step) / rate) if rate else "?"
        bar.add_row(
            Text(f"step {step:,}/{standing.steps:,}", style="bold"),
            ProgressBar(total=standing.steps, completed=step),
            Text(f"{left} left", style="cyan"),
        )
        facts = _facts(standing, self._row, self._validation)
        facts.append(("", f"{number(rate)} steps/s"))
        line = Text("  ").join(Text.assemble((f"{name} " if name else "", "dim"), value) for name, value in facts)
        parts: list[RenderableType] = [bar, line]
        numbers = standing.numbers()
        if numbers is not None:
            parts.append(Text("  ").join(Text.assemble((f"{n} ", "dim"), _plain(v)) for n, v in numbers.items()))
        return Group(*parts)


class PlainDisplay:
    """A line now and then, at growing intervals, for pipes, logs and dumb terminals."""

    def __init__(self, console: Console, standing: Standing) -> None:
        self._console, self._standing = console, standing
        self._start = time.perf_counter()
        self._interval = _FIRST_LINE
        self._next = self._start + self._interval
        self._validation: Row = {}

    def __enter__(self) -> PlainDisplay:
        """Begin to show."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the lines where they are."""

    def __call__(self, row: Row) -> None:
        """Take a row; print a line if it is time."""
        if "loss" not in row:
            self._validation = row
            return
        now = time.perf_counter()
        if now < self._next:
            return
        self._interval = min(self._interval * 2, _SLOWEST_LINE)
        self._next = now + self._interval
        standing = self._standing
        rate = (row["step"] - standing.first_step) / (now - self._start)
        facts = _facts(standing, row, self._validation)
        facts += [
            ("", f"{number(rate)} steps/s"),
            ("", f"{duration((standing.steps - row['step']) / rate)} left"),
        ]
        line = "  ".join(f"{name} {value}".strip() for name, value in facts)
        self._console.print(
            f"step {row['step']}/{standing.steps}  {line}", soft_wrap=True, highlight=False, markup=False
        )


class NoDisplay:
    """Shows nothing: for the jobs of a sweep, whose overview is elsewhere."""

    def __enter__(self) -> NoDisplay:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    def __call__(self, row: Row) -> None:
        """Ignore the row."""


def display(console: Console, standing: Standing) -> Display:
    """Return the display that fits the console."""
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveDisplay(console, standing) if live else PlainDisplay(console, standing)


def number(value: float | None) -> str:
    """Write a number in about six significant digits."""
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.6g}"


def duration(seconds: float) -> str:
    """Write a duration as 1:02 or 1:02:03."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _facts(standing: Standing, row: Row, validation: Row) -> list[tuple[str, str]]:
    facts = [("loss", number(row.get("loss")))] if row else []
    if standing.steps_per_epoch > 1 and row:
        facts.insert(0, ("epoch", str(row["epoch"])))
    facts += [
        (name.replace("_", " "), number(value)) for name, value in validation.items() if name.startswith("validation")
    ]
    step, value = standing.best()
    if step is not None:
        facts.append(("best", f"{number(value)} at {step:,}"))
    if row:
        facts.append(("lr", f"{row['lr']:.3g}"))
    return facts


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(map(_plain, value)) + "]"
    return f"{value:.4f}"
