"""Workers end with the process that they work for, whatever has ended it, and begin nothing more."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Run, wait_until
from faults import default_handlers
from workers import end_workers

from trainer.launch.owner import Owner

SLOW = """
import os, time, torch


class Part(torch.nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)

    def forward(self, x):
        if os.path.exists("slow") and self.training:
            time.sleep(0.02)
        return super().forward(x)
"""
WORDS = ("model=slow", "data.inputs=4", "seed=range(5)", "steps=2000", "log_every=100")


def states() -> list[str]:
    return [Run(path).status["state"] for path in sorted(Path("sweep").glob("0*"))]


def in_a_group() -> None:
    os.setpgid(0, 0)
    default_handlers()


def is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("launcher", ["joblib", "processes"])
def test_no_worker_trains_on_when_the_sweep_is_killed(cli, fork, own_part, launcher):
    own_part("model", "slow", SLOW, "inputs: null\noutputs: null\n")
    Path("slow").touch()
    end_workers()
    words = (*WORDS, f"hydra/launcher={launcher}", "hydra.launcher.n_jobs=2")
    child = fork("run", "-m", "run_dir=sweep", *words, prepare=in_a_group)
    wait_until(lambda: Path("sweep").exists() and states()[:2] == ["running", "running"], 90)
    wait_until(lambda: all(Run(Path("sweep", job)).status["step"] > 0 for job in ("000", "001")))
    child.kill(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    wait_until(lambda: not is_there(child.pid))
    assert states() == ["stopped", "stopped", "waiting", "waiting", "waiting"]
    assert all(Run(Path("sweep", job)).checkpoints for job in ("000", "001"))  # saved as a stop does
    Path("slow").unlink()
    result = cli("resume", "sweep")
    assert result.code == 0, result.err
    assert states() == ["done"] * 5
    end_workers()


def test_a_process_is_told_from_a_later_one_of_the_same_number():
    me = Owner.me()
    assert me.is_me
    assert not me.is_gone
    assert replace(me, started=0).is_gone
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    theirs = replace(me, pid=child, started=_started(child))
    assert not theirs.is_me
    assert not theirs.is_gone
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: theirs.is_gone)  # though its number is not free before someone has waited for it
    os.waitpid(child, 0)
    assert theirs.is_gone
    assert replace(theirs, started=None).is_gone  # as on a system that does not say
    assert not replace(theirs, place="another machine").is_gone


def _started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().split()[21])
