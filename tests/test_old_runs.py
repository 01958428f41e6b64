"""Runs that earlier versions have written are opened as ever; tests/old_runs/README.md says what lies there."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

HERE = Path(__file__).parent / "old_runs"
EXPECTED = {
    folder.name: json.loads((folder / "expected.json").read_text()) for folder in HERE.iterdir() if folder.is_dir()
}
FOLDERS = sorted(EXPECTED)
CASES = [(folder, name) for folder in FOLDERS for name in EXPECTED[folder]]
RUNS = [(folder, name) for folder, name in CASES if "jobs" not in EXPECTED[folder][name]]
SHOWN = ("state", "step", "steps", "metrics", "best", "parameters", "rows", "data", "config", "choices", "swept")


@pytest.fixture
def opened(workdir: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Copy an old folder here, as its configurations name data from there; return what is expected of its runs."""
    names = set()

    def call(folder: str) -> dict[str, Any]:
        shutil.copytree(HERE / folder / "files", workdir, dirs_exist_ok=True)
        names.update(path.stem for path in workdir.glob("**/code/*.py"))
        return EXPECTED[folder]

    yield call
    for name in names:
        sys.modules.pop(name, None)


def holds(now: Any, then: Any) -> bool:
    """Whether all that was there is there; a later version may add keys."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(key in now and holds(now[key], value) for key, value in then.items())
    if isinstance(then, list):
        return isinstance(now, list) and len(now) == len(then) and all(map(holds, now, then))
    return type(now) is type(then) and now == then


def shown(path: Path) -> dict[str, Any]:
    """Return what a run's status.json says of it that commands show."""
    return {key: value for key, value in Run(path).status.items() if key in SHOWN}


def require_whole(cli: Callable[..., Any], name: str, flags: list[str]) -> None:
    """Require that a run or a sweep is verified, and comes out the same when it is repeated."""
    result = cli("verify", name)
    assert result.code == 0, result.out + result.err
    result = cli("reproduce", name, "--json", *flags)
    assert result.code == 0, result.out + result.err
    found = json.loads(result.out)
    assert all(one["identical"] and one["checkpoints"] for one in (found if isinstance(found, list) else [found]))


def require_ended(path: Path, expected: dict[str, Any]) -> None:
    """Require the final weights and the metrics that the version gave that wrote the run."""
    run = Run(path)
    assert run.status["state"] == "done"
    assert run.checkpoints[-1].name.endswith(f"{expected['step']:012d}")
    assert {name: weight.tolist() for name, weight in run.weights().items()} == expected["weights"]
    assert holds(run.rows, expected["rows"])


def test_there_is_one_of_each_kind():
    assert {"table", "own", "sweep"} <= {name for _, name in CASES}


@pytest.mark.parametrize("folder", FOLDERS)
def test_old_runs_are_listed(cli, opened, folder):
    opened(folder)
    result = cli("runs", ".", "--json")
    assert result.code == 0, result.err
    listed = {one["path"]: one for one in json.loads(result.out)}
    stored = {str(path.parent): shown(path.parent) for path in Path().glob("**/status.json")}
    assert stored
    assert holds(listed, stored)
    result = cli("runs", ".")
    assert result.code == 0, result.err
    assert all(name in result.out for name in stored)


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_an_old_run_is_shown(cli, opened, folder, name):
    jobs = opened(folder)[name].get("jobs")
    result = cli("show", name, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert holds(found, shown(Path(name)) if jobs is None else {"jobs": [shown(Path(name, job)) for job in jobs]})
    result = cli("show", name)
    assert result.code == 0, result.err
    assert name in result.out


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_an_old_run_is_whole_and_reproduced(cli, opened, folder, name):
    require_whole(cli, name, opened(folder)[name]["flags"])


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_an_old_run_goes_on_to_the_same_bits(cli, opened, folder, name):
    expected = opened(folder)[name]
    result = cli("resume", name, *expected["resume"], *expected["flags"])
    assert result.code == 0, result.err
    for job, ended in expected.get("jobs", {"": expected.get("ended")}).items():
        require_ended(Path(name, job), ended)
    require_whole(cli, name, expected["flags"])


@pytest.mark.parametrize(("folder", "name"), RUNS)
def test_an_old_run_is_evaluated(cli, opened, folder, name):
    expected = opened(folder)[name]
    result = cli("eval", name, "--json", *expected["flags"])
    assert result.code == 0, result.err
    assert holds(json.loads(result.out), expected["eval"])


@pytest.mark.parametrize(("folder", "name"), RUNS)
def test_an_old_run_predicts(cli, opened, folder, name):
    expected = opened(folder)[name]
    rows = [f"--row={row}" for row in expected["predict"]]
    result = cli("predict", name, *rows, "--json", *expected["flags"])
    assert result.code == 0, result.err
    assert holds(json.loads(result.out), [*expected["predict"].values()])


@pytest.mark.parametrize(("folder", "name"), [case for case in RUNS if "input" in EXPECTED[case[0]][case[1]]])
def test_an_old_run_predicts_from_a_file(cli, opened, folder, name):
    expected = opened(folder)[name]
    result = cli("predict", name, "--input", expected["input"], "--output", "out.csv", *expected["flags"])
    assert result.code == 0, result.err
    with open("out.csv") as file:
        answers = list(csv.DictReader(file))
    assert [
        {key: float(row[key]) for key in answer}
        for row, answer in zip(answers, expected["predict"].values(), strict=True)
    ] == [*expected["predict"].values()]
