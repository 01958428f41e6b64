"""Opening a run that somebody else has made runs none of its code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import hostile
import pytest
from instants import train_and_copy, without_sums


def test_no_hostile_run_does_any_harm(cli):
    found = list(hostile.sprung(cli))
    assert [problem for problem in found if problem is not None] == []
    assert len(found) >= 100


@pytest.mark.parametrize("command", [["trainer"], ["python", "-m", "trainer"]], ids=" ".join)
def test_modules_in_the_run_shadow_nothing(cli, command):
    """Started anew in the run's directory, where lies what could be imported: ours, and what others look for."""
    train_and_copy(cli, *hostile.WORDS, run=3)
    for name in ("torch", "yaml", "numpy", "hydra", "queue", "sitecustomize", "gmpy2", "flint", "triton", "pandas"):
        Path(f"run/{name}.py").write_text(hostile.EVIL)
    command = [str(Path(sys.executable).with_name(command[0])), *command[1:], "resume", ".", "steps=5"]
    done = subprocess.run(command, cwd="run", capture_output=True, text=True)
    assert not list(Path().rglob(hostile.CANARY)), done.stderr
    assert done.returncode == 0, done.stderr


BEFORE_TORCH = """
import os, sys
from trainer.cli import main
for name in sorted(os.listdir()):
    if os.path.isdir(name) and name.startswith("run-"):
        codes = {main([command, name]) for command in ("resume", "reproduce")}
        print(name, *codes, "torch" in sys.modules)
"""


def test_foreign_code_and_unreadable_configs_are_refused_before_torch_is_imported(cli):
    train_and_copy(cli, *hostile.WORDS, good=3)
    without_sums(Path("good"))
    kinds = ("_target_: os", "_target_: subprocess", "_target_: evil", "config.yaml with", "config.yaml is")
    names = [name for name in hostile.traps() if any(kind in name for kind in kinds)]
    for number, name in enumerate(names):
        shutil.copytree("good", f"run-{number:03d}")
        Path("outside").mkdir(exist_ok=True)
        hostile.traps()[name].spring(Path(f"run-{number:03d}"))
    done = subprocess.run([sys.executable, "-c", BEFORE_TORCH], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"run-{number:03d} 2 False" for number in range(len(names))], done.stderr
    assert len(names) > 30


def test_the_traps_are_set(cli):
    """Code that the user trusts does run, so that a canary means something."""
    train_and_copy(cli, *hostile.WORDS, run=3)
    without_sums(Path("run"))
    hostile.traps()["code that came with it"].spring(Path("run"))
    assert cli("resume", "run", "--trust-code").code == 2
    assert Path(hostile.CANARY).exists()
