"""Charts in a terminal: true to the numbers, readable at any width, in whatever characters there are."""

from __future__ import annotations

import io
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from trainer import text
from trainer.charts import text_chart
from trainer.charts.picture import Line, Panel, Point, is_geometric, is_wide

STEPS = list(range(1, 201))
FALLING = [200.0 - step for step in STEPS]


def console(width=80, encoding="utf-8", colors=False):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    system = "standard" if colors else None
    return Console(file=file, width=width, height=30, color_system=system, force_terminal=colors)


def drawn(*lines, width=80, encoding="utf-8", **panel):
    return text_chart.draw(Panel(lines, **panel), console(width, encoding)).plain.splitlines()


def plot_rows(lines):
    """The rows within the axes, without the axis."""
    inside = re.compile(r" *(?:[-\d.,e]+ [┤+]|[│|])(.*)")
    return [match[1] for line in lines if (match := inside.match(line))]


def marked(lines, mark="*"):
    """Row and column of every mark, from the lower left."""
    rows = plot_rows(lines)
    return {(len(rows) - 1 - y, x) for y, row in enumerate(rows) for x, one in enumerate(row) if one == mark}


def test_a_line_goes_from_its_first_to_its_last_point():
    marks = marked(drawn(Line("", STEPS, FALLING), encoding="ascii"))
    columns = sorted({x for _, x in marks})
    heights = [max(y for y, column in marks if column == x) for x in columns]
    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (13, 0)
    assert columns == list(range(75))


def test_ticks_stand_where_their_values_lie():
    lines = drawn(Line("", [0, 50, 100], [0, 50, 100], dots=True, joined=False), encoding="ascii")
    column = next(row for row in lines if re.match(r" *50 \+", row)).index("O")
    below = next(row for row in lines if re.search(r"\b40\b.*\b60\b", row))
    assert abs(column - (below.index("40") + below.index("60") + 1) / 2) <= 1


def test_a_log_scale_gives_each_decade_as_much_room():
    marks = marked(drawn(Line("", STEPS, [10.0 ** (-step / 20) for step in STEPS]), log_y=True, encoding="ascii"))
    height = {x: max(y for y, column in marks if column == x) for x in {x for _, x in marks}}
    middle = height[max(height) // 2]
    assert abs(middle - max(height.values()) / 2) <= 1


@pytest.mark.parametrize("width", [20, 40, 80, 100])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_it_fits_the_width_and_the_characters(width, encoding):
    line = Line("a name that is rather long for a legend", STEPS, FALLING, best=Point(200, 0, "best 0 at step 200"))
    lines = drawn(line, Line("b", STEPS, STEPS, 1), width=width, encoding=encoding, y_label="a loss with a long name")
    assert max(map(len, lines)) <= width
    "\n".join(lines).encode(encoding)


def test_the_name_says_if_the_scale_is_logarithmic():
    assert drawn(Line("", STEPS, STEPS), y_label="loss")[0] == "loss"
    assert drawn(Line("", STEPS, STEPS), y_label="loss", log_y=True)[0] == "loss (log scale)"


def test_color_is_for_terminals_that_have_it():
    panel = Panel([Line("a", STEPS, FALLING), Line("b", STEPS, STEPS, 1)])
    plain, bright = console(), console(colors=True)
    for one in (plain, bright):
        one.print(text_chart.draw(panel, one))
        one.file.flush()
    assert b"\x1b" not in plain.file.buffer.getvalue()
    assert b"\x1b[36m" in bright.file.buffer.getvalue()
    assert re.search("[⠁-⣿]", bright.file.buffer.getvalue().decode())


def test_lines_without_color_have_marks_of_their_own():
    lines = drawn(Line("down", STEPS, FALLING), Line("up", STEPS, STEPS, 1))
    assert lines[-1] == "** down   oo up"
    assert marked(lines, "*")
    assert marked(lines, "o")


def test_a_gap_is_left_open():
    y = [math.nan if 80 <= step < 120 else 1.0 for step in STEPS]
    (row,) = (row for row in plot_rows(drawn(Line("", STEPS, y), encoding="ascii")) if "*" in row)
    assert re.fullmatch(r"\*+ {10,}\*+ *", row)


def test_the_extremes_of_many_points_are_kept():
    y = [0.0] * 100_000
    y[50_001], y[70_007] = 5.0, -3.0
    marks = marked(drawn(Line("", range(100_000), y), encoding="ascii"))
    assert {max(marks)[0], min(marks)[0]} == {13, 0}
    kept_x, kept_y = Line("", range(100_000), y).thinned(100)
    assert len(kept_x) <= 400
    assert {(50_001, 5.0), (70_007, -3.0), (0, 0.0), (99_999, 0.0)} <= set(zip(kept_x, kept_y, strict=True))


def test_few_points_are_all_kept():
    assert Line("", STEPS, FALLING).thinned(50) == (STEPS, FALLING)


def test_the_best_and_where_a_run_broke_off_are_marked():
    best = Point(100, 100.0, "best 100 at step 100")
    lines = drawn(Line("", STEPS, FALLING, best=best, broken=True), y_label="loss")
    rows = plot_rows(lines)
    middle = next(row for row in rows if "◆" in row).index("◆")
    assert abs(middle - 38) <= 1
    assert rows[-1].endswith("✗")
    assert "◆ best 100 at step 100" in lines[-1]


def test_what_runs_off_leaves_the_others_their_room():
    runaway = Line("", [1, 2, 3], [1.0, 1e6, 1e12], 1)
    lines = drawn(runaway, Line("", STEPS, FALLING), top=300.0)
    assert max(float(one) for one in re.findall(r"^ *(\d+) ┤", "\n".join(lines), re.MULTILINE)) <= 300
    assert len({y for y, _ in marked(lines)}) > 7


def test_failures_without_a_value_stand_at_the_upper_edge():
    lines = drawn(Line("", [1, 2], [3.0, 4.0]), failed=[3.0])
    assert plot_rows(lines)[0].endswith("✗")
    assert lines[-1] == "✗ failed"


@pytest.mark.parametrize(
    "y", [[5.0], [0.0, 0.0], [1e-300, 1e300], [-1e150, 1e150], [1.0, 1.0000000000000002], [0, 5e-324], [math.nan, 2.0]]
)
def test_odd_numbers_are_drawn(y):
    lines = drawn(Line("", range(len(y)), y), y_label="loss")
    assert len(lines) > 10


def test_nothing_to_draw_is_said():
    assert drawn(Line("", [1], [math.nan])) == ["nothing to draw: no value is a finite number"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e150, 1e150) | st.just(math.nan), min_size=1, max_size=30), st.integers(20, 100), st.booleans()
)
def test_any_numbers_fit(y, width, log):
    y = [abs(one) if log else one for one in y]
    lines = drawn(Line("", range(len(y)), y), width=width, log_y=log and is_wide(y), encoding="ascii")
    assert max(map(len, lines)) <= max(width, 44)


@pytest.mark.parametrize(
    ("value", "written"),
    [(1e-5, "1e-5"), (0.05, "0.05"), (2000.0, "2,000"), (1e6, "1,000,000"), (1e7, "1e7"), (1.5, "1.5"), (0.0, "0")],
)
def test_numbers_at_axes_are_short(value, written):
    assert text.tick(value) == written


def test_a_scale_is_logarithmic_where_it_should_be():
    assert is_wide([1e-3, 1.0])
    assert not is_wide([0.02, 1.0])
    assert not is_wide([0.0, 1e9])
    assert is_geometric([1e-4, 1e-3, 1e-2])
    assert is_geometric([16, 64, 32])
    assert is_geometric([3e-4, 1e-3, 3e-3, 1e-2])
    assert not is_geometric([0.1, 0.2, 0.3])
    assert not is_geometric([0, 1, 10])
