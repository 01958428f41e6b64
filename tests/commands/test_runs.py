"""`trainer runs` and `best`: what has been run, best first, read from status.json alone."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path

import pytest
from conftest import Run
from instants import begin
from rich.console import Console

from trainer.terminal import screen
from trainer.terminal.streams import Stream

SMALL = ("data.inputs=4", "model.hidden=3")


@pytest.fixture
def some(cli):
    """Four runs of one kind, in ./runs."""
    for number, (lr, seed) in enumerate(((1e-4, 0), (1e-4, 1), (1e-2, 0), (1e-2, 1))):
        path = f"runs/2026010{number + 1}-000000-bbb{'bcdf'[number]}"
        begin(path, *SMALL, "steps=20", f"optim.lr={lr}", f"seed={seed}")
        assert cli("resume", path).code == 0
    return [Run(path) for path in sorted(Path("runs").glob("2*"))]


def last_loss(run: Run) -> float:
    return run.status["metrics"]["loss"]


def listed(out: str) -> list[str]:
    return [line.split()[0] for line in out.splitlines() if line.startswith("bbb")]


def test_the_best_come_first(cli, some):
    result = cli("runs")
    assert result.code == 0
    assert listed(result.out) == [run.path.name[-4:] for run in sorted(some, key=last_loss)]
    for run in some:
        assert f"{last_loss(run):.6g}" in result.out


def test_filters_choose_by_setting_choice_and_state(cli, some):
    assert {*listed(cli("runs", "optim.lr=1e-2").out)} == {"bbbd", "bbbf"}
    assert listed(cli("runs", "optim.lr=0.01", "seed=1").out) == ["bbbf"]
    assert len(listed(cli("runs", "model=two_layer", "state=done").out)) == 4


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["model=mlp"], ["model=mlp: no run has this value; allowed: two_layer"]),
        (["optim.rate=1"], ["optim.rate: no run has such a setting", "did you mean optim.lr?"]),
        (["seed=0", "seed=5"], ["seed=5: no run has this value; allowed: 0, 1"]),
        (["--by", "accuracy"], ["--by=accuracy: no run here has such a metric; allowed: loss"]),
        (["--group-by", "optim.rate"], ["no run has such a setting"]),
        (["nowhere"], ["nowhere: no such directory"]),
        (["--alll"], ["--alll: no such flag", "did you mean --all?"]),
    ],
)
def test_a_wrong_word_gets_one_line(cli, some, words, parts):
    result = cli("runs", *words)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    for part in parts:
        assert part in result.err


@pytest.mark.parametrize("width", [80, 60])
def test_on_a_narrow_terminal_every_number_is_whole(cli, monkeypatch, width):
    cli("run", "-m", "run_dir=sweep", *SMALL, "data.validation=0.25", "steps=3", "optim.lr=1e-4,1e-5", "seed=1,2")
    narrow = Console(
        file=Stream("stdout", BrokenPipeError), width=width, force_terminal=True, color_system=None, markup=False
    )
    monkeypatch.setattr(screen, "stdout", narrow)
    out = cli("show", "sweep").out.partition("results")[2]
    for job in range(4):
        status = Run(Path(f"sweep/{job:03d}")).status
        for value in status["metrics"].values():
            assert f"{value:.6g} " in out
        assert f"{status['best']['value']:.6g} at {status['best']['step']}" in out


def test_mean_and_spread_by_group(cli, some):
    result = cli("runs", "--group-by", "optim.lr")
    for pair in (some[:2], some[2:]):
        values = [last_loss(run) for run in pair]
        line = next(line for line in result.out.splitlines() if f"{statistics.fmean(values):.6g}" in line)
        assert f"{statistics.stdev(values):.6g}" in line


def test_json_has_everything(cli, some):
    found = json.loads(cli("runs", "--json").out)
    assert [one["run"] for one in found] == listed(cli("runs").out)
    assert {one["config"]["optim"]["lr"] for one in found} == {1e-4, 1e-2}


def test_runs_with_other_losses_are_ranked_only_by_a_named_metric(cli, some):
    begin("runs/20260106-000000-bbbg", *SMALL, "steps=20", "loss=mse")
    assert cli("resume", "bbbg").code == 0
    result = cli("runs")
    assert listed(result.out)[0] == "bbbg"  # the newest
    assert "not ranked" in result.out
    assert cli("resume", "best").code == 2
    ranked = listed(cli("runs", "--by", "loss").out)
    assert ranked == [run.path.name[-4:] for run in sorted(map(Run, Path("runs").glob("2*")), key=last_loss)]


def test_each_metric_is_ranked_its_own_way(cli, some):
    """Whatever the runs watch: less loss is better, and more accuracy."""
    words = ("data=digits", "model=linear", "loss=cross_entropy", "steps=4", "optim=adam")
    for number, watched in enumerate(("monitor=validation_accuracy mode=max", "mode=min")):
        for lr in ("1e-5", "1e-2"):
            run_dir = f"classes/{number}-{lr}"
            assert cli("run", f"run_dir={run_dir}", *words, *watched.split(), f"optim.lr={lr}").code == 0
    for metric, descending in (("loss", False), ("validation_loss", False), ("validation_accuracy", True)):
        found = json.loads(cli("runs", "classes", "--by", metric, "--json").out)
        values = [one["best"]["value"] if one["best"]["metric"] == metric else one["metrics"][metric] for one in found]
        assert values == sorted(values, reverse=descending), metric


def test_a_run_that_cannot_be_read_is_in_nobodys_way(cli, some):
    before = listed(cli("runs").out)
    (some[3].path / "status.json").write_text("{")
    assert [one for one in listed(cli("runs").out) if one != "bbbf"] == [one for one in before if one != "bbbf"]


def test_best_is_a_run_like_others(cli, some):
    best = min(some, key=last_loss)
    result = cli("resume", "best", "steps=25")
    assert result.code == 0, result.err
    assert best.status["step"] == 25


def test_the_best_of_a_sweep_and_the_newest_of_all(cli, some):
    """`last` is a sweep if that is the newest; `/best` after the name of a sweep is the best of its jobs."""
    assert cli("run", "-m", "optim.lr=1e-6,1e-3", "steps=20", *SMALL).code == 0
    sweep = max(Path("runs").glob("2*"))
    jobs = [Run(sweep / name) for name in ("000", "001")]
    best = min(jobs, key=last_loss).path
    for word in ("last/best", f"{sweep.name[-4:]}/best", f"{sweep.name}/best", f"{sweep}/best"):
        assert json.loads(cli("show", word, "--json").out)["path"] == str(best)
    assert json.loads(cli("show", "last", "--json").out)["path"] == str(sweep)
    for job in jobs:
        assert json.loads(cli("show", f"last/{job.path.name}", "--json").out)["path"] == str(job.path)
    overall = min([*some, *jobs], key=last_loss).path
    assert json.loads(cli("show", "best", "--json").out)["path"] == str(overall)
    assert "bbbb/best: " in cli("show", "bbbb/best").err


def test_only_sweeps_here_and_the_best_is_one_of_their_jobs(cli):
    for lr in ("1e-6", "1e-3"):
        assert cli("run", "-m", "seed=0,1", f"optim.lr={lr}", "steps=20", *SMALL).code == 0
    jobs = [Run(path) for sweep in Path("runs").glob("2*") for path in sweep.iterdir() if path.is_dir()]
    assert len(jobs) == 4
    assert json.loads(cli("show", "best", "--json").out)["path"] == str(min(jobs, key=last_loss).path)


def test_a_sweep_is_ranked_by_its_name_too(cli, some):
    assert cli("run", "-m", "seed=5,6", "steps=20", *SMALL).code == 0
    short = max(Path("runs").glob("2*")).name[-4:]
    shown = [line.split()[0] for line in cli("runs", short).out.splitlines() if line.startswith(f"{short}/")]
    assert sorted(shown) == [f"{short}/000", f"{short}/001"]


def test_the_newest_come_first_where_nothing_ranks_them(cli, some):
    """Jobs of a sweep stand where their sweep does."""
    assert cli("run", "-m", "seed=5,6", "loss=mse", "steps=2", *SMALL).code == 0
    short = max(Path("runs").glob("2*")).name[-4:]
    names = [line.split()[0] for line in cli("runs").out.splitlines()[1:7]]
    assert names == [f"{short}/001", f"{short}/000", "bbbf", "bbbd", "bbbc", "bbbb"]


def test_what_may_be_typed_next_works(cli, some):
    out = cli("runs").out
    first, second = listed(out)[:2]
    words = [line.split("trainer ")[1].split() for line in out.splitlines() if "  trainer " in line]
    assert words == [["show", first], ["compare", first, second], ["resume", first]]
    for one in words:
        assert cli(*one).code == 0


def test_jobs_of_sweeps_stand_among_them(cli, some):
    assert cli("run", "-m", "seed=5,6", "steps=20", *SMALL).code == 0
    out = cli("runs").out
    assert sum("/00" in line.split()[0] for line in out.splitlines() if line) == 2
    assert len(listed(cli("runs", "runs").out)) == 4


def test_the_first_thirty_or_all(cli, some):
    for number in range(40):
        path = Path(f"runs/20260201-0000{number:02d}-c{'bcdfghjk'[number // 8]}{'bcdfghjk'[number % 8]}b")
        path.mkdir()
        for name in ("config.yaml", "status.json"):
            (path / name).write_bytes((some[0].path / name).read_bytes())
    result = cli("runs")
    assert "30 of 44 runs; --all shows all" in result.out
    assert "--all" not in cli("runs", "--all").out


def test_a_run_that_nobody_trains_any_more_was_interrupted(cli, some):
    file = some[0].path / "status.json"
    file.write_text(file.read_text().replace('"state": "done"', '"state": "running"'))
    assert "interrupted" in cli("runs").out
    assert listed(cli("runs", "state=interrupted").out) == ["bbbb"]


def test_nothing_in_a_name_is_obeyed(cli, some):
    file = some[0].path / "status.json"
    status = json.loads(file.read_text())
    file.write_text(json.dumps({**status, "name": "[red]\x1b[31mx", "state": "\x1b]0;x\x07"}))
    assert "\x1b" not in cli("runs").out


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("step", "three"),
        ("step", 10**400),
        ("steps", True),
        ("metrics", {"loss": "small"}),
        ("metrics", [1]),
        ("best", {"step": 1, "metric": "loss"}),
        ("choices", {"model": 3}),
        ("segments", [{"seconds": []}]),
        ("rows", {"training": 1.5}),
        ("state", None),
    ],
)
def test_what_is_of_another_kind_is_passed_over(cli, key, wrong):
    file = begin("runs/20260101-000000-bbbb", *SMALL) / "status.json"
    status = json.loads(file.read_text())
    file.write_text(json.dumps({**status, key: wrong}))
    result = cli("runs", "--json")
    assert result.code == 0, result.err
    (found,) = json.loads(result.out)
    status.pop(key, None)
    assert {name: found[name] for name in status} == status
    assert found.get(key) == ("unreadable" if key == "state" else None)
    assert cli("runs").code == 0


@pytest.mark.parametrize("character", ["\x7f", "\x9b", "\u202e", "\x1b", "\ud800"])
@pytest.mark.parametrize("escaped", [True, False])
def test_control_characters_are_escaped_however_they_are_written(cli, character, escaped):
    file = begin("runs/20260101-000000-bbbb", *SMALL) / "status.json"
    fields = {**json.loads(file.read_text()), "name": f"a{character}b", "choices": {character: "x"}}
    text = json.dumps(fields, ensure_ascii=escaped)  # bare, but for those that JSON always escapes
    file.write_text(text, errors="surrogatepass")
    (found,) = json.loads(cli("runs", "--json").out)
    if character == "\ud800" and not escaped:
        assert found["state"] == "unreadable"  # it is no UTF-8
        return
    assert found["name"] == f"a{repr(character)[1:-1]}b"
    assert [*found["choices"]] == [repr(character)[1:-1]]


def test_no_runs_yet(cli):
    assert "there are no runs in ./runs" in cli("runs").err
    os.mkdir("empty")
    assert "there are no runs in empty" in cli("runs", "empty").err


def test_groups_are_there_for_programs_too(cli):
    words = ("data.validation=0.25", "batch_size=16", "model.hidden=4", "data.inputs=5", "steps=4")
    assert cli("run", "-m", "run_dir=runs/20260101-000000-bcdf", "optim.lr=1e-3,1e-2", "seed=0,1", *words).code == 0
    found = json.loads(cli("runs", "--group-by", "optim.lr", "--json").out)
    runs = json.loads(cli("runs", "--json").out)
    for group in found:
        values = [r["best"]["value"] for r in runs if r["config"]["optim"]["lr"] == float(group["optim.lr"])]
        assert group["runs"] == 2
        assert group["mean"] == pytest.approx(sum(values) / 2)
        assert group["spread"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert "mean best validation loss" in cli("runs", "--group-by", "optim.lr").out
