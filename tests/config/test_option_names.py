"""Whatever file `trainer list` names can be selected by that name, in every command that takes options."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trainer.terminal import completion

MODEL = "# A model\n_target_: trainer.models.LinearNet\ninputs: null\noutputs: null\n"
EXPERIMENT = "# @package _global_\n# An experiment\nsteps: {steps}\n"
NUMBERS = [
    "2024",
    "true",
    "FALSE",
    "1e-3",
    "007",
    "1_000",
    "0x1",
    "nan",
    "-inf",
    "null",
    "None",
    "~",
    "-1",
    "+1",
    "1.5",
]
SIGNS = ["a b", "ü", "a=b", "a:b", "a'b", 'a"b', "a\\b", "$x", "a(b)", "{a}", "~x", "-m", "#1", "a+b", "a@b", "?"]


def write(name: str, text: str, group: str = "experiment") -> None:
    folder = Path("configs", group)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(text)


@pytest.mark.parametrize("name", NUMBERS + SIGNS)
def test_an_option_is_selected_by_its_name(cli, name):
    write(name, EXPERIMENT.format(steps=3))
    listed = [one["name"] for one in json.loads(cli("list", "experiment", "--json").out)["experiment"]]
    assert name in listed
    assert f"experiment={name}" in completion.after(["run", "experiment="])
    shown = cli("run", f"experiment={name}", "--cfg", "job")
    assert shown.code == 0, shown.err
    assert yaml.safe_load(shown.out)["steps"] == 3
    explained = json.loads(cli("explain", "experiment", f"experiment={name}", "--json").out)
    assert explained["value"] == name
    for words in (["list"], ["explain"], ["inspect"], ["run", "--dry-run"], ["run", "-m", "--dry-run"]):
        result = cli(*words, f"experiment={name}")
        assert result.code == 0, result.err


def test_a_sweep_takes_such_names_and_says_them_as_they_are_typed(cli):
    names = ["2024", "true", "1e-3", "a b", "ü"]
    for steps, name in enumerate(names, 1):
        write(name, EXPERIMENT.format(steps=steps))
    result = cli("run", "-m", "data.samples=8", f"experiment={','.join(names)}", "run_dir=sweep")
    assert result.code == 0, result.err
    jobs = [json.loads(Path(f"sweep/{job:03d}/status.json").read_text()) for job in range(5)]
    assert [job["choices"]["experiment"] for job in jobs] == names
    assert [job["swept"]["experiment"] for job in jobs] == names
    assert [job["step"] for job in jobs] == [1, 2, 3, 4, 5]
    assert cli("reproduce", "sweep/003").code == 0


def test_a_run_continues_with_such_a_model(cli, train):
    write("2024", MODEL, "model")
    run = train("model=2024", "steps=2", "data.samples=8")
    assert run.status["choices"]["model"] == "2024"
    assert cli("resume", "run", "steps=3").code == 0
    assert cli("reproduce", "run").code == 0


def test_several_loggers_may_have_such_names(train):
    for name in ("1 c", "2024"):
        package = name.replace(" ", "")
        write(name, f"# @package logger.{package}\n# A table\n_target_: trainer.loggers.Csv\n", "logger")
    run = train("logger=[1 c,2024]", "steps=2", "data.samples=8")
    assert set(yaml.safe_load((run.path / "config.yaml").read_text())["logger"]) == {"1c", "2024"}


@pytest.mark.parametrize("name", ["a,b", "[a]", " a", "a\tb", "${x}", "???"])
def test_a_name_that_can_not_be_typed_is_not_listed_but_said(cli, name):
    write(name, EXPERIMENT.format(steps=3))
    result = cli("list", "experiment")
    assert f"configs/experiment/{name}.yaml".replace("\t", "\\t") in result.err
    assert result.err.count("is ignored") == 1
    assert "An experiment" not in result.out


@pytest.mark.parametrize("written", ["2024", "true", "1.5", "[2024]"])
def test_a_choice_in_an_experiment_that_yaml_does_not_read_as_a_name_is_refused(refused, written):
    write("mine", f"# @package _global_\ndefaults:\n  - override /model: {written}\n")
    line = refused("run", "experiment=mine")
    assert f'"{written.strip("[]")}"' in line


def test_a_package_that_hydra_can_not_read_is_refused(refused):
    write("mine", "# @package logger.a b\n_target_: trainer.loggers.Csv\n", "logger")
    assert "@package logger.a b" in refused("run", "logger=mine")


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12) | st.text(
    string.digits + "eE+-._ntfrualsx \\'\"(){}$:=@*", min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES)
@example(name="\\'")
@example(name="a\\")
def test_any_name_that_is_listed_can_be_selected(cli, workdir, name):
    for old in workdir.glob("configs/experiment/*"):
        old.unlink()
    write(name, EXPERIMENT.format(steps=3))
    options = json.loads(cli("list", "experiment", "--json").out)["experiment"]
    listed = [one["name"] for one in options if not one["shipped"]]
    assert listed in ([name], [])
    result = cli("run", f"experiment={name}", "--cfg", "job")
    if listed:
        assert result.code == 0, result.err
        assert yaml.safe_load(result.out)["steps"] == 3
    else:
        assert "Traceback" not in result.err
