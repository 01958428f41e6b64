"""`trainer init` writes an example that works as it stands, and never touches what is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run
from instants import content

from trainer.commands import init

EXAMPLE = Path(__file__).parents[2] / "src" / "trainer" / "examples" / "my_model"


@pytest.fixture(autouse=True)
def forget():
    yield
    sys.modules.pop("my_model", None)


def test_it_writes_every_file_of_the_example_and_says_what_to_type(cli):
    result = cli("init", "first")
    assert result.code == 0
    assert {p.relative_to("first").as_posix() for p in Path("first").rglob("*") if p.is_file()} == init.FILES.keys()
    for name, what in init.FILES.items():
        assert Path("first", name).read_bytes() == (EXAMPLE / name).read_bytes()
        assert f"{name} " in result.out
        assert what in result.out
    for command in ("cd first", "trainer run experiment=my_experiment", "pytest"):
        assert result.out.count(f"  {command}\n") == 1


def test_the_example_trains_to_what_it_says(cli, monkeypatch):
    cli("init", "first")
    monkeypatch.chdir("first")
    result = cli("run", "experiment=my_experiment", "run_dir=run")
    assert result.code == 0, result.err
    assert "my_model" in result.err
    run = Run(Path("run"))
    claimed = float(Path("configs/experiment/my_experiment.yaml").read_text().partition("below ")[2].split()[0])
    assert run.status["metrics"]["validation_loss"] < claimed < run.steps[0]["loss"]
    assert [*run.status["code"]] == ["my_model.py"]
    assert cli("run", "experiment=my_experiment", "model.hidden=8", "model.dropout=0.1", "steps=2").code == 0


def test_its_own_test_passes_wherever_it_is_started(cli, workdir):
    cli("init", "first")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "first"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert not Path("first/runs").exists()


def test_the_options_are_listed(cli, monkeypatch):
    cli("init", "first")
    monkeypatch.chdir("first")
    out = cli("list").out
    assert "my_model  " in out
    assert "my_experiment  " in out
    assert "class MyModel in my_model.py" in cli("list", "model=my_model").out


def test_it_goes_beside_what_is_there(cli):
    Path("houses.csv").write_text("a,b\n1,2\n")
    Path("configs/model").mkdir(parents=True)
    Path("configs/model/other.yaml").write_text("_target_: torch.nn.Identity\n")
    result = cli("init", ".")
    assert result.code == 0
    assert "cd " not in result.out
    assert Path("houses.csv").read_text() == "a,b\n1,2\n"
    assert Path("configs/model/other.yaml").exists()
    assert cli("run", "experiment=my_experiment", "steps=2").code == 0


def test_a_directory_that_needs_quotes(cli):
    assert "  cd 'my first'\n" in cli("init", "my first").out
    assert Path("my first/my_model.py").exists()


@pytest.mark.parametrize("name", init.FILES)
def test_nothing_that_is_there_is_overwritten(cli, workdir, name):
    Path("first", name).parent.mkdir(parents=True)
    Path("first", name).write_text("mine")
    before = content(workdir)
    result = cli("init", "first")
    assert result.code == 2
    assert result.err == f"error: first/{name}: exists and is not overwritten; allowed: another directory\n"
    assert content(workdir) == before


def test_a_link_that_leads_nowhere_is_there_too(refused):
    Path("first").mkdir()
    Path("first/my_model.py").symlink_to("nowhere")
    assert "first/my_model.py: exists" in refused("init", "first")


@pytest.mark.parametrize("file", ["first", "first/configs", "first/configs/experiment"])
def test_what_is_in_the_way_is_named_and_nothing_is_left(cli, workdir, file):
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).touch()
    before = content(workdir)
    result = cli("init", "first")
    assert result.code == 2
    assert result.err.startswith("error: init first: ")
    assert file in result.err
    assert content(workdir) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "init: which directory? `trainer init first`"),
        (("a", "b"), "init: one directory: "),
        (("first", "--force"), "--force: no such flag"),
    ],
)
def test_what_is_refused(refused, words, said):
    assert said in refused("init", *words)


def test_help(cli):
    result = cli("init", "--help")
    assert result.code == 0
    for name, what in init.FILES.items():
        assert re.search(rf"^  {re.escape(name)}  +{re.escape(what)}$", result.out, re.MULTILINE)
    assert "trainer init ." in result.out
    assert max(map(len, result.out.splitlines())) < 80
