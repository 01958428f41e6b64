"""What workers are started with: no module of the working directory stands in for one of Python's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run
from workers import end_workers

SMALL = ("data.inputs=20", "model.hidden=5", "steps=5")
SHADOWED = ("argparse", "queue", "random", "re", "runpy", "struct", "tempfile")
TRAINER = Path(sys.executable).with_name("trainer")
CALLING = """
import os, subprocess, sys, torch


class Part(torch.nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        subprocess.run([sys.executable, "tools/tool.py"], check=True)
"""
TOOL = """
import os, beside
with open("called", "a") as file:
    print(os.getppid(), os.environ.get("PYTHONSAFEPATH"), file=file)
"""
DATA = """
import os
import torch
from torch.utils.data import Dataset


class Part(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        with open("fetched", "a") as file:
            print(os.getpid(), os.environ.get("PYTHONSAFEPATH"), file=file)
        return torch.ones(2), torch.ones(1)
"""


def set_traps(folder: Path) -> Path:
    """Put modules there that leave a mark when they are imported; return the mark, which is not there yet."""
    mark = Path("mark").absolute()
    for name in SHADOWED:
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write(__name__ + ' ')\n")
    for command in (["-c", "import random"], ["-m", "joblib.externals.loky.backend.popen_loky_posix", "--help"]):
        subprocess.run([sys.executable, *command], cwd=folder, capture_output=True)
        assert mark.exists()
        mark.unlink()
    return mark


@pytest.mark.parametrize(
    "launcher",
    ["joblib", *(pytest.param(name, marks=pytest.mark.slow) for name in ("basic", "local", "processes", "vectorized"))],
)
def test_a_sweep_that_somebody_has_sent(cli, launcher):
    assert cli("run", "-m", "run_dir=sent", "seed=0,1", *SMALL).code == 0
    sweep = json.loads(Path("sent/sweep.json").read_text())
    several = ["hydra.launcher.n_jobs=2"] if launcher in ("joblib", "processes") else []
    sweep["launcher"] = {"name": launcher, "overrides": several, "config_dirs": []}
    Path("sent/sweep.json").write_text(json.dumps(sweep))
    mark = set_traps(Path("sent"))
    done = subprocess.run([TRAINER, "resume", ".", "steps=8"], cwd="sent", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not mark.exists(), mark.read_text()
    assert [Run(Path("sent", job)).status["step"] for job in ("000", "001")] == [8, 8]


def test_workers_of_joblib_and_what_the_users_code_starts_in_them(cli, own_part, monkeypatch):
    """A script of the user's, started by the model, still finds the module beside it."""
    own_part("model", "calling", CALLING, "inputs: null\noutputs: null\n")
    Path("tools").mkdir()
    Path("tools/tool.py").write_text(TOOL)
    Path("tools/beside.py").touch()
    mark = set_traps(Path())
    end_workers()
    words = ("seed=0,1", "model=calling", "data.inputs=4", "steps=3", "hydra/launcher=joblib")
    result = cli("run", "-m", "run_dir=sweep", *words, "hydra.launcher.n_jobs=2")
    assert result.code == 0, result.err
    assert not mark.exists(), mark.read_text()
    called = [line.split() for line in Path("called").read_text().splitlines()]
    assert {value for _, value in called} == {"None"}
    assert len({process for process, _ in called} - {str(os.getpid())}) >= 1
    assert "PYTHONSAFEPATH" not in os.environ
    end_workers()


def test_what_the_user_has_set_stays(cli, own_part, monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    own_part("data", "mine", DATA, "validation: 0\nworkers: 1\n")
    words = ("data=mine", "model=mlp", "model.sizes=[2]", "loss=mse", "steps=2")
    assert cli("run", "-m", "seed=0,1", *words, "hydra/launcher=basic").code == 0
    assert {line.split()[1] for line in Path("fetched").read_text().splitlines()} == {"1"}
    assert os.environ["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize("method", ["forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_of_a_dataset(workdir, own_part, method):
    own_part("data", "mine", DATA, "validation: 0\nworkers: 1\n")
    mark = set_traps(Path())
    start = "import sys, multiprocessing; multiprocessing.set_start_method(sys.argv.pop(1)); import trainer.cli"
    words = ("run", "data=mine", "model=mlp", "model.sizes=[2]", "loss=mse", "batch_size=4", "steps=3")
    command = [sys.executable, "-P", "-c", f"{start}; sys.exit(trainer.cli.main())", method, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not mark.exists(), mark.read_text()
    fetched = [line.split() for line in Path("fetched").read_text().splitlines()]
    assert {value for _, value in fetched} == {"None"}
    assert len({process for process, _ in fetched}) > 1


@pytest.mark.slow
def test_what_torch_starts_to_compile(cli):
    assert cli("run", "run_dir=sent", *SMALL).code == 0
    mark = set_traps(Path("sent"))
    words = ("resume", ".", "steps=40", "compile=step")
    done = subprocess.run([TRAINER, *words], cwd="sent", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not mark.exists(), mark.read_text()
