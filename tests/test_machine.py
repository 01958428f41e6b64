"""Whatever is done to a run, in whatever order, it goes on from its newest good checkpoint to the same bits."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import tempfile
from functools import cache
from pathlib import Path

import pytest
from conftest import Result
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from instants import begin, on_row

from trainer.checkpoints import manifest
from trainer.cli import main

EVERY, MOST = 3, 40
WORDS = (
    *("model=dynamic", "optim=adam", "batch_size=8", "data.samples=32", "data.inputs=4", "data.outputs=2"),
    *("model.hidden=5", "data.validation=0.25", "eval_every=4", "checkpoint.best=false"),
)


class Killed(BaseException):
    """Ends a process where it stands: nothing in the program catches it."""


def call(*words: str) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    return Result(code, out.getvalue(), err.getvalue())


def interrupted(step: int, how: type[BaseException] | int, *words: str) -> Result | None:
    """Resume the run, and end it after the row of a step: killed, or asked to stop by a signal."""

    def act(row: dict) -> None:
        if row["step"] == step and "loss" in row:
            if isinstance(how, int):
                os.kill(os.getpid(), how)
            else:
                raise how

    with pytest.MonkeyPatch.context() as patch:
        on_row(act, patch)
        try:
            return call("resume", "run", *words)
        except Killed:
            return None


@cache
def straight() -> tuple[dict[int, bytes], list[tuple[int, bytes]]]:
    """The weights after every step of a run that never stopped, and the rows of its metrics by step."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        path = begin("straight", *WORDS, f"steps={MOST}", "checkpoint.every=1", "checkpoint.keep=1000")
        assert call("resume", "straight").code == 0
        weights = {
            step: (path / "checkpoints" / manifest.name_of(step) / "model.safetensors").read_bytes()
            for step in range(1, MOST + 1)
        }
        rows = (path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        return weights, [(int(row.split(b'"step": ')[1].split(b",")[0]), row) for row in rows]


class Machine(RuleBasedStateMachine):
    """A run, and beside it what must be on the disk: the steps of its good and of its damaged checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        straight()
        self.before = Path.cwd()
        self.folder = tempfile.mkdtemp()
        os.chdir(self.folder)
        self.good: list[int] = []
        self.bad: list[int] = []

    @initialize(steps=st.integers(5, 12), keep=st.integers(1, 3))
    def create(self, steps: int, keep: int) -> None:
        self.steps, self.keep, self.done = steps, keep, 0
        begin("run", *WORDS, f"steps={steps}", f"checkpoint.every={EVERY}", f"checkpoint.keep={keep}")

    def teardown(self) -> None:
        os.chdir(self.before)
        shutil.rmtree(self.folder)

    @property
    def refused(self) -> bool:
        """Whether all that was saved is damaged."""
        return bool(self.bad) and not self.good

    def goes_on(self) -> int:
        """Note that a process starts: what is damaged and newer is set aside; return the step it goes on from."""
        newest = max(self.good, default=0)
        self.bad = [step for step in self.bad if step < newest]
        return newest

    def saves(self, step: int) -> None:
        kept = sorted({*self.good, *self.bad, step})[-self.keep :]
        self.good = [one for one in kept if one in {*self.good, step}]
        self.bad = [one for one in self.bad if one in kept and one != step]

    def runs(self, start: int, end: int) -> None:
        """Note that the steps after `start` have been done, before the save of step `end`."""
        for step in range(start + 1, end):
            if step % EVERY == 0:
                self.saves(step)
        self.done = max(self.done, end)

    @precondition(lambda self: not self.refused)
    @rule(data=st.data())
    def train_and_kill(self, data: st.DataObject) -> None:
        start = max(self.good, default=0)
        if start >= self.steps:
            return
        step = data.draw(st.integers(start + 1, self.steps))
        assert interrupted(step, Killed) is None
        self.runs(self.goes_on(), step)

    @precondition(lambda self: not self.refused)
    @rule(data=st.data())
    def train_and_stop(self, data: st.DataObject) -> None:
        start = max(self.good, default=0)
        if start + 1 >= self.steps:
            return
        step = data.draw(st.integers(start + 1, self.steps - 1))
        result = interrupted(step, signal.SIGTERM)
        assert result is not None
        assert result.code == 143, result.err
        self.runs(self.goes_on(), step)
        self.saves(step)

    @precondition(lambda self: not self.refused)
    @rule(more=st.integers(0, 6), keep=st.integers(1, 3))
    def finish(self, more: int, keep: int) -> None:
        if self.steps + more > MOST:
            return
        status = Path("run/status.json")
        if status.exists() and '"state": "done"' in status.read_text() and not more and keep == self.keep:
            assert "is complete" in call("resume", "run").out
            return
        self.steps += more
        self.keep = keep
        result = call("resume", "run", f"steps={self.steps}", f"checkpoint.keep={keep}")
        assert result.code == 0, result.err
        start = self.goes_on()
        assert f"continuing from step {start}\n" in result.err
        self.runs(start, self.steps)
        if self.steps in self.good:
            self.good = self.good[-keep:]
        self.saves(self.steps)
        self.ends_right()

    def ends_right(self) -> None:
        """The weights and the rows are those of a run that never stopped."""
        weights, rows = straight()
        last = Path("run/checkpoints") / manifest.name_of(self.steps)
        assert (last / "model.safetensors").read_bytes() == weights[self.steps]
        assert Path("run/metrics.jsonl").read_bytes() == b"".join(row for step, row in rows if step <= self.steps)

    @precondition(lambda self: self.good)
    @rule(data=st.data())
    def corrupt(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(sorted(self.good)))
        folder = Path("run/checkpoints") / manifest.name_of(step)
        file = data.draw(st.sampled_from(sorted(folder.iterdir())))
        content = bytearray(file.read_bytes())
        position = data.draw(st.integers(0, len(content) - 2))
        content[position] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(bytes(content))
        self.good.remove(step)
        self.bad.append(step)
        Path("run/status.json").unlink(missing_ok=True)  # a run that is done is not looked at again

    @precondition(lambda self: self.refused)
    @rule()
    def start_over(self) -> None:
        result = call("resume", "run")
        assert result.code == 2
        assert "none of its checkpoints is good" in result.err
        result = call("resume", "run", "--force")
        assert result.code == 0, result.err
        self.bad = []
        self.runs(0, self.steps)
        self.saves(self.steps)
        self.ends_right()

    @rule()
    def verify(self) -> None:
        result = call("verify", "run")
        assert result.code == bool(self.bad)
        assert f"{len(self.good)} of {len(self.good) + len(self.bad)} checkpoints are good" in result.out

    @invariant()
    def on_the_disk(self) -> None:
        assert manifest.steps(Path("run/checkpoints")) == sorted({*self.good, *self.bad})


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=12,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.shrink},  # which would take minutes
)


@pytest.mark.slow
def test_many_more():
    from hypothesis.stateful import run_state_machine_as_test

    many = settings(TestMachine.settings, max_examples=300, stateful_step_count=25)
    run_state_machine_as_test(Machine, settings=many)
