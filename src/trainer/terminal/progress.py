"""What a run shows while it trains: a live display on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from trainer.session.display import Display, Standing
from trainer.text import clock, digits, rate

if TYPE_CHECKING:
    from trainer.training.loop import Row

REFRESH_SECONDS = 0.1
_MOST_OF_THE_TIME = 0.04  # a terminal that is slow to write to is redrawn less often
_IDLE_REFRESHES = 2  # a second, by a thread: the clock goes on through a step that takes long
_RECENT_SECONDS = 30.0
_FIRST_LINE, _SLOWEST_LINE = 1.0, 60.0
_WIDEST, _SMALLEST_BAR = 100, 10
_CURVE_POINTS = 16
_BLOCKS = "▁▂▃▄▅▆▇█"


class Pace:
    """Steps a second over the last half minute, so that a slow start and a pause are soon forgotten.

    Args:
        step: Finished steps at the beginning.
        now: Time, in seconds of time.perf_counter.
    """

    def __init__(self, step: int, now: float) -> None:
        self._marks = deque([(now, step)])

    def note(self, step: int, now: float) -> None:
        """Take note of the finished steps."""
        if step == self._marks[-1][1]:
            return
        self._marks.append((now, step))
        while len(self._marks) > 2 and self._marks[1][0] <= now - _RECENT_SECONDS:
            self._marks.popleft()

    @property
    def rate(self) -> float:
        """Steps a second; 0 before the first one."""
        (then, first), (now, last) = self._marks[0], self._marks[-1]
        return (last - first) / max(now - then, 1e-9)

    def left(self, steps: int, now: float) -> float:
        """Return the seconds that all `steps` still take."""
        then, step = self._marks[-1]
        return max((steps - step) / self.rate - (now - then), 0.0) if self.rate else math.inf


class Curve:
    """The values so far as a row of blocks, on a log scale when all are positive."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._seen, self._stride = 0, 1

    def note(self, value: float) -> None:
        """Take a value; of many, evenly spaced ones are kept."""
        if not math.isfinite(value):
            return
        if self._seen % self._stride == 0:
            self._values.append(value)
        self._seen += 1
        if len(self._values) == 2 * _CURVE_POINTS:
            del self._values[1::2]
            self._stride *= 2

    def __str__(self) -> str:
        """Return the row of blocks, the newest value at its right; empty before there are two."""
        values = self._values[-_CURVE_POINTS:]
        if len(self._values) > _CURVE_POINTS:
            values = [self._values[i * len(self._values) // _CURVE_POINTS] for i in range(1, _CURVE_POINTS)]
            values.append(self._values[-1])
        if len(values) < 2:
            return ""
        heights = list(map(math.log, values)) if min(values) > 0 else values
        low, span = min(heights), max(heights) - min(heights)
        return "".join(_BLOCKS[round((h - low) / span * (len(_BLOCKS) - 1)) if span else 0] for h in heights)


class LiveDisplay:
    """A bar and the newest numbers, redrawn about ten times a second whatever the step rate."""

    def __init__(self, console: Console, standing: Standing) -> None:
        self._console, self._standing = console, standing
        self._row: Row = {"step": standing.first_step}
        self._validation: Row = {}
        self._numbers: dict[str, Any] | None = None
        self._curve = Curve()
        self._next = 0.0

    def __enter__(self) -> LiveDisplay:
        """Begin to show."""
        self._pace = Pace(self._standing.first_step, time.perf_counter())
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=_IDLE_REFRESHES,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # what a model prints into a file stays in the file
        )
        self._live.start(refresh=True)
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
            self._redraw(now)

    def _redraw(self, now: float) -> None:
        self._pace.note(self._row["step"], now)
        self._curve.note(self._row.get("loss", math.nan))
        self._numbers = self._standing.numbers()
        self._live.refresh()
        end = time.perf_counter()
        self._next = end + max(REFRESH_SECONDS, (end - now) / _MOST_OF_THE_TIME)

    def _render(self) -> Text:
        # Room for ^C to be echoed: on a line of its own it would be left behind.
        width = min(self._console.width - 2, _WIDEST)
        lines = [self._bar(width)]
        if "loss" in self._row:
            lines.append(self._facts(width))
        if self._numbers is not None:
            lines.append(_flow((_fact(name, digits(value)) for name, value in self._numbers.items()), width))
        if self._standing.stopping():
            lines.append(Text("stopping after this step; Ctrl-C once more leaves at once", style="bold"))
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


class PlainDisplay:
    """A line now and then, at growing intervals, for pipes, logs and dumb terminals."""

    def __init__(self, console: Console, standing: Standing) -> None:
        self._console, self._standing = console, standing
        self._interval = _FIRST_LINE
        self._validation: Row = {}

    def __enter__(self) -> PlainDisplay:
        """Begin to show."""
        now = time.perf_counter()
        self._pace, self._next = Pace(self._standing.first_step, now), now + self._interval
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
    """Return the display for a console that can be redrawn, or one that can't."""
    return LiveDisplay(console, standing) if live else PlainDisplay(console, standing)


def _newest(standing: Standing, row: Row, validation: Row) -> list[tuple[str, str]]:
    """Return the numbers of a row, and those of the evaluations so far, with their names."""
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
    """Set parts next to each other in lines, none of them broken that fits a line."""
    lines: list[Text] = []
    for part in parts:
        if lines and len(lines[-1]) + 3 + len(part) <= width:
            lines[-1].append("   ").append_text(part)
        else:
            lines.append(part)
    return Text("\n").join(lines)
