"""Signals: the step is finished, a checkpoint saved, the command to go on printed, and the exit code tells."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import Run
from faults import default_handlers
from instants import SMALL, on_row, require_same, send_at, train_and_copy

from trainer.checkpoints import store
from trainer.session import train
from trainer.session.stopping import ASKED, Stopping
from trainer.training import loop

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 138, "SIGUSR2": 140, "SIGHUP": 129, "SIGQUIT": 131}


def sending(prepare):
    def both() -> None:
        default_handlers()
        prepare()

    return both


def require_stopped(path: str, child, code: int, step: int, or_later: bool = False) -> None:
    assert child.wait() == code, child.text
    run = Run(Path(path))
    reached = run.status["step"]
    assert step <= reached if or_later else step == reached
    assert run.checkpoints[-1].name == f"step-{reached:012d}"
    assert run.status["state"] == "stopped"
    assert f"trainer resume {path}" in child.text
    assert "Traceback" not in child.text


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_a_signal_stops_after_the_step_and_saves(cli, fork, name, code):
    train_and_copy(cli, "model=dynamic", *SMALL, run=1)
    number = getattr(signal, name)
    assert code == 128 + number
    child = fork("resume", "run", prepare=sending(send_at(9, number)))
    require_stopped("run", child, code, 9)
    assert f"({'Ctrl-C' if name == 'SIGINT' else name})" in child.text
    assert cli("resume", "run").code == 0
    require_same("run", "straight")


def during(owner, name, step=None):
    """Send SIGTERM amid the first call of a function, or the first one after a step."""

    def prepare() -> None:
        original = getattr(owner, name)
        steps = []
        sent = []

        def call(*args, **kwargs):
            if not sent and (step is None or step in steps):
                sent.append(os.kill(os.getpid(), signal.SIGTERM))
            return original(*args, **kwargs)

        setattr(owner, name, call)
        on_row(lambda row: steps.append(row["step"]))

    return prepare


PHASES = {
    "before the first step": (during(train, "StatusWriter"), 0),
    "while it is going back to a checkpoint": (during(store, "newest"), 0),
    "during an evaluation": (during(loop, "evaluate", 4), 4),
    "amid a step": (during(loop, "has_non_finite", 11), 12),
    "while a checkpoint is written": (during(store, "write"), 7),
    "while a file is synced": (during(os, "fsync", 13), 14),
    "while old checkpoints go": (during(shutil, "rmtree", 13), 14),
}
IN_A_THREAD = list(PHASES)[-3:]  # training goes on until the signal is seen


@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_any_phase(cli, fork, phase):
    prepare, step = PHASES[phase]
    train_and_copy(cli, "model=dynamic", *SMALL, run=1)
    child = fork("resume", "run", prepare=sending(prepare))
    require_stopped("run", child, 143, step, or_later=phase in IN_A_THREAD)
    assert cli("resume", "run").code == 0
    require_same("run", "straight")


def test_a_signal_in_the_last_step_changes_nothing(cli, fork):
    train_and_copy(cli, *SMALL, run=1)
    child = fork("resume", "run", prepare=sending(send_at(23, signal.SIGTERM)))
    assert child.wait() == 0
    assert Run(Path("run")).status["state"] == "done"
    require_same("run", "straight")


@pytest.mark.parametrize("numbers", [(2, 2), (3, 3), (2, 3), (3, 2)])
def test_a_second_interrupt_leaves_at_once(cli, fork, numbers):
    """By Ctrl-C or Ctrl-backslash, in any order."""
    train_and_copy(cli, *SMALL, run=1)

    def both() -> None:
        for number in numbers:
            send_at(9, number)()

    child = fork("resume", "run", prepare=sending(both))
    assert child.wait() == 128 + numbers[1]
    assert "exited at once" in child.text
    run = Run(Path("run"))
    assert run.checkpoints[-1].name == "step-000000000007"
    assert run.status["state"] == "running"
    assert cli("resume", "run").code == 0
    require_same("run", "straight")


def test_an_interrupt_after_another_signal_is_not_the_second(cli, fork):
    train_and_copy(cli, *SMALL, run=1)

    def both() -> None:
        send_at(9, signal.SIGTERM)()
        send_at(9, signal.SIGINT)()

    child = fork("resume", "run", prepare=sending(both))
    require_stopped("run", child, 130, 9)


def test_a_hangup_does_not_reach_a_run_under_nohup(cli, fork):
    train_and_copy(cli, *SMALL, run=1)

    def both() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        send_at(9, signal.SIGHUP)()

    child = fork("resume", "run", prepare=both)
    assert child.wait() == 0, child.text
    require_same("run", "straight")


def as_in_the_background() -> None:
    """Ignore what a script's shell makes a command ignore that it starts with `&`, and what nohup does."""
    default_handlers()
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def test_an_interrupt_stops_a_run_in_the_background(cli, fork):
    train_and_copy(cli, *SMALL, run=1)

    def both() -> None:
        as_in_the_background()
        send_at(5, signal.SIGHUP)()
        send_at(9, signal.SIGINT)()

    child = fork("resume", "run", prepare=both)
    require_stopped("run", child, 130, 9)
    assert cli("resume", "run").code == 0
    require_same("run", "straight")


BACKGROUND = """
trap '' HUP  # as nohup does
"$1" -m trainer run run_dir=run steps=1000000 log_every=100 data.inputs=12 &
until [[ -s run/metrics.jsonl ]] || ! kill -0 $!; do sleep 0.05; done
kill -HUP $!
kill -INT $!
wait $!
"""


def test_a_shell_interrupts_a_run_that_it_started_in_the_background():
    done = subprocess.run(["bash", "-c", BACKGROUND, "bash", sys.executable], capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert re.search(r"^stopped  at step [\d,]+ of [\d,]+ \(Ctrl-C\)", done.stdout, re.M)
    run = Run(Path("run"))
    assert run.status["state"] == "stopped"
    assert run.checkpoints[-1].name == f"step-{run.status['step']:012d}"


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in ASKED}
    default_handlers()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_handlers_are_put_back(handlers):
    before = {number: signal.getsignal(number) for number in ASKED}
    with Stopping() as stopping:
        assert not stopping()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stopping()
        assert stopping.signal == signal.SIGUSR1
    assert {number: signal.getsignal(number) for number in ASKED} == before


def test_one_within_another_hands_its_signals_on(handlers):
    told = []
    with Stopping(on_signal=lambda: told.append("outer")) as outer:
        with Stopping(on_signal=lambda: told.append("inner")) as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        assert told == ["inner", "outer"]
        assert inner.signal == outer.signal == signal.SIGTERM
        with Stopping() as later:
            assert later()


def test_outside_the_main_thread_signals_are_left_alone(handlers):
    before = {number: signal.getsignal(number) for number in ASKED}

    def work() -> None:
        with Stopping() as stopping:
            seen.append({number: signal.getsignal(number) for number in ASKED})
            assert not stopping()

    seen: list[dict[int, object]] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
