"""The display of a run: what it shows, how often it draws, and that it gets by with any terminal."""

from __future__ import annotations

import io
import itertools
import math
import os
import re
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from trainer.session.display import Standing
from trainer.terminal import progress
from trainer.terminal.progress import Curve, LiveDisplay, Pace, PlainDisplay
from trainer.terminal.streams import Stream
from trainer.text import clock, duration, number


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Screen(io.StringIO):
    """A terminal that counts its frames and gives the last one without colors."""

    def __init__(self, on_write=lambda: None) -> None:
        super().__init__()
        self.on_write = on_write

    def write(self, text: str) -> int:
        self.on_write()
        return super().write(text)

    @property
    def frames(self) -> list[str]:
        drawn = re.split(r"\r", self.getvalue().removesuffix("\x1b[?25h"))
        return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame) for frame in drawn]

    @property
    def lines(self) -> list[str]:
        return self.frames[-1].split("\n")


def standing(**changes):
    parts = {
        "steps": 2000,
        "first_step": 0,
        "steps_per_epoch": 10,
        "best": lambda: (120, 0.0301),
        "numbers": lambda: None,
    }
    return Standing(**{**parts, **changes})


def live(screen, width=80, **changes):
    return LiveDisplay(Console(file=screen, force_terminal=True, width=width, height=40), standing(**changes))


def row(step, loss=0.5):
    return {"step": step, "epoch": (step - 1) // 10, "loss": loss, "lr": 1e-4}


def test_something_is_drawn_before_the_first_step(time):
    screen = Screen()
    with live(screen):
        assert "0/2,000" in screen.frames[-1]


def test_the_numbers_of_a_run_are_shown(time):
    screen = Screen()
    with live(screen) as display:
        display(row(100))
        time.now += 0.5
        display({"step": 200, "epoch": 19, "validation_loss": 0.0312, "validation_accuracy": 0.975})
        time.now += 0.5
        display(row(200, 0.25))
        shown = " ".join(screen.lines)
    for text in ("200/2,000", "epoch 19", "loss 0.25000", "validation loss 0.031200", "validation accuracy 0.97500"):
        assert text in shown
    for text in ("best 0.030100 at 120", "lr 0.0001", "200 steps/s", "0:09 left"):
        assert text in shown


def test_the_epoch_is_left_out_when_it_is_the_step(time):
    screen = Screen()
    with live(screen, steps_per_epoch=1, best=lambda: (None, None)) as display:
        display(row(1))
        assert "epoch" not in screen.frames[-1]
        assert "best" not in screen.frames[-1]


def test_a_small_model_shows_its_numbers(time):
    screen = Screen()
    with live(screen, numbers=lambda: {"a": 3.0720, "b": [[4.0540, -1.0]]}) as display:
        display(row(1))
        assert "a 3.0720   b [[4.0540 -1.0000]]" in screen.lines


def test_ten_frames_a_second_whatever_the_step_rate(time):
    screen, asked = Screen(), []
    with live(screen, numbers=lambda: asked.append(1)) as display:
        for step in range(1, 1001):
            display(row(step))
            time.now += 0.001
    assert 9 <= len(asked) <= 11


def test_every_slow_step_is_drawn(time):
    screen, asked = Screen(), []
    with live(screen, numbers=lambda: asked.append(1)) as display:
        for step in range(1, 6):
            display(row(step))
            time.now += 2
    assert len(asked) == 5


def test_a_slow_terminal_takes_a_few_percent_of_the_time(time):
    def slow():
        time.now += 0.05

    screen = Screen(slow)
    with live(screen) as display:
        start, drawing = time.now, 0.0
        while time.now < start + 60:
            before = time.now
            display(row(1 + int(before)))
            drawing += time.now - before
            time.now += 0.01
    assert drawing < 0.06 * 60


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(time, width):
    screen = Screen()
    with live(screen, width, numbers=lambda: {"weight": [[0.1] * 8]}) as display:
        display({"step": 1, "epoch": 0, "validation_loss": 1.0, "validation_accuracy": 0.5})
        time.now += 1
        display(row(1999))
        assert max(map(len, screen.lines)) <= width
        assert "1,999/2,000" in screen.frames[-1]
        assert "left" in screen.frames[-1]
        assert "validation" in screen.frames[-1]


def test_ctrl_c_is_acknowledged_while_a_step_goes_on(time):
    screen = Screen()
    with live(screen, stopping=lambda: True):
        assert "stopping after this step" in screen.frames[-1]


def test_without_colors_the_bar_can_still_be_read(time, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen()
    with live(screen) as display:
        display(row(1000))
    bar = re.search("(━+)(─+)", "".join(screen.frames))
    assert abs(len(bar[1]) - len(bar[2])) <= 1
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", screen.getvalue())


def test_a_terminal_without_unicode_gets_ascii(time):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    with LiveDisplay(Console(file=file, force_terminal=True, width=80), standing()) as display:
        for step in (500, 1000):
            display(row(step))
            time.now += 1
    assert b"###---" in re.sub(rb"\x1b\[[0-9;]*m", b"", raw.getvalue())


def test_names_are_not_markup(time):
    screen = Screen()
    with live(screen, numbers=lambda: {"[bold]w[/bold]": 1.0}) as display:
        display(row(1))
        assert "[bold]w[/bold] 1.0000" in screen.frames[-1]


def test_nothing_is_left_behind(time):
    screen = Screen()
    with live(screen) as display:
        display(row(1))
    assert screen.lines[-1].strip() == ""


def test_plain_lines_come_at_growing_intervals(time):
    file = io.StringIO()
    with PlainDisplay(Console(file=file), standing(steps=20000)) as display:
        for step in range(1, 2001):
            time.now += 0.1
            display(row(step))
    lines = file.getvalue().splitlines()
    steps = [int(re.match(r"step ([\d,]+)/20,000", line)[1].replace(",", "")) for line in lines]
    seconds = [round((later - earlier) / 10) for earlier, later in itertools.pairwise(steps)]
    assert steps[0] <= 11
    assert seconds[:5] == [2, 4, 8, 16, 32]
    assert set(seconds[5:]) == {60}
    assert 5 <= len(lines) <= 9
    assert "10 steps/s" in lines[-1]
    assert "epoch" in lines[-1]
    assert "\x1b" not in file.getvalue()


def test_the_pace_is_that_of_the_last_half_minute():
    pace = Pace(0, 0.0)
    pace.note(1, 60.0)  # the first step took a minute
    for second in range(1, 61):
        pace.note(1 + 10 * second, 60.0 + second)
    assert pace.rate == pytest.approx(10)
    assert pace.left(1601, 120.0) == pytest.approx(100)
    assert pace.left(1601, 125.0) == pytest.approx(95)


def test_the_pace_of_steps_longer_than_half_a_minute():
    pace = Pace(5, 0.0)
    assert pace.rate == 0
    for step in range(1, 4):
        pace.note(5 + step, 100.0 * step)
    assert pace.rate == pytest.approx(0.01)


def test_the_curve_falls_with_the_loss():
    curve = Curve()
    assert str(curve) == ""
    for step in range(1000):
        curve.note(10.0 ** (-step / 100))
    heights = [ord(c) for c in str(curve)]
    assert heights == sorted(heights, reverse=True)
    assert len(heights) == 16
    assert (str(curve)[0], str(curve)[-1]) == ("█", "▁")


@pytest.mark.parametrize("values", [[1.0, 1.0], [-1.0, 0.0, 5.0], [math.nan, 2.0, math.inf, 1.0]])
def test_the_curve_takes_any_values(values):
    curve = Curve()
    for value in values:
        curve.note(value)
    assert str(curve)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (628.2837, "628.284"),
        (12345.6, "12,346"),
        (1.5e-9, "1.5e-09"),
        (math.nan, "not finite"),
        (None, "not finite"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.71, "0.7 s"), (43.2, "43 s"), (62, "1:02"), (3723, "1:02:03")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_clock_keeps_its_width():
    assert [clock(s) for s in (3, 62, 3723, math.inf)] == ["0:03", "1:02", "1:02:03", "?"]


def test_a_reader_who_leaves_does_not_end_the_run(time, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    file = os.fdopen(write, "w")
    monkeypatch.setattr(sys, "stderr", file)
    console = Console(file=Stream("stderr", OSError), width=80)
    with PlainDisplay(console, standing()) as display:
        for step in range(1, 100):
            time.now += 1
            display(row(step))
    file.close()


def test_a_terminal_that_goes_away_does_not_end_the_run(time, monkeypatch):
    class Gone(io.StringIO):
        encoding = "utf-8"

        def write(self, text):
            raise OSError(5, "Input/output error")

        def fileno(self):
            return null.fileno()

    with open(os.devnull, "w") as null:
        monkeypatch.setattr(sys, "stderr", Gone())
        with LiveDisplay(Console(file=Stream("stderr", OSError), force_terminal=True), standing()) as display:
            display(row(1))


def test_what_a_model_prints_appears_above_the_bar(time, monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True, encoding="utf-8", flush=lambda: None))
    with live(screen) as display:
        display(row(1))
        print("[red]from the model", file=sys.stderr)
        assert "[red]from the model" in "".join(screen.frames)
