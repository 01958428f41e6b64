"""A signal that ends a command leaves none of the files that the command was writing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import wait_until

TABLE = "a,y\n" + "".join(f"{n},{n}.5\n" for n in range(20))


@pytest.fixture
def run(train):
    Path("t.csv").write_text(TABLE)
    return train("experiment=table", "data.path=t.csv", "data.target=y", "batch_size=8", "steps=2")


PAUSE = """
import pathlib, sys, time
from trainer.analysis import export, prediction
from trainer.cli import main
from trainer.files import writing


def wait(*_):
    pathlib.Path("begun").touch()
    time.sleep(120)


{patch}
raise SystemExit(main({words!r}))
"""
NEVER_PREDICT = "prediction._predicted = wait"
NEVER_SYNC = "writing._sync = wait"
NEVER_CHECK = "export.load_file = wait"
WRITERS = {
    "predict": (("predict", "run", "--input", "t.csv", "--output", "o.csv"), NEVER_PREDICT),
    "predict to Parquet": (("predict", "run", "--input", "t.csv", "--output", "o.parquet"), NEVER_PREDICT),
    "plot": (("plot", "run", "--output", "o.csv"), NEVER_SYNC),
    "export": (("export", "run", "--format", "safetensors", "--output", "o"), NEVER_SYNC),
    "export, as it checks": (("export", "run", "--format", "safetensors", "--output", "o"), NEVER_CHECK),
    "a sweep": (("run", "-m", "run_dir=o", "seed=0,1", "steps=2"), NEVER_SYNC),
}
CASES = [
    *((case, signal.SIGTERM) for case in WRITERS),
    ("predict", signal.SIGHUP),
    ("predict", signal.SIGINT),
]


def start(words: tuple[str, ...], patch: str) -> subprocess.Popen[str]:
    """Start a command that waits in the middle of its work, in a new process: a fork would lack polars' threads."""
    source = PAUSE.format(patch=patch, words=list(words))
    return subprocess.Popen([sys.executable, "-c", source], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("case", "number"), CASES)
def test_what_was_being_written_is_removed(run, monkeypatch, tmp_path_factory, case, number):
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setenv("TMPDIR", str(scratch))
    before = {*Path().rglob("*")}
    child = start(*WRITERS[case])
    wait_until(lambda: Path("begun").exists() or child.poll() is not None)
    child.send_signal(number)
    _, text = child.communicate(timeout=60)
    assert child.returncode == 128 + number, text
    assert {*Path().rglob("*")} - before <= {Path("begun"), Path("o")}
    assert not Path("o").is_file()
    assert not list(scratch.iterdir())
    name = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert text.splitlines()[-1] == name


def test_a_signal_that_is_ignored_stays_ignored(run):
    patch = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
before = prediction._predicted
prediction._predicted = lambda *words: (os.kill(os.getpid(), signal.SIGHUP), before(*words))[1]
"""
    child = start(("predict", "run", "--input", "t.csv", "--output", "o.csv"), patch)
    _, text = child.communicate(timeout=60)
    assert child.returncode == 0, text
    assert len(Path("o.csv").read_text().splitlines()) == 21
