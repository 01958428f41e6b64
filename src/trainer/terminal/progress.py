"""Shows the progress of a run on stderr: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from trainer.session.display import Display, Standing
from trainer.text import clock, digits, rate

if TYPE_CHECKING:
    from trainer.training.loop import Row

REFRESH_SECONDS = 0.1
_MOST_OF_THE_TIME = 0.04  # a slow terminal is redrawn less often
_IDLE_REFRESHES = 2  # per second, by a thread: the clock keeps running during a long step
_RECENT_SECONDS = 30.0
_FIRST_LINE, _SLOWEST_LINE = 1.0, 60.0
_WIDEST, _SMALLEST_BAR = 100, 10
_CURVE_POINTS = 16
_BLOCKS = "▁▂▃▄▅▆▇█"


class Pace:
    """Steps per second over the last half minute, so that a slow start or a pause soon stops counting.

    Args:
        step: Finished steps at the start.
        now: Time of the start, in seconds of time.perf_counter.
    """

    def __init__(self, step: int, now: float) -> None:
        self._marks = deque([(now, step)])

    def note(self, step: int, now: float) -> None:
        """Record the number of finished steps."""
        if step == self._marks[-1][1]:
            return
        self._marks.append((now, step))
        while len(self._marks) > 2 and self._marks[1][0] <= now - _RECENT_SECONDS:
            self._marks.popleft()

    @property
    def rate(self) -> float:
        """Steps per second; 0 before the first step."""
        (then, first), (now, last) = self._marks[0], self._marks[-1]
        return (last - first) / max(now - then, 1e-9)

    def left(self, steps: int, now: float) -> float:
        """Return the estimated seconds until `steps` steps are finished."""
        then, step = self._marks[-1]
        return max((steps - step) / self.rate - (now - then), 0.0) if self.rate else math.inf


class Curve:
    """The values so far as a row of blocks, on a log scale if all are positive."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._seen, self._stride = 0, 1

    def note(self, value: float) -> None:
        """Record a value; of many values, evenly spaced ones are kept."""
        if not math.isfinite(value):
            return
        if self._seen % self._stride == 0:
            self._values.append(value)
        self._seen += 1
        if len(self._values) == 2 * _CURVE_POINTS:
            del self._values[1::2]
            self._stride *= 2

    def __str__(self) -> str:
        """Return the row of blocks, the newest value on the right; empty for fewer than two values."""
        values = self._values[-_CURVE_POINTS:]
        if len(self._values) > _CURVE_POINTS:
            values = [self._values[i * len(self._values) // _CURVE_POINTS] for i in range(1, _CURVE_POINTS)]
            values.append(self._values[-1])
        if len(values) < 2:
            return ""
        heights = list(map(math.log, values)) if min(values) > 0 else values
        low, span = min(heights), max(heights) - min(heights)
        return "".join(_BLOCKS[round((h - low) / span * (len(_BLOCKS) - 1)) if span else 0] for h in heights)


class LiveDisplay(ExitStack[None]):
    """A bar and the newest numbers, redrawn about ten times per second at any step rate."""

    def __init__(self, console: Console, standing: Standing) -> None:
        super().__init__()
        self._console, self._standing = console, standing
        self._row: Row = {"step": standing.first_step}
        self._validation: Row = {}
        self._numbers: dict[str, Any] | None = None
        self._curve = Curve()
        self._next = 0.0

    def __enter__(self) -> LiveDisplay:
        """Start the display; it is cleared on exit."""
        self._pace = Pace(self._standing.first_step, time.perf_counter())
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=_IDLE_REFRESHES,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # keep output of a model in a file or pipe
        )
        self._live.start(refresh=True)
        self.callback(self._live.stop)
        return self

    def __call__(self, row: Row) -> None:
        """Read a row; redraw if it is time."""
        if "loss" in row:
            self._row = row
        else:
            self._validation = row
        now = time.perf_counter()
        if now >= self._next:
            self._redraw(now)

    def _redraw(self, now: float) -> None:
        self._pace.note(self._row["step"], now)
        self._curve.note(self._row.get("loss", math.nan))
        self._numbers = self._standing.numbers()
        self._live.refresh()
        end = time.perf_counter()
        self._next = end + max(REFRESH_SECONDS, (end - now) / _MOST_OF_THE_TIME)

    def _render(self) -> Text:
        # Two columns are left for the echo of ^C, which would wrap and stay on the screen.
        width = min(self._console.width - 2, _WIDEST)
        lines = [self._bar(width)]
        if "loss" in self._row:
            lines.append(self._facts(width))
        if self._numbers is not None:
            lines.append(_flow((_fact(name, digits(value)) for name, value in self._numbers.items()), width))
        if self._standing.stopping():
            lines.append(Text("stopping after this step; press Ctrl-C again to quit at once", style="bold"))
        return Text("\n").join(lines)

    def _bar(self, width: int) -> Text:
        step, steps = self._row["step"], self._standing.steps
        count = _fact("step", f"{step:>{len(f'{steps:,}')},}/{steps:,}")
        seconds = self._pace.left(steps, time.perf_counter())
        left = Text(f"{clock(seconds)} left" if math.isfinite(seconds) else "starting")
        room = width - len(count) - len(left) - 4
        above = room < _SMALLEST_BAR
        if above:
            room = max(width - len(left) - 1, 0)
        done = room * min(step, steps) // steps
        full, empty = ("━", "─") if self._blocks else ("#", "-")
        bar = Text.assemble((full * done, "green"), (empty * (room - done), "dim"))
        return Text.assemble(count, "\n" if above else "  ", bar, " " if above else "  ", left)

    def _facts(self, width: int) -> Text:
        facts = [_fact(name, value) for name, value in _newest(self._standing, self._row, self._validation)]
        loss = next(fact for fact in facts if fact.plain.startswith("loss"))
        if self._blocks and (curve := str(self._curve)):
            loss.append_text(Text(f" {curve}", style="green"))
        facts.append(Text(f"{rate(self._pace.rate)} steps/s"))
        return _flow(facts, width)

    @property
    def _blocks(self) -> bool:
        return self._console.encoding.startswith("utf")


class PlainDisplay(ExitStack[None]):
    """Prints a line at growing intervals, for pipes, logs and dumb terminals."""

    def __init__(self, console: Console, standing: Standing) -> None:
        super().__init__()
        self._console, self._standing = console, standing
        self._interval = _FIRST_LINE
        self._validation: Row = {}

    def __enter__(self) -> PlainDisplay:
        """Start the clock."""
        now = time.perf_counter()
        self._pace, self._next = Pace(self._standing.first_step, now), now + self._interval
        return self

    def __call__(self, row: Row) -> None:
        """Read a row; print a line if it is time."""
        if "loss" not in row:
            self._validation = row
            return
        now = time.perf_counter()
        if now >= self._next:
            self._print(row, now)

    def _print(self, row: Row, now: float) -> None:
        self._interval = min(self._interval * 2, _SLOWEST_LINE)
        self._next = now + self._interval
        self._pace.note(row["step"], now)
        facts = [("step", f"{row['step']:,}/{self._standing.steps:,}")]
        facts += _newest(self._standing, row, self._validation)
        facts.append((rate(self._pace.rate), "steps/s"))
        facts.append((clock(self._pace.left(self._standing.steps, now)), "left"))
        self._console.print("  ".join(f"{name} {value}" for name, value in facts), soft_wrap=True)


def display(console: Console, standing: Standing, live: bool) -> Display:
    """Return the display for a console, live if the console can be redrawn."""
    return LiveDisplay(console, standing) if live else PlainDisplay(console, standing)


def _newest(standing: Standing, row: Row, validation: Row) -> list[tuple[str, str]]:
    """Return names and numbers of a training row, the last evaluation and the best one."""
    facts = [("loss", digits(row["loss"]))]
    if standing.steps_per_epoch > 1:
        facts.insert(0, ("epoch", f"{row['epoch']:,}"))
    facts += [
        (name.replace("_", " "), digits(value)) for name, value in validation.items() if name.startswith("validation_")
    ]
    step, value = standing.best()
    if step is not None:
        facts.append(("best", f"{digits(value)} at {step:,}"))
    return [*facts, ("lr", f"{row['lr']:.3g}")]


def _fact(name: str, value: str) -> Text:
    return Text.assemble((f"{name} ", "dim"), value)


def _flow(parts: Iterable[Text], width: int) -> Text:
    """Arrange parts side by side in lines; a part that fits a line is never broken."""
    lines: list[Text] = []
    for part in parts:
        if lines and len(lines[-1]) + 3 + len(part) <= width:
            lines[-1].append("   ").append_text(part)
        else:
            lines.append(part)
    return Text("\n").join(lines)
