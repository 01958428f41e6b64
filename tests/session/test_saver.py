"""Checkpoints are written while training goes on, and promise what they would if it waited."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run
from instants import SMALL, begin, on_row, require_same, trained

from trainer.checkpoints import store, tensors
from trainer.files import writing

SECONDS = 60  # that something which must happen is waited for


class Slow:
    """Writes checkpoints so late that training is ahead, and notes what happens when.

    Args:
        patch: Undone by the test.
        until: Given the step of a checkpoint and the last step done, whether it may be written.
    """

    def __init__(self, patch: pytest.MonkeyPatch, until: Callable[[int, int], bool]) -> None:
        self.events: list[tuple[str, int]] = []
        self.done = 0
        write = store.write

        def late(folder: Path, packed: store.PackedCheckpoint) -> Path:
            self.events.append(("begins", packed.step))
            end = time.monotonic() + SECONDS
            while not until(packed.step, self.done) and time.monotonic() < end:
                time.sleep(0.001)
            path = write(folder, packed)
            self.events.append(("ends", packed.step))
            return path

        def note(row: dict) -> None:
            if "loss" in row:
                self.done = row["step"]
                self.events.append(("done", row["step"]))

        patch.setattr(store, "write", late)
        on_row(note, patch)


def test_training_goes_on_while_a_checkpoint_is_written(cli, monkeypatch):
    """And what it does meanwhile, in the same memory, is not in the checkpoint."""
    words = (*SMALL, "model=dynamic", "optim=adam", "checkpoint.keep=99")
    trained(cli, "straight", *words)
    begin("run", *words)
    with monkeypatch.context() as patch:
        slow = Slow(patch, lambda step, done: done >= min(step + 3, 23))
        assert cli("resume", "run").code == 0
    assert slow.events.index(("done", 10)) < slow.events.index(("ends", 7))
    require_same("run", "straight")
    for name in ("step-000000000007", "step-000000000014"):
        for file in Path("straight/checkpoints", name).iterdir():
            assert Path("run/checkpoints", name, file.name).read_bytes() == file.read_bytes()


def test_a_later_save_waits_for_the_earlier_one(cli, monkeypatch):
    begin("run", *SMALL, "checkpoint.best=false")
    with monkeypatch.context() as patch:

        def until(step: int, done: int) -> bool:
            if step == 7 and done >= 14:
                time.sleep(0.2)  # would be enough for step 15
            return step > 7 or done >= 14

        slow = Slow(patch, until)
        assert cli("resume", "run").code == 0
    saves = [event for event in slow.events if event[0] != "done"]
    assert saves == [(what, step) for step in (7, 14, 21, 23) for what in ("begins", "ends")]
    assert slow.events.index(("done", 14)) < slow.events.index(("ends", 7)) < slow.events.index(("done", 15))


@pytest.mark.parametrize(("how", "code", "step"), [("stopped", 143, 9), ("done", 0, 23)])
def test_the_end_of_a_run_waits_for_the_last_save(cli, monkeypatch, how, code, step):
    """Only then does status.json say how it ended."""
    begin("run", *SMALL, "checkpoint.every=100", "checkpoint.best=false")
    with monkeypatch.context() as patch:
        states = []

        def until(saved: int, done: int) -> bool:
            time.sleep(0.1)
            states.append(Run(Path("run")).status["state"])
            return True

        slow = Slow(patch, until)
        if how == "stopped":
            on_row(lambda row: row["step"] == step and os.kill(os.getpid(), signal.SIGTERM), patch)
        assert cli("resume", "run").code == code
    assert slow.events[-1] == ("ends", step)
    assert states == ["running"]
    assert Run(Path("run")).status["state"] == how


def test_a_save_that_fails_ends_the_run_soon(cli, monkeypatch):
    """Not only when the next one is due; and what was saved before stays."""
    words = [word for word in SMALL if not word.startswith("steps=")]
    begin("run", *words, "steps=100000", "checkpoint.every=7", "eval_every=null", "checkpoint.seconds=null")
    write = writing.write

    def full(path: Path, content: bytes) -> None:
        if path.parent.name == ".staged-step-000000000014":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write", full)
        # The next one comes in 100,000 steps.
        patch.setattr("trainer.training.loop.due", lambda step, every: step in (7, 14))
        result = cli("resume", "run")
    assert result.code == 1
    line = next(line for line in result.err.splitlines() if line.startswith("error: "))
    assert line.startswith("error: No space left on device: run/checkpoints/.staged-step-000000000014/")
    assert line.endswith("; the checkpoint of step 7 is intact")
    run = Run(Path("run"))
    assert (run.status["state"], [path.name for path in run.checkpoints]) == ("failed", ["step-000000000007"])
    assert 14 <= run.status["step"] < 100_000


def test_a_save_that_failed_before_something_else_did_is_in_the_log(cli, monkeypatch):
    begin("run", *SMALL)
    failed = threading.Event()

    def full(folder: Path, packed: store.PackedCheckpoint) -> Path:
        failed.wait(SECONDS)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    def spoil(row: dict) -> None:
        if row["step"] == 8:
            failed.set()
            raise ValueError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", full)
        on_row(spoil, patch)
        result = cli("resume", "run")
    assert result.code == 1
    assert "out of luck" in result.err
    assert "the last save failed as well: [Errno 28] No space left" in Path("run/trainer.log").read_text()


def test_rows_are_on_the_disk_before_the_checkpoint_that_counts_them(cli, monkeypatch):
    """And all of a checkpoint is before it can be seen."""
    begin("run", *SMALL, "checkpoint.every=3")
    synced: dict[str, int] = {}
    seen = []
    with monkeypatch.context() as patch:
        fsync, rename = os.fsync, os.rename

        def note(descriptor: int) -> None:
            size = os.fstat(descriptor).st_size
            fsync(descriptor)
            synced[os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"))] = size

        def look(source: Path, target: Path) -> None:
            if ".staged-" in str(source):
                for file in Path(source).iterdir():
                    assert synced[str(file)] == file.stat().st_size > 0
                assert str(source) in synced
                counted = json.loads((Path(source) / "state.json").read_text())["training"]["metrics_bytes"]
                seen.append(0 < counted <= synced["run/metrics.jsonl"])
            rename(source, target)

        patch.setattr(os, "fsync", note)
        patch.setattr(os, "rename", look)
        assert cli("resume", "run").code == 0
    assert len(seen) >= 8
    assert all(seen)


def test_the_best_that_waits_is_neither_changed_nor_held_more_than_twice(cli, monkeypatch):
    """Every evaluation is better than the last, saves are slow, and there are two copies of the state at most."""
    words = [word for word in SMALL if not word.startswith(("eval_every", "steps"))]
    words += ["eval_every=1", "steps=40", "optim.lr=0.0001", "checkpoint.keep=99", "checkpoint.every=6"]
    straight = trained(cli, "straight", *words)
    begin("run", *words)
    made = []
    with monkeypatch.context() as patch:
        slow = Slow(patch, lambda step, done: True)
        write, image = writing.write, tensors.Image.__init__

        def late(path: Path, content: bytes) -> None:
            time.sleep(0.003)
            write(path, content)

        def count(self: tensors.Image, *args: object) -> None:
            made.append(self)
            image(self, *args)

        patch.setattr(writing, "write", late)
        patch.setattr(tensors.Image, "__init__", count)
        assert cli("resume", "run").code == 0
    assert len(slow.events) > 40
    assert len(made) <= 4  # two files each
    assert Run(Path("run")).bits() == straight.bits()
    for path in straight.checkpoints:
        for file in path.iterdir():
            assert Path("run/checkpoints", path.name, file.name).read_bytes() == file.read_bytes()
