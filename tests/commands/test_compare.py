"""`trainer compare`: what differs between runs, and that alone, side by side with what came of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import Run
from instants import begin
from rich.console import Console

from trainer.terminal import screen
from trainer.terminal.streams import Stream

TINY = ("data.inputs=4", "model.hidden=3", "steps=6")
RESULTS = {"state", "step", "loss", "validation loss", "best validation loss"}


@pytest.fixture
def made(cli):
    """Train runs with other words, each in a directory of its own, named as it is called."""

    def make(**runs: tuple[str, ...]) -> dict[str, Run]:
        for name, words in runs.items():
            begin(name, *TINY, *words)
            assert cli("resume", name).code == 0
        return {name: Run(Path(name)) for name in runs}

    return make


def table(out: str) -> dict[str, list[str]]:
    """The cells of what stands side by side, by the names of its lines."""
    head, *lines = out.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", head)]
    cells = {}
    for line in lines:
        if line[:1].strip():
            bounds = zip(starts, [*starts[1:], None], strict=True)
            cells[line[: starts[0]].strip()] = [line[first:end].strip() for first, end in bounds]
    return cells


def test_only_what_differs_and_then_the_results(cli, made):
    runs = made(one=("seed=3",), two=("seed=3", "optim.lr=0.001", "clip_norm=1"))
    result = cli("compare", "one", "two")
    assert result.code == 0
    shown = table(result.out)
    assert shown.keys() - RESULTS == {"optim.lr", "clip_norm"}
    assert (shown["optim.lr"], shown["clip_norm"]) == (["0.0001", "0.001"], ["null", "1"])
    assert shown["state"] == ["done", "done"]
    assert shown["step"] == ["6", "6"]
    assert shown["loss"] == [f"{run.steps[-1]['loss']:.6g}" for run in runs.values()]


def test_another_option_is_compared_by_the_settings_that_count(cli, made):
    """Both have a learning rate; what only one has is shown unless it changes nothing there."""
    made(sgd=("optim=sgd",), adam=("optim=adam", "optim.lr=0.01"))
    shown = table(cli("compare", "sgd", "adam").out)
    assert shown.keys() - RESULTS == {"optim", "optim.lr", "optim.betas", "optim.eps", "optim.fused"}
    assert shown["optim"] == ["sgd", "adam"]
    assert shown["optim.lr"] == ["0.0001", "0.01"]
    assert shown["optim.betas"] == ["", "[0.9,0.999]"]


def test_choices_come_first_then_settings_then_results(cli, made):
    made(one=("data.validation=0.25",), two=("data.validation=0.5", "optim=adam", "seed=1"))
    names = list(table(cli("compare", "one", "two").out))
    assert names[:3] == ["optim", "seed", "batch_size"]
    assert names.index("data.validation") < names.index("optim.betas") < names.index("state")
    assert names[-1] == "best validation loss"


def test_of_equal_runs_nothing_differs(cli, made):
    made(one=(), two=())
    result = cli("compare", "one", "two")
    assert result.code == 0
    assert "no differences: choices, settings, versions, machine and results are the same" in result.out
    assert "optim" not in result.out


def test_where_only_the_results_differ_they_are_shown(cli, made):
    runs = made(one=(), two=())
    file = runs["two"].path / "status.json"
    file.write_text(json.dumps({**runs["two"].status, "state": "failed", "step": 3}))
    out = cli("compare", "one", "two").out
    assert out.startswith("only the results differ\n")
    assert table(out.partition("\n")[2])["state"] == ["done", "failed"]


def test_versions_machine_git_and_modules_that_differ(cli, made):
    runs = made(one=(), two=())
    status = runs["two"].status
    (segment,) = status["segments"]
    segment["versions"]["torch"] = "9.9"
    segment["machine"]["host"] = "elsewhere"
    segment["git"] = "f00d"
    (runs["two"].path / "status.json").write_text(json.dumps({**status, "code": {"mine.py": "ab" * 32}}))
    shown = table(cli("compare", "one", "two").out)
    assert shown.keys() - RESULTS == {"versions.torch", "machine.host", "git", "code mine.py"}
    assert shown["versions.torch"][1] == "9.9"
    assert shown["machine.host"][1] == "elsewhere"
    assert shown["code mine.py"] == ["", "abababababab"]


def test_json_holds_the_values_themselves(cli, made):
    runs = made(one=(), two=("optim=adam", "optim.lr=0.01"))
    found = json.loads(cli("compare", "one", "two", "--json").out)
    assert found["choices"] == {"optim": {"one": "sgd", "two": "adam"}}
    assert found["settings"]["optim.lr"] == {"one": 0.0001, "two": 0.01}
    assert found["settings"]["optim.betas"] == {"two": [0.9, 0.999]}
    assert found["circumstances"] == {}
    for name, run in runs.items():
        assert found["results"][name]["metrics"] == run.status["metrics"]
        assert found["results"][name]["path"] == name


def test_a_sweep_stands_for_its_jobs(cli):
    assert cli("run", "-m", "run_dir=sweep", "optim.lr=1e-5,1e-3", *TINY).code == 0
    out = cli("compare", "sweep").out
    assert out.splitlines()[0].split() == ["sweep/000", "sweep/001"]
    assert table(out)["optim.lr"] == ["1e-05", "0.001"]
    losses = {f"sweep/{name}": Run(Path("sweep") / name).status["metrics"]["loss"] for name in ("000", "001")}
    assert f"show the best  trainer show {min(losses, key=losses.__getitem__)}" in out


def test_of_many_runs_eight_are_shown_and_json_has_all(cli, made):
    runs = made(**{f"run{index}": (f"seed={index}",) for index in range(2)})
    for index in range(2, 11):
        copy = shutil.copytree("run1", f"run{index}")
        status = {**runs["run1"].status, "config": {**runs["run1"].status["config"], "seed": index}}
        (Path(copy) / "status.json").write_text(json.dumps(status))
    names = [f"run{index}" for index in range(11)]
    out = cli("compare", *names).out
    assert out.splitlines()[0].split() == names[:8]
    assert "8 of 11 runs; --json shows all" in out
    found = json.loads(cli("compare", *names, "--json").out)
    assert found["settings"]["seed"] == {name: index for index, name in enumerate(names)}


@pytest.mark.parametrize("width", [80, 40, 20])
def test_on_a_narrow_terminal_every_value_is_whole(cli, made, monkeypatch, width):
    made(one=("name=first",), two=("optim=adam", "optim.lr=0.00012345", "name=second"), three=("optim.lr=0.00054321",))
    narrow = Console(
        file=Stream("stdout", BrokenPipeError), width=width, force_terminal=True, color_system=None, markup=False
    )
    monkeypatch.setattr(screen, "stdout", narrow)
    out = re.sub(r"\x1b\[[\d;]*m", "", cli("compare", "one", "two", "three").out).partition("look at")[0]
    assert max(map(len, out.splitlines())) <= width
    for whole in ("one", "two", "three", "0.00012345", "0.00054321", "[0.9,0.999]", "first", "second"):
        assert whole in out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "needs two runs or more"),
        (("one",), "needs two runs or more"),
        (("one", "one"), "one and one are the same run"),
        (("one", "./one"), "one and ./one are the same run"),
        (("one", "nowhere"), "nowhere: no such run"),
        (("one", "--jso"), "--jso: no such flag"),
    ],
)
def test_a_wrong_word_gets_one_line(refused, made, words, part):
    made(one=())
    assert part in refused("compare", *words)


def test_help_has_an_example(cli):
    result = cli("compare", "--help")
    assert (result.code, result.err) == (0, "")
    assert "trainer compare last best" in result.out
