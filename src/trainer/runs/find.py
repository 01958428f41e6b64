"""Finds a run by what a user types for it: last, best, four letters, an id or a path. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.errors import UsageError, nearest
from trainer.files.json_fields import Fields
from trainer.runs import newest
from trainer.runs.directory import RunDirectory, every, is_run, is_sweep, jobs, named
from trainer.runs.newest import ID, RUNS
from trainer.runs.ranking import best
from trainer.runs.sweep_file import Sweep


def find(word: str) -> Path:
    """Return the directory of a run or a sweep.

    Raises:
        UsageError: No run or several runs match; the message lists them.
    """
    path = Path(word)
    try:
        if word and is_run(path):
            return path
        is_folder = bool(word) and path.is_dir()
    except OSError as error:
        raise UsageError(f"{word}: {error.strerror}") from error
    if word == "best":
        return best(every()).path
    if word.endswith("/best") and is_sweep(sweep := find(word.removesuffix("/best"))):
        return best([sweep]).path
    head, _, job = word.partition("/")
    same = named(head) if head else []
    if head == "last" and not same:
        same = [last()]
    if len(same) > 1:
        raise UsageError(f"{word}: several runs match: {', '.join(p.name for p in same)}")
    if same:
        found = same[0] / job if job else same[0]
        if is_run(found):
            return found
        raise UsageError(f"{word}: {same[0]} has no job {job}; it has {_jobs(same[0])}")
    if is_folder:
        raise UsageError(f"{word}: {path.absolute()} is not a run: it has no config.yaml")
    names = [p.name for p in sorted(every(), key=_age)]
    letters = [name[-4:] for name in names]
    near = nearest(word, letters + names)
    some = f"; the newest are {', '.join(letters[-5:])}" if letters else f"; there are no runs in {RUNS.absolute()}"
    raise UsageError(f"{word}: no such run{some}" + (f"; did you mean {near}?" if near else ""))


def last() -> Path:
    """Return the run or sweep in ./runs that was created last.

    Raises:
        UsageError: There are none.
    """
    if (path := newest.pointed(RUNS)) is not None and is_run(path):
        return path
    if not (paths := every()):
        raise UsageError("last: there are no runs here yet; start one with `trainer run`")
    return max(paths, key=_age)


def _age(path: Path) -> tuple[str, bool, str]:
    """Return what orders runs and sweeps by age; a copy, whose folder has another name, comes before its original."""
    content: Mapping[str, Any] = {}
    if is_sweep(path):
        with suppress(OSError, ValueError):
            content = Fields(path / "sweep.json", Sweep)
        is_original = ID.fullmatch(path.name) is not None
    else:
        content = RunDirectory(path).status_as_needed()
        is_original = content.get("id") == path.name
    return newest.created(path, content), is_original, path.name


def find_all(word: str) -> list[Path]:
    """Return all runs and sweeps in a directory, or the one run or sweep that a word names.

    Raises:
        UsageError: There is no such directory, run or sweep.
    """
    folder = Path(word)
    if folder.is_dir() and not is_run(folder):
        return [path for path in sorted(folder.iterdir()) if path.is_dir() and is_run(path)]
    return [find(word)]


def _jobs(path: Path) -> str:
    names = [p.name for p in jobs(path)] if is_sweep(path) else []
    return f"{names[0]} to {names[-1]}" if names else "none"
