"""`trainer plot`: every picture shows the numbers of metrics.jsonl, in the terminal, in files and as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex
import statistics
import struct
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

SVG = "{http://www.w3.org/2000/svg}"
BASE = {"seed": 0, "batch_size": 64, "optim": {"_target_": "torch.optim.SGD", "lr": 0.1}}
CHOICES = {"model": "mlp", "data": "digits", "loss": "cross_entropy", "optim": "sgd"}


def decay(steps=40, rate=0.05, start=2.0):
    """The rows of a run: a loss at every step, an evaluation at every fifth."""
    rows = []
    for step in range(1, steps + 1):
        loss = start * math.exp(-rate * step) + 0.01 * (step % 3)
        rows.append({"step": step, "epoch": step // 5, "loss": loss, "lr": 0.1})
        if step % 5 == 0:
            accuracy = 1 - math.exp(-rate * step)
            rows.append(
                {"step": step, "epoch": step // 5, "validation_loss": loss * 1.5, "validation_accuracy": accuracy}
            )
    return rows


def write(path, rows=None, state="done", typed=(), swept=None, error=None, name=None, tail="", **given):
    """Write the files of a run as training would leave them; settings are given as lr=, seed=, batch_size=."""
    path = Path(path)
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("seed: 0\n")
    rows = decay() if rows is None else rows
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    config = {**BASE, **given, "optim": {**BASE["optim"], "lr": given.get("lr", 0.1)}}
    config.pop("lr", None)
    metrics = {key: value for row in rows for key, value in row.items() if key.endswith(("loss", "accuracy"))}
    evaluations = [row for row in rows if row.get("validation_loss") is not None]
    best = min(evaluations, key=lambda row: row["validation_loss"], default=None)
    status = {
        "format": 1,
        "name": name,
        "state": state,
        "step": rows[-1]["step"] if rows else 0,
        "metrics": metrics,
        "best": best and {"step": best["step"], "metric": "validation_loss", "value": best["validation_loss"]},
        "error": error,
        "choices": {**CHOICES, **{key: value for key, value in given.items() if key in CHOICES}},
        "config": config,
        "segments": [{"overrides": list(typed)}],
    }
    if swept is not None:
        status["swept"] = swept
    (path / "status.json").write_text(json.dumps(status))
    return path


def write_sweep(path, jobs):
    """Write a sweep: for each job its settings, and what else `write` takes under "run"."""
    Path(path).mkdir(parents=True)
    for index, job in enumerate(jobs):
        run = job.pop("run", {})
        words = {{"lr": "optim.lr"}.get(key, key): str(value) for key, value in job.items()}
        write(f"{path}/{index:03d}", swept=words, **job, **run)
    (Path(path) / "sweep.json").write_text("{}")
    return path


def seeded(lr, seed, **run):
    """A job of a sweep over rates and seeds, whose loss depends on both."""
    rate = 0.02 + lr / 20
    return {"lr": lr, "seed": seed, "run": {"rows": decay(rate=rate, start=2 + seed / 10), **run}}


def table(path):
    return list(csv.DictReader(io.StringIO(Path(path).read_text())))


def losses_of(path):
    rows = map(json.loads, Path(path, "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


def polyline(path, index):
    """The points of a line of an SVG, in its own units."""
    root = ElementTree.parse(path).getroot()
    (group,) = (one for one in root.iter(f"{SVG}g") if one.get("id") == f"line {index}")
    numbers = re.findall(r"[ML] (\S+) (\S+)", group.find(f"{SVG}path").get("d"))
    return [(float(x), float(y)) for x, y in numbers]


def texts(path):
    return {"".join(one.itertext()).strip() for one in ElementTree.parse(path).getroot().iter(f"{SVG}text")}


def require_same_shape(points, x, y):
    """Fail unless points are the values, but for where the axes begin and how long they are."""
    assert len(points) == len(x)
    for found, values, sign in (([p[0] for p in points], x, 1), ([p[1] for p in points], y, -1)):
        scale = (max(found) - min(found)) / (max(values) - min(values)) * sign
        offset = found[0] - values[0] * scale
        assert found == pytest.approx([offset + value * scale for value in values], abs=0.02)


# One run


def test_one_run_in_the_terminal(cli):
    write("one")
    result = cli("plot", "one")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("loss (cross_entropy)\n")
    assert "validation loss   ◆ best 0.4" in result.out
    assert "training loss" in result.out
    assert result.out.count("◆") == 2
    assert "  save it as a picture  trainer plot one -o curve.png\n" in result.out


def test_the_suggested_commands_work(cli):
    write("one run")
    commands = cli("plot", "one run").out.splitlines()[-1].partition("trainer ")[2]
    assert commands == "plot 'one run' -o curve.png"
    result = cli("plot", "one run", "-o", "curve.png", "--size=6x4", "--title", "a title")
    again = result.out.splitlines()[-1].partition("trainer ")[2]
    assert again == "plot 'one run' --title 'a title' -o curve.csv"
    assert cli(*shlex.split(again)).code == 0


def test_the_lines_of_a_picture_are_those_of_the_file(cli):
    rows = decay()
    write("one", rows)
    assert cli("plot", "one", "-o", "one.svg").code == 0
    evaluations = [row for row in rows if "validation_loss" in row]
    steps = [row for row in rows if "loss" in row]
    x, y = [row["step"] for row in evaluations], [row["validation_loss"] for row in evaluations]
    require_same_shape(polyline("one.svg", 0), x, y)
    require_same_shape(polyline("one.svg", 1), [row["step"] for row in steps], [row["loss"] for row in steps])
    best = min(y)
    assert {"training loss", "validation loss", "step", "loss (cross_entropy)"} <= texts("one.svg")
    assert f"best {best:.6g} at step {x[y.index(best)]}" in texts("one.svg")


def test_a_wide_range_is_logarithmic(cli):
    rows = [{"step": step, "epoch": 0, "loss": 10.0 ** (-step / 8), "lr": 0.1} for step in range(1, 41)]
    write("one", rows)
    assert "training loss (cross_entropy) (log scale)" in cli("plot", "one").out
    cli("plot", "one", "-o", "one.svg")
    require_same_shape(polyline("one.svg", 0), range(1, 41), [math.log10(row["loss"]) for row in rows])


def test_numbers_as_csv(cli):
    rows = decay()
    write("one", rows)
    result = cli("plot", "one", "-o", "one.csv")
    assert (result.code, result.out) == (0, "wrote one.csv\n")
    found = table("one.csv")
    assert found[0].keys() == {"run", "step", "metric", "value"}
    for metric in ("loss", "validation_loss", "validation_accuracy"):
        written = [(int(row["step"]), float(row["value"])) for row in found if row["metric"] == metric]
        assert written == [(row["step"], row[metric]) for row in rows if metric in row]


@pytest.mark.parametrize("metric", ["validation_accuracy", "lr"])
def test_a_metric_can_be_chosen(cli, metric):
    rows = decay()
    write("one", rows)
    assert cli("plot", "one", "--metric", metric, "-o", "one.csv").code == 0
    assert [float(row["value"]) for row in table("one.csv")] == [row[metric] for row in rows if metric in row]
    name = {"lr": "learning rate"}.get(metric, "validation accuracy")
    assert cli("plot", "one", "--metric", metric).out.startswith(f"{name}\n")


def test_metrics_of_several_kinds_stand_beside_each_other(cli):
    write("one")
    cli("plot", "one", "--metric", "loss,validation_accuracy,lr", "-o", "one.svg")
    assert {"training loss (cross_entropy)", "validation accuracy", "learning rate"} <= texts("one.svg")


def test_a_damaged_last_line_and_nulls_are_passed_over(cli):
    rows = decay(10)
    rows[3]["loss"] = None
    write("one", rows, state="running", tail='{"step": 99, "epoch": 3, "lo')
    assert cli("plot", "one", "--metric", "loss", "-o", "one.csv").code == 0
    found = table("one.csv")
    assert [int(row["step"]) for row in found] == list(range(1, 11))
    assert [row["step"] for row in found if row["value"] == ""] == ["4"]
    cli("plot", "one", "--metric", "loss", "-o", "one.svg")
    assert len(polyline("one.svg", 0)) == 9


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1, 2]",
        '{"step": "7", "loss": 1}',
        '{"step": true, "loss": 1}',
        '{"step": -1, "loss": 1}',
        '{"step": 1e400, "loss": 1}',
        '{"step": 8, "loss": "low"}',
        '{"step": 8, "loss": [1]}',
        "[" * 100_000,
        '{"step": 2, "loss": 7}',
        '"\x1b[31m"',
    ],
)
def test_rows_that_are_none_change_nothing(cli, line):
    rows = decay(10)
    path = write("one", rows)
    text = (path / "metrics.jsonl").read_text().splitlines()
    (path / "metrics.jsonl").write_text("\n".join([*text[:5], line, *text[5:]]) + "\n")
    assert cli("plot", "one", "--metric", "loss", "-o", "one.csv").code == 0
    assert [float(row["value"]) for row in table("one.csv")] == [row["loss"] for row in rows if "loss" in row]


def test_numbers_that_are_too_large_are_gaps(cli):
    path = write("one", decay(10))
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "loss": 1e999}\n{"step": 12, "loss": NaN}\n{"step": 13, "loss": 1' + "0" * 400 + "}\n")
        file.write('{"step": 14, "loss": 1.5}\n')
    cli("plot", "one", "--metric", "loss", "-o", "one.csv")
    assert [(row["step"], row["value"]) for row in table("one.csv")][10:] == [("11", ""), ("12", ""), ("14", "1.5")]


def test_many_rows_are_thinned_and_keep_their_extremes(cli):
    rows = [{"step": step, "epoch": 0, "loss": 1.0, "lr": 0.1} for step in range(1, 30_001)]
    rows[12_344]["loss"], rows[20_000]["loss"] = 9.0, 0.5
    write("one", rows)
    cli("plot", "one", "-o", "one.svg")
    points = polyline("one.svg", 0)
    assert len(points) < 10_000
    level = statistics.mode(y for _, y in points)
    assert [len([y for _, y in points if y < level]), len([y for _, y in points if y > level])] == [1, 1]


def test_a_link_in_place_of_the_numbers_is_not_followed(cli, refused):
    path = write("one")
    (path / "metrics.jsonl").rename("elsewhere")
    (path / "metrics.jsonl").symlink_to(Path("elsewhere").absolute())
    assert "it is a symlink" in refused("plot", "one")


# Files


def test_a_png_has_the_size_that_was_asked_for(cli):
    write("one")
    result = cli("plot", "one", "-o", "one.png", "--size", "5x3.5")
    assert "1,000 x 700 pixels" in result.out
    content = Path("one.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (1000, 700)


def test_a_pdf_has_the_size_that_was_asked_for(cli):
    write("one")
    assert cli("plot", "one", "-o", "one.PDF", "--size", "5x3").code == 0
    content = Path("one.PDF").read_bytes()
    assert content.startswith(b"%PDF")
    assert re.search(rb"/MediaBox \[ ?0 0 360 216 ?\]", content)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "csv"])
def test_the_same_run_gives_the_same_file(cli, suffix):
    write("one")
    for name in ("a", "b"):
        assert cli("plot", "one", "-o", f"{name}.{suffix}").code == 0
    assert Path(f"a.{suffix}").read_bytes() == Path(f"b.{suffix}").read_bytes()


def test_an_old_picture_is_replaced_and_nothing_else_is_left(cli, workdir):
    write("one")
    Path("one.svg").write_text("old")
    assert cli("plot", "one", "-o", "one.svg").code == 0
    assert sorted(path.name for path in workdir.iterdir()) == ["one", "one.svg"]
    assert "<svg" in Path("one.svg").read_text()


def test_a_picture_that_fails_leaves_the_old_one(cli, refused, monkeypatch):
    write("one")
    Path("one.svg").write_text("old")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "needs matplotlib: pip install matplotlib (the extra `plot`)" in refused("plot", "one", "-o", "one.svg")
    assert Path("one.svg").read_text() == "old"
    assert cli("plot", "one").code == cli("plot", "one", "-o", "one.csv").code == 0


def test_a_title_is_taken_as_it_is(cli):
    write("one", name="_first $x^2$")
    write("two", name="$\\frac")
    cli("plot", "one", "two", "--title", "costs $5, [red]not $6", "-o", "one.svg")
    assert {"costs $5, [red]not $6", "_first $x^2$", "$\\frac"} <= texts("one.svg")
    assert cli("plot", "one", "--title", "[red]x").out.startswith("[red]x\n")


def test_the_users_own_style_of_matplotlib_changes_nothing(cli, monkeypatch):
    import matplotlib

    write("one")
    cli("plot", "one", "-o", "a.svg")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.hashsalt": "mine"}):
        cli("plot", "one", "-o", "b.svg")
        assert matplotlib.rcParams["font.size"] == 30
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["-o", "x.gif"],
            ["-o x.gif: has no known ending; allowed: .png, .svg, .pdf, .csv; did you mean -o x.png?"],
        ),
        (["-o", "curve"], ["has no known ending", "did you mean -o curve.png?"]),
        (["-o", "nowhere/x.png"], ["-o nowhere/x.png: no such folder: /"]),
        (["-o", "one.csv"], ["-o one.csv: is a folder"]),
        (["-o"], ["-o: needs a value"]),
        (["-o", "x.png", "--size", "1200x800"], ["--size=1200x800: is out of range", "did you mean 6x4?"]),
        (["-o", "x.png", "--size", "wide"], ["--size=wide: is not a size; allowed: WIDTHxHEIGHT in inches"]),
        (["-o", "x.png", "--size", "0x4"], ["--size=0x4: is out of range"]),
        (["--size", "6x4"], ["--size=6x4: only works for a picture in a file"]),
        (
            ["--metric", "validation_los"],
            ["no run here has measured it", "did you mean --metric=validation_loss?"],
        ),
        (["--metric", "loss,"], ["--metric=loss,: has an empty name"]),
        (["--by", "optim.rate"], ["--by=optim.rate: no run here has such a setting"]),
        (["--against", "model"], ["--against=model: is not a number in every run"]),
        (["--against", "seed,model,optim.lr"], ["names more than two settings"]),
        (["--against", "optim.lr", "--curves"], ["exclude each other"]),
        (["--titel", "x"], ["--titel: no such flag", "did you mean --title?"]),
        (["nothing"], ["nothing: no such run"]),
    ],
)
def test_a_wrong_word_gets_one_line(refused, words, parts):
    write("one")
    Path("one.csv").mkdir()
    error = refused("plot", "one", *words)
    for part in parts:
        assert part in error


def test_no_run_and_no_numbers(refused):
    assert "which run? `trainer plot last`" in refused("plot")
    write("one", [], state="waiting")
    assert "plot: no numbers yet in one" in refused("plot", "one")


# Several runs


def test_runs_are_named_by_what_they_differ_in(cli):
    write("a", lr=0.1, typed=["optim.lr=0.1", "seed=0"])
    write("b", lr=1e-5, typed=["optim.lr=1e-5", "seed=0"])
    cli("plot", "a", "b", "-o", "two.svg")
    assert {"optim.lr", "0.1", "1e-5", "training loss (cross_entropy)", "validation loss (cross_entropy)"} <= texts(
        "two.svg"
    )
    write("c", lr=0.1, batch_size=8, typed=["optim.lr=0.1", "batch_size=8"])
    cli("plot", "a", "b", "c", "-o", "three.svg")
    assert {"optim.lr=0.1, batch_size=64", "optim.lr=0.1, batch_size=8"} <= texts("three.svg")


def test_runs_with_names_are_called_by_them(cli):
    write("a", lr=0.1, typed=["optim.lr=0.1"], name="fast one")
    write("b", lr=0.2, typed=["optim.lr=0.2"], name="slow one")
    assert "** fast one   oo slow one" in cli("plot", "a", "b").out


def test_runs_that_do_not_differ_are_called_by_what_one_types(cli):
    write("a")
    write("b")
    assert "** a   oo b" in cli("plot", "a", "b").out


def test_of_many_settings_only_those_that_tell_are_named(cli):
    for index, model in enumerate(("mlp", "linear")):
        words = [f"model={model}", f"seed={index}", f"batch_size={index + 1}", f"optim.lr={index / 10}"]
        write(model, model=model, seed=index, batch_size=index + 1, lr=index / 10, typed=words)
    assert {"model", "mlp", "linear"} <= texts_of(cli, "mlp", "linear")


def texts_of(cli, *words):
    assert cli("plot", *words, "-o", "texts.svg").code == 0
    return texts("texts.svg")


def test_of_many_runs_the_best_ten_are_in_color(cli):
    for index in range(13):
        write(f"r{index:02d}", decay(start=2 + index), name=f"run {index}")
    runs = [f"r{index:02d}" for index in range(13)]
    result = cli("plot", *runs)
    assert "13 runs: the best 10 are in color, the others are pale" in result.out
    named = texts_of(cli, *runs)
    assert {one for one in named if one.startswith("run ")} == {f"run {index}" for index in range(10)}
    content = Path("texts.svg").read_text()
    assert content.count("stroke: #c8c8c8") == 2 * 3


def test_runs_that_do_not_compare_are_said_to(cli):
    write("a", typed=["loss=sse"], loss="sse")
    write("b", typed=["loss=mse"], loss="mse")
    result = cli("plot", "a", "b")
    assert "the runs have different losses: their losses are not comparable" in result.out
    assert result.out.startswith("lines: loss\ntraining loss\n")
    assert "compare" not in cli("plot", "a", "b", "--metric", "validation_accuracy").out
    write("c", typed=["data=random"], data="random")
    write("d")
    assert "the runs have different data: their numbers are not comparable" in cli("plot", "c", "d").out


def test_a_diverged_run_leaves_the_others_their_room(cli):
    bad = [{"step": step, "epoch": 0, "loss": 2.0 * 100.0 ** (step - 1), "lr": 1.0} for step in range(1, 8)]
    write("good", lr=0.1, typed=["optim.lr=0.1"])
    write("bad", bad, lr=10.0, typed=["optim.lr=10"], state="failed", error="the loss grows")
    result = cli("plot", "good", "bad", "--metric", "loss")
    assert "10, failed at 7" in result.out
    assert "failed: bad: the loss grows" in result.out
    assert "✗" in result.out
    ticks = [float(one) for one in re.findall(r"^ *([\d.]+) ┤", result.out, re.MULTILINE)]
    assert max(ticks) < 10


# Groups and sweeps


@pytest.fixture
def over_seeds():
    return write_sweep("sweep", [seeded(lr, seed) for lr in (0.01, 0.1, 1.0) for seed in (0, 1, 2)])


def test_mean_and_spread_over_seeds(cli, over_seeds):
    assert cli("plot", "sweep", "--by", "optim.lr", "--metric", "loss", "-o", "means.csv").code == 0
    found = table("means.csv")
    assert list(found[0]) == ["optim.lr", "step", "metric", "mean", "low", "high", "runs"]
    assert len(found) == 3 * 40
    for index, lr in enumerate(("0.01", "0.1", "1")):
        jobs = [Path("sweep", f"{index * 3 + seed:03d}", "metrics.jsonl") for seed in range(3)]
        losses = [
            [row["loss"] for row in map(json.loads, job.read_text().splitlines()) if "loss" in row] for job in jobs
        ]
        for row, values in zip((r for r in found if r["optim.lr"] == lr), zip(*losses, strict=True), strict=True):
            mean, spread = statistics.fmean(values), statistics.stdev(values)
            assert float(row["mean"]) == pytest.approx(mean, rel=1e-12)
            assert float(row["high"]) == pytest.approx(mean + spread, rel=1e-9)
            assert float(row["low"]) == pytest.approx(mean - spread if spread < mean else min(values), rel=1e-9)
            assert row["runs"] == "3"


def test_a_band_of_two_is_their_range(cli):
    write_sweep("sweep", [seeded(0.1, seed) for seed in (0, 1)])
    cli("plot", "sweep", "--by", "optim.lr", "--metric", "loss", "-o", "means.csv")
    row = table("means.csv")[0]
    values = [
        json.loads(Path("sweep", job, "metrics.jsonl").read_text().splitlines()[0])["loss"] for job in ("000", "001")
    ]
    assert (float(row["low"]), float(row["high"])) == (min(values), max(values))
    assert "range" in texts_of(cli, "sweep")


def test_a_mean_ends_where_the_first_of_its_runs_stops(cli):
    write_sweep("sweep", [seeded(0.1, 0, rows=decay(20)), seeded(0.1, 1, rows=decay(30))])
    cli("plot", "sweep", "--by", "optim.lr", "--metric", "loss", "-o", "means.csv")
    assert [int(row["step"]) for row in table("means.csv")] == list(range(1, 21))
    assert "each mean ends where the first run of its group ends" in cli("plot", "sweep", "--by", "optim.lr").out


def test_runs_with_other_steps_meet_on_straight_lines(cli):
    odd = [{"step": step, "epoch": 0, "loss": float(step)} for step in (1, 3, 5)]
    even = [{"step": step, "epoch": 0, "loss": 10.0} for step in (2, 4, 6)]
    write_sweep("sweep", [seeded(0.1, 0, rows=odd), seeded(0.1, 1, rows=even)])
    cli("plot", "sweep", "--by", "optim.lr", "--metric", "loss", "-o", "means.csv")
    assert [(int(row["step"]), float(row["mean"])) for row in table("means.csv")] == [
        (step, (step + 10) / 2) for step in (2, 3, 4, 5)
    ]


def test_failed_runs_are_no_part_of_a_mean(cli):
    bad = [{"step": 1, "epoch": 0, "loss": 5.0}, {"step": 2, "epoch": 0, "loss": 1e9}]
    write_sweep("sweep", [seeded(0.1, 0), seeded(0.1, 1), seeded(0.1, 2, rows=bad, state="failed", error="too large")])
    cli("plot", "sweep", "--by", "optim.lr", "--metric", "loss", "-o", "means.csv")
    assert {row["runs"] for row in table("means.csv")} == {"2"}
    result = cli("plot", "sweep", "--by", "optim.lr")
    assert "0.1 (1 failed)" in result.out
    assert "failed: sweep/002: too large" in result.out


def test_a_sweep_over_a_number_has_the_result_against_it(cli, over_seeds):
    result = cli("plot", "sweep")
    assert "lines: optim.lr (mean of 3)" in result.out
    assert "best validation loss (cross_entropy)" in result.out
    assert "--curves omits them" in result.out
    assert "best validation loss" not in cli("plot", "sweep", "--curves").out
    assert {"0.01", "0.1", "1", "mean of 3", "± standard deviation"} <= texts_of(cli, "sweep")


def test_the_result_against_a_number(cli, over_seeds):
    assert cli("plot", "sweep", "--against", "optim.lr", "-o", "lr.csv").code == 0
    found = table("lr.csv")
    for index, row in enumerate(found):
        status = json.loads(Path("sweep", f"{index:03d}", "status.json").read_text())
        assert row["run"] == f"sweep/{index:03d}"
        assert float(row["optim.lr"]) == status["config"]["optim"]["lr"]
        assert float(row["value"]) == status["best"]["value"]
    cli("plot", "sweep", "--against", "optim.lr", "-o", "lr.svg")
    levels = [0.01, 0.1, 1.0]
    means = [statistics.fmean(float(row["value"]) for row in found if float(row["optim.lr"]) == lr) for lr in levels]
    require_same_shape(polyline("lr.svg", 0), [math.log10(lr) for lr in levels], means)
    best = levels[means.index(min(means))]
    assert f"best {min(means):.6g} at optim.lr={best:g}" in texts("lr.svg")


def test_a_sweep_over_two_numbers_is_a_heat_map(cli):
    jobs = []
    for lr in (0.01, 0.1):
        for size in (16, 64, 256):
            failed = {"state": "failed", "error": "too large"} if (lr, size) == (0.1, 256) else {}
            jobs.append({"lr": lr, "batch_size": size, "run": {"rows": decay(rate=lr + 1 / size), **failed}})
    write_sweep("sweep", jobs)
    result = cli("plot", "sweep")
    assert result.out.startswith("best validation loss (cross_entropy): batch_size down, optim.lr across\n")
    lines = {row.split()[0]: row.split()[1:] for row in result.out.splitlines()[1:5] if row.split()}
    assert lines["256"][1] == "failed"
    assert "--curves draws its curves instead" in result.out
    status = json.loads(Path("sweep/000/status.json").read_text())
    assert lines["16"][0] == f"{status['best']['value']:.3g}"
    shown = texts_of(cli, "sweep")
    assert {"failed", "optim.lr", "batch_size", "16", "64", "256", lines["16"][0]} <= shown
    assert "training loss (cross_entropy)" in cli("plot", "sweep", "--curves").out


def test_a_sweep_of_which_all_failed_is_drawn(cli):
    rows = [{"step": 1, "epoch": 0, "loss": 5.0}, {"step": 2, "epoch": 0, "loss": None}]
    failed = {"rows": rows, "state": "failed", "error": "too large"}
    write_sweep("sweep", [{"lr": lr, "run": dict(failed)} for lr in (1.0, 2.0, 3.0, 4.0)])
    result = cli("plot", "sweep", "-o", "sweep.svg")
    assert (result.code, result.err) == (0, "")
    assert "1 more failed; `trainer runs state=failed` lists them" in result.out
    assert "failed" in texts("sweep.svg")
    assert cli("plot", "sweep").code == 0


def test_a_heat_map_may_be_over_words(cli):
    jobs = [{"model": model, "optim.lr": lr} for model in ("mlp", "linear") for lr in (0.1, 0.2)]
    write_sweep("sweep", [{"model": j["model"], "lr": j["optim.lr"], "run": {}} for j in jobs])
    result = cli("plot", "sweep", "--against", "model,optim.lr")
    assert "optim.lr down, model across" in result.out
    assert "--curves" not in result.out


def test_a_sweep_over_seeds_alone_is_one_mean_before_its_runs(cli):
    write_sweep("sweep", [seeded(0.1, seed) for seed in range(4)])
    assert "mean of 4" in texts_of(cli, "sweep")
    assert Path("texts.svg").read_text().count("stroke: #c8c8c8") == 2 * 4


def test_text_of_other_people_is_neither_obeyed_nor_a_formula(cli):
    write("a", typed=["model=x"], model="=HYPERLINK(1)", name="\x1b[31mred")
    write("b", typed=["model=y"], model="-1")
    assert "\x1b" not in cli("plot", "a", "b").out
    cli("plot", "a", "b", "--metric", "loss", "-o", "two.csv")
    assert {row["model"] for row in table("two.csv")} == {"'=HYPERLINK(1)", "-1"}


def test_a_real_sweep_from_its_beginning_to_a_picture(cli):
    words = ("model.hidden=3", "data.inputs=4", "data.validation=0.25", "batch_size=16", "steps=9")
    assert cli("run", "-m", "optim.lr=1e-4,1e-3,1e-2", "seed=0,1", "run_dir=sweep", *words).code == 0
    result = cli("plot", "sweep", "-o", "sweep.svg")
    assert result.code == 0, result.err
    assert {"optim.lr (mean of 2)", "0.0001", "0.001", "0.01", "range"} <= texts("sweep.svg")
    cli("plot", "sweep", "-o", "sweep.csv")
    assert {row["optim.lr"] for row in table("sweep.csv")} == {"0.0001", "0.001", "0.01"}


def test_help_has_examples(cli):
    result = cli("plot", "--help")
    assert result.out.startswith("Usage: trainer plot RUN")
    assert "Examples:\n  trainer plot last\n" in result.out
