"""`trainer resume --dry-run` tells what a resume would change, continue from and cost, and touches nothing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run
from instants import SMALL, require_same, train_and_copy


@pytest.fixture
def dry(cli, workdir, monkeypatch) -> Callable[..., str]:
    """Call `resume ... --dry-run`; require that no file has changed and no lock was looked at. Return its output."""

    def everything() -> dict[str, tuple[int, int, int]]:
        found = {}
        for root in (workdir, Path(os.environ["XDG_STATE_HOME"])):
            for path in (root, *root.rglob("*")):
                seen = path.lstat()
                found[str(path)] = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
        return found

    def call(*words: str, code: int = 0) -> str:
        locks = list(workdir.rglob("lock"))
        for lock in locks:
            os.utime(lock, ns=(0, lock.stat().st_mtime_ns))
        before = everything()
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", lambda *_: pytest.fail("a lock was taken"))
            result = cli("resume", *words, "--dry-run")
        assert result.code == code, result.err
        assert everything() == before
        assert [lock.stat().st_atime_ns for lock in locks] == [0] * len(locks)
        return result.out + result.err

    return call


def lines(text: str) -> dict[str, str]:
    return {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines() if line.startswith("  ")}


def test_a_killed_run_and_then_it_goes_on_as_told(cli, dry):
    train_and_copy(cli, "model=dynamic", *SMALL, run=9)
    said = dry("run")
    assert said.startswith("run, running or interrupted at step ")
    told = lines(said)
    assert (told["from"], told["to"]) == ("step 7", "step 23")
    assert told["left"].startswith("16 steps, about ")
    assert said.endswith("nothing was written\n")
    result = cli("resume", "run")
    assert "continuing from step 7\n" in result.err
    assert "16 more steps" in result.out
    require_same("run", "straight")


def test_what_would_change(cli, dry):
    train_and_copy(cli, *SMALL, run=9)
    told = lines(dry("run", "steps=40", "optim.lr=1e-5", "log_every=5"))
    assert (told["from"], told["to"], told["left"][:8]) == ("step 7", "step 40", "33 steps")
    assert (told["steps"], told["optim.lr"], told["log_every"]) == ("23 -> 40", "0.0001 -> 1e-05", "1 -> 5")
    assert {*told} == {"from", "to", "left", "steps", "optim.lr", "log_every"}
    assert json.loads(Path("run/status.json").read_text())["steps"] == 23


def test_a_damaged_checkpoint(cli, dry):
    train_and_copy(cli, *SMALL, run=16)
    first, last = Run(Path("run")).checkpoints[-2:]
    (last / "model.safetensors").write_bytes(b"damaged")
    said = dry("run")
    step = int(first.name.removeprefix("step-"))
    assert lines(said)["from"] == f"step {step}"
    assert f"warning: step {step} is the newest good checkpoint" in said
    assert f"the checkpoint of step {int(last.name.removeprefix('step-'))} would be set aside" in said
    assert last.exists()
    for path in Run(Path("run")).checkpoints:
        (path / "model.safetensors").write_bytes(b"damaged")
    said = dry("run", code=2)
    assert "none of its checkpoints is good" in said
    assert lines(dry("run", "--force"))["from"] == "step 0"


def test_a_run_that_is_complete_or_being_trained(cli, dry):
    assert cli("run", "run_dir=run", *SMALL).code == 0
    assert dry("run").startswith("run is complete at step 23")
    assert lines(dry("run", "steps=24"))["left"].startswith("1 step, about ")
    descriptor = os.open("run/lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert lines(dry("run", "steps=24"))["left"].startswith("1 step, about ")
    os.close(descriptor)


@pytest.mark.parametrize(
    "words",
    [
        ("steps=5",),
        ("model=linear",),
        ("optim.lrr=1",),
        ("optim.lr=-1",),
        ("data.inputs=5",),
        ("steps=abc",),
        ("--frce",),
    ],
)
def test_what_a_resume_refuses_is_refused_in_the_same_words(cli, dry, words):
    assert cli("run", "run_dir=run", *SMALL).code == 0
    said = dry("run", *words, code=2)
    result = cli("resume", "run", *words)
    assert result.code == 2
    assert said.replace("--dry-run, ", "") == result.err.replace("--dry-run, ", "")


def test_a_script_that_starts_or_resumes_is_told_where_to_look(cli, dry):
    words = ("run", "run_dir=run", *SMALL, "resume=true")
    assert "would be resumed" not in cli(*words, "--dry-run").err
    assert cli(*words).code == 0
    said = cli(*words, "--dry-run").err
    assert "run exists and would be resumed: `trainer resume run --dry-run` shows how" in said
    assert dry("run").startswith("run is complete")


def test_edited_files_and_code_of_strangers(cli, dry, own_part, stranger):
    own_part(
        "model",
        "mine",
        "import torch\n\n\nclass Part(torch.nn.Linear):\n    pass\n",
        "in_features: 4\nout_features: 1\n",
    )
    words = ("model=mine", "data.inputs=4", "data.outputs=1", "steps=3")
    assert cli("run", "run_dir=run", *words).code == 0
    stranger()
    assert "--trust-code" in dry("run", "steps=5", code=2)
    assert lines(dry("run", "steps=5", "--trust-code"))["left"].startswith("2 steps")
    file = Path("run/config.yaml")
    file.write_text(file.read_text().replace("seed: 0", "seed: 1"))
    assert "config.yaml: has been edited" in dry("run", "steps=5", "--trust-code", code=2)


def test_a_sweep(cli, dry):
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1,2", *SMALL).code == 0
    said = dry("sweep")
    assert "sweep: 0 jobs would continue, about 0.0 s one after the other; nothing was written\n" in said
    train_and_copy(cli, *SMALL, "seed=1", killed=9)
    for name, state in (("001", "running"), ("002", "waiting")):
        status = json.loads(Path("sweep", name, "status.json").read_text())
        shutil.rmtree(Path("sweep", name, "checkpoints"))
        if state == "running":
            shutil.copytree("killed/checkpoints", Path("sweep", name, "checkpoints"))
            shutil.copy("killed/metrics.jsonl", Path("sweep", name))
        else:
            Path("sweep", name, "metrics.jsonl").unlink()
        Path("sweep", name, "status.json").write_text(json.dumps({**status, "state": state}))
    rows = [line.split() for line in dry("sweep", "--force").splitlines()]
    assert rows[0] == ["job", "seed", "state", "from", "step", "to", "step", "left", "about"]
    assert rows[1][:6] == ["000", "0", "done", "23", "23", "0"]
    assert rows[2][:8] == ["001", "1", "running", "or", "interrupted", "7", "23", "16"]
    assert rows[3][:6] == ["002", "2", "waiting", "0", "23", "23"]
    assert rows[4][:5] == ["sweep:", "2", "jobs", "would", "continue,"]
    said = dry("sweep", "steps=30", "--force")
    assert "steps  23 -> 30" in said
    assert "sweep: 3 jobs would continue" in said
    assert "job 000: steps=5: the run has already taken 23 steps" in dry("sweep", "steps=5", code=2)
    assert "the sweep varies seed" in dry("sweep", "seed=4", code=2)
    assert lines(dry("sweep/000", "steps=30"))["left"].startswith("7 steps")
