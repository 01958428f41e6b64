"""`last` is the run or sweep that was created last, whatever the names say."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainer.runs import directory, newest
from trainer.runs.directory import RunDirectory
from trainer.terminal import completion_paths

RUNS = Path("runs")
SHORT = ("steps=1", "model.hidden=2", "data.samples=4", "data.inputs=2", "data.outputs=1")


@pytest.fixture
def create(cli) -> Callable[..., Path]:
    """Train a short run, in ./runs/NAME or under an id, and return its directory."""

    def call(name: str | None = None, *words: str) -> Path:
        before = {*RUNS.glob("[!.]*")}
        result = cli("run", *SHORT, *([f"run_dir=runs/{name}"] if name else []), *words)
        assert result.code == 0, result.err
        return ({*RUNS.glob("[!.]*")} - before).pop()

    return call


@pytest.fixture
def last(cli) -> Callable[[], Path]:
    """Ask the command which run `last` is."""

    def call() -> Path:
        result = cli("show", "last", "--json")
        assert result.code == 0, result.err
        return Path(json.loads(result.out)["path"])

    return call


@pytest.fixture
def clock_in() -> Iterator[Callable[[str], None]]:
    """Set the time zone of this process."""

    def call(zone: str) -> None:
        os.environ["TZ"] = zone
        time.tzset()

    before = os.environ.get("TZ")
    yield call
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


def forget(path: Path, **fields: str) -> None:
    """Make a run or a sweep one of an older version, which did not record the time; also set other fields."""
    file = path / ("sweep.json" if (path / "sweep.json").exists() else "status.json")
    content = {**json.loads(file.read_text()), **fields}
    del content["created"]
    content.pop("sha256", None)
    file.write_text(json.dumps(content))


def without_pointer(last: Callable[[], Path]) -> Path:
    """Ask which run `last` is where all are read."""
    kept = (RUNS / ".newest").read_bytes()
    (RUNS / ".newest").unlink()
    found = last()
    (RUNS / ".newest").write_bytes(kept)
    return found


def test_a_name_makes_no_run_newer(create, last):
    create("zebra")
    made = create("baseline")
    assert last() == without_pointer(last) == made
    made = create()
    assert last() == without_pointer(last) == made
    assert (RUNS / ".newest").read_text() == f"{made.name}\n"


def test_a_copied_or_renamed_run_is_not_newer(create, last):
    old, new = create("old"), create("new")
    shutil.copytree(old, RUNS / "zcopy")
    shutil.copytree(new, RUNS / "zcopy2")
    assert last() == without_pointer(last) == new
    old.rename(RUNS / "zz")
    assert last() == without_pointer(last) == new
    new.rename(RUNS / "aa")
    shutil.rmtree(RUNS / "zcopy2")
    assert last() == RUNS / "aa"


def test_a_copied_sweep_is_not_newer(create, last):
    path = create(None, "-m", "seed=0,1")
    shutil.copytree(path, RUNS / f"{path.name}-copy")
    assert last() == without_pointer(last) == path


@pytest.mark.parametrize("zone", ["UTC+12", "UTC-12"])
def test_neither_a_clock_set_back_nor_another_time_zone_misleads(create, last, monkeypatch, clock_in, zone):
    first = create()
    clock_in(zone)
    second = create()
    assert last() == without_pointer(last) == second != first
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    third = create("third")
    assert json.loads((third / "status.json").read_text())["created"] == "2001-09-09T01:46:40.000000000Z"
    assert last() == third


def test_the_time_is_that_of_the_creation_and_stays(create, cli):
    before = time.time_ns()
    path = create("here")
    created = json.loads((path / "status.json").read_text())["created"]
    assert newest.stamp(before) < created < newest.stamp()
    assert cli("resume", "last", "steps=2").code == 0
    shutil.copytree(path, RUNS / "copy")
    assert cli("resume", "runs/copy", "steps=3").code == 0
    assert json.loads((RUNS / "copy/status.json").read_text())["created"] == created


def test_last_is_a_sweep_and_not_a_job_of_it(create, last, cli):
    create("one")
    path = create("a-sweep", "-m", "seed=0,1")
    assert last() == without_pointer(last) == path
    assert last() / "001" == Path(json.loads(cli("show", "last/001", "--json").out)["path"])
    assert cli("resume", "last/001", "steps=2").code == 0
    assert last() == path
    assert "created" in json.loads((path / "sweep.json").read_text())


def test_tab_knows_the_jobs_of_the_last(create):
    create("a-sweep", "-m", "seed=0,1")
    assert {"last/000", "last/001"} <= {*completion_paths.runs("last/")}
    create("z")
    assert completion_paths.runs("last/") == {}
    (RUNS / ".newest").unlink()
    (RUNS / ".newest").symlink_to("a-sweep/lock")
    assert completion_paths.runs("last/") == {}


def test_of_runs_of_older_versions_the_time_of_the_id_counts(create, last, clock_in):
    old, renamed, sweep = create("20261121-231628-kfrw"), create("z"), create("20261121-231630-bcdf", "-m", "seed=0,1")
    forget(old)
    forget(renamed, id="20261121-231629-zzzz")
    forget(sweep)
    assert without_pointer(last) == sweep
    shutil.rmtree(sweep)
    assert last() == renamed
    shutil.rmtree(renamed)
    new = create("a-new-one")
    assert last() == without_pointer(last) == new
    unnamed = create("unnamed")
    forget(unnamed, segments=[{"started": "2026-11-21T22:16:29+0000"}])
    clock_in("UTC-1")  # where the id's 23:16:28 is 22:16:28 in UTC
    shutil.rmtree(new)
    assert without_pointer(last) == unnamed


def test_last_reads_one_file(create, last, monkeypatch):
    for name in ("x", "y", "z"):
        create(name)
    made, read, opened = create("a"), [], RunDirectory.status_as_needed

    def status(self: RunDirectory):
        read.append(self.path)
        return opened(self)

    monkeypatch.setattr(RunDirectory, "status_as_needed", status)
    monkeypatch.setattr(directory, "every", lambda: pytest.fail("all runs were read"))
    assert last() == made
    assert {*read} == {made}


def hostile(kind: str, run: str) -> None:
    """Replace the pointer by one that leads to an older run in a way that `run` never writes."""
    pointer = RUNS / ".newest"
    pointer.unlink()
    shutil.copytree(RUNS / run, "elsewhere")
    match kind:
        case "a link":
            Path("pointer").write_text(run)
            pointer.symlink_to("../pointer")
        case "huge":
            with pointer.open("wb") as file:
                file.write(run.encode() + b"\n" * 1000)
        case "a pipe":
            os.mkfifo(pointer)
        case "a folder":
            pointer.mkdir()
        case "a run elsewhere":
            pointer.write_text("../elsewhere\n")
        case "a path":
            pointer.write_text(f"{(RUNS / run).absolute()}\n")
        case "a linked run":
            (RUNS / "link").symlink_to("../elsewhere")
            pointer.write_text("link\n")
        case _:
            pointer.write_bytes(
                {"gone": b"gone\n", "empty": b"", "dots": b"..\n", "nul": b"a\0b", "bytes": b"\xff\n"}[kind]
            )


KINDS = ("a link", "huge", "a pipe", "a folder", "a run elsewhere", "a path", "a linked run")


@pytest.mark.parametrize("kind", [*KINDS, "gone", "empty", "dots", "nul", "bytes"])
def test_where_the_pointer_is_no_good_all_are_read(create, last, kind):
    create("z-first")
    create("b-second")
    hostile(kind, "z-first")
    assert last() == RUNS / "b-second"
    made = create("a-third")
    assert last() == made  # it puts the pointer right, unless that is a folder
    assert kind == "a folder" or (RUNS / ".newest").read_text() == "a-third\n"
    assert kind != "a link" or Path("pointer").read_text() == "z-first"


def test_a_run_created_from_elsewhere_is_the_last(create, last, cli, workdir, monkeypatch):
    create("z")
    (workdir / "other").mkdir()
    monkeypatch.chdir(workdir / "other")
    assert cli("run", *SHORT, f"run_dir={workdir}/runs/by-path").code == 0
    monkeypatch.chdir(workdir / "runs")
    assert cli("run", *SHORT, "run_dir=by-name").code == 0
    monkeypatch.chdir(workdir)
    assert last() == RUNS / "by-name"
    assert cli("run", *SHORT, "run_dir=results/first").code == 0
    assert last() == RUNS / "by-name"
    assert not Path("results/.newest").exists()


def test_a_folder_of_runs_may_be_a_link(create, last, workdir, cli):
    (workdir / "disk").mkdir()
    RUNS.symlink_to("disk")
    create("z")
    assert cli("run", *SHORT, f"run_dir={workdir}/disk/y").code == 0
    assert last() == RUNS / "y"


def test_a_run_killed_while_it_is_created_is_not_the_last(create, last, fork, monkeypatch):
    made = create("z")

    def dying() -> None:
        monkeypatch.setattr(RunDirectory, "write_config", lambda self, config: os.kill(os.getpid(), 9))

    assert fork("run", *SHORT, "run_dir=runs/a", prepare=dying).wait() == -9
    assert (RUNS / ".newest").read_text() == "a\n"
    assert last() == made


def test_lists_are_ordered_by_time_and_not_by_name(create, cli):
    create("z", "loss=mse")
    create("a")
    listed = json.loads(cli("runs", "--json").out)
    assert [Path(one["path"]).name for one in listed] == ["a", "z"]
    assert "the newest are z, a" in cli("show", "nonsense").err
