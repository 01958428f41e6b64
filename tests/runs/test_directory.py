"""A run directory: created once, by one process, never over something else, and written by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import time
from pathlib import Path

import pytest

from trainer.errors import UsageError
from trainer.launch.new_path import new_path
from trainer.runs.directory import Contents, RunDirectory


def created(name: str = "run") -> RunDirectory:
    run = RunDirectory(Path(name))
    run.create(Contents({"seed": 0}, {}))
    return run


def test_an_id_is_date_time_and_four_letters_of_its_own(monkeypatch):
    path = new_path(None)
    assert re.fullmatch(r"runs/\d{8}-\d{6}-[bcdfghjklmnpqrstvwxz]{4}", str(path))
    letters = iter(["bcdf", "bcdf", "ghjk"])
    path.with_name("20200101-000000-bcdf").mkdir(parents=True)
    monkeypatch.setattr(random.SystemRandom, "choices", lambda self, of, k: next(letters))
    assert new_path(None).name.endswith("-ghjk")


def test_a_directory_that_holds_something_is_refused(tmp_path):
    (tmp_path / "work").mkdir()
    assert new_path("work") == Path("work")
    (tmp_path / "work/notes.txt").write_text("mine")
    for name, reason in (("work", "exists and is not empty"), ("work/notes.txt", "is a file"), ("a\nb", "control")):
        with pytest.raises(UsageError, match=reason):
            new_path(name)
    created("run")
    with pytest.raises(UsageError, match="trainer resume run, or resume=true"):
        new_path("run")


@pytest.mark.parametrize(
    ("names", "fresh"),
    [
        (["status.json", "checkpoints/"], True),
        (["status.json", "lock", ".config.yaml.123", "checkpoints/"], True),
        (["status.json", "checkpoints/step-000000000001/"], False),  # someone deleted its config.yaml
        (["metrics.jsonl"], False),
        (["code/", "lock", "status.json"], True),
        (["code/"], False),  # somebody's own
    ],
)
def test_what_an_interrupted_creation_left_is_no_obstacle(tmp_path, names, fresh):
    for name in names:
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(parents=True) if name.endswith("/") else path.write_text("")
    if fresh:
        assert new_path("run") == Path("run")
        return
    with pytest.raises(UsageError, match="not empty"):
        new_path("run")


def test_of_two_that_create_it_at_once_one_is_refused():
    created()
    with pytest.raises(UsageError, match="another process has just created it"):
        created()


def test_where_nothing_can_be_created_the_reason_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="run_dir=file/run: can't be created: "):
        created("file/run")

    def full(path, mode=0o777):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(UsageError, match="run_dir=run: can't be created: No space left on device"):
        created()


def test_the_lock_keeps_others_out_and_names_its_holder():
    run = created()
    assert not run.is_held()
    with run.lock("trainer resume run"):
        assert run.is_held()
        expected = rf"run is in use by process {os.getpid()} on \S+: trainer resume run"
        with pytest.raises(UsageError, match=expected), run.lock("trainer resume run steps=9"):
            pass
    assert not run.is_held()
    with run.lock("again"):
        assert (run.path / "lock").read_text().splitlines()[0].endswith(": again")


def test_looking_whether_it_is_held_keeps_nobody_out(monkeypatch):
    """Whoever looks holds the lock for an instant; a writer that comes just then waits for that."""
    run = created()
    looking = os.open(run.path / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda seconds: fcntl.flock(looking, fcntl.LOCK_UN))
    with run.lock("trainer resume run"):
        assert run.is_held()
    os.close(looking)


def test_a_file_system_without_locks_is_no_reason_not_to_train(monkeypatch):
    def none(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with created().lock("trainer run"):
        pass


def test_a_lock_that_cannot_be_written_is_refused_in_words(monkeypatch):
    run = created()

    def read_only(*args):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(UsageError, match="run can't be written to: Read-only file system"), run.lock("trainer run"):
        pass


def test_tidying_removes_leftovers_only():
    run = created()
    for name in (".status.json.123", ".config.yaml.9", "notes.txt"):
        (run.path / name).write_text("")
    run.checkpoints.rmdir()
    run.tidy()
    assert sorted(os.listdir(run.path)) == ["checkpoints", "config.yaml", "lock", "notes.txt", "status.json"]


@pytest.mark.parametrize("text", [None, "", "nonsense", "[]", '"x"', "\ufeff"])
def test_a_status_that_cannot_be_read_is_empty(text):
    run = created()
    file = run.path / "status.json"
    file.unlink() if text is None else file.write_text(text)
    assert run.read_status() == {}
