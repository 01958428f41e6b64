"""Where flock does not work, host, pid and start time of the holder tell whether a run is being trained."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run, wait_until

from trainer.runs.directory import Contents, InUse, RunDirectory

LONG = ("run_dir=run", "steps=1e9", "log_every=100", "data.inputs=4", "model.hidden=3")
SHORT = ("run_dir=run", "steps=2", "data.inputs=4", "model.hidden=3")
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
NAMESPACE = os.readlink("/proc/self/ns/pid")
HOST = socket.gethostname()
FLOCK = fcntl.flock


def no_flock() -> None:
    def none(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = none


@pytest.fixture(autouse=True)
def _no_flock(monkeypatch):
    monkeypatch.setattr(fcntl, "flock", FLOCK)  # put back at the end
    no_flock()


@pytest.fixture
def state(cli) -> Callable[[], str]:
    return lambda: json.loads(cli("show", "run", "--json").out)["state"]


def test_a_killed_run_was_interrupted(cli, fork, state):
    child = fork("run", *LONG, prepare=no_flock)
    wait_until(lambda: Path("run/metrics.jsonl").exists() and Run(Path("run")).rows)
    assert state() == "running"
    result = cli("resume", "run")
    assert result.code == 2
    assert f"run is in use by process {child.pid} on {HOST}: trainer run" in result.err
    assert "started" not in result.err
    child.kill(signal.SIGKILL)
    child.wait()
    assert Run(Path("run")).status["state"] == "running"
    assert state() == "interrupted"
    saved = max((int(path.name.removeprefix("step-")) for path in Run(Path("run")).checkpoints), default=0)
    assert cli("resume", "run", f"steps={saved + 1}").code == 0
    assert state() == "done"


def a_run(cli, lock: str) -> None:
    """A run that says it is running, and whose lock has this text."""
    assert cli("run", *SHORT).code == 0
    status = Run(Path("run")).status
    Path("run/status.json").write_text(json.dumps({**status, "state": "running"}))
    Path("run/lock").write_text(lock)


def start_of(pid: int) -> int:
    """The 22nd field of /proc/PID/stat; no name of a test process has spaces after its bracket."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[19])


PARENT = os.getppid()
LOCKS = {
    "alive": (f"pid {PARENT} started {start_of(PARENT)} on {HOST} {BOOT} {NAMESPACE}", "running"),
    "a later process has its pid": (f"pid {PARENT} started 1 on {HOST} {BOOT} {NAMESPACE}", "interrupted"),
    "gone": (f"pid 999999999 started 1 on {HOST} {BOOT} {NAMESPACE}", "interrupted"),
    "the machine was restarted": (f"pid {PARENT} started {start_of(PARENT)} on {HOST} 0-0 {NAMESPACE}", "interrupted"),
    "on another machine": ("pid 999999999 started 1 on elsewhere 0-0 pid:[1]", "running"),
    "in another container": (f"pid 999999999 started 1 on {HOST} {BOOT} pid:[1]", "running"),
    "no start time": (f"pid 999999999 started unknown on {HOST}", "interrupted"),
    "no start time, alive": (f"pid {PARENT} started unknown on {HOST}", "running"),
    "released": ("released", "interrupted"),
}


@pytest.mark.parametrize("kind", LOCKS)
def test_who_holds_it(cli, state, kind):
    line, expected = LOCKS[kind]
    a_run(cli, f"process 1 on {HOST}: trainer run\n{line}\n")
    assert state() == expected
    is_free = expected == "interrupted" or kind in ("on another machine", "in another container")
    assert cli("resume", "run", "steps=3").code == (0 if is_free else 2)


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        (f"process 999999999 on {HOST}: trainer run steps=9\n", "interrupted"),
        (f"process {PARENT} on {HOST}: trainer run\n", "running"),
        ("process 999999999 on elsewhere: trainer run\n", "running"),
        ("", "interrupted"),
        ("\x00\xff" * 5000, "interrupted"),
        (f"process {10**30} on {HOST}: trainer run\n", "interrupted"),
    ],
)
def test_a_lock_of_an_older_version_or_of_a_stranger(cli, state, lock, expected):
    a_run(cli, lock)
    assert state() == expected


def test_no_second_writer_comes_in_this_process_either(workdir):
    run = RunDirectory(Path("run"))
    run.create(Contents({}, {"state": "waiting"}))
    with run.lock("trainer run name='two\nlines' " + "x" * 5000):
        assert run.is_held()
        with pytest.raises(InUse, match=rf"^run is in use by process {os.getpid()} on \S+: trainer run name='two\n"):
            run.require_free()
    assert not run.is_held()
    with run.lock("again"):
        pass


def test_where_flock_works_it_decides(cli, state, monkeypatch):
    a_run(cli, f"process 1 on {HOST}: trainer run\n{LOCKS['alive'][0]}\n")
    monkeypatch.setattr(fcntl, "flock", FLOCK)
    assert state() == "interrupted"
    assert cli("resume", "run", "steps=3").code == 0
