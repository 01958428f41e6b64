"""Finds runs by what people type: a path, an id, its four letters, a job of a sweep, last. Never imports torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from trainer.errors import UsageError, nearest
from trainer.rundir import RUNS, RunDir

_JOB = re.compile(r"[0-9]{3,9}")


def find(word: str) -> Path:
    """Return the directory of a run or a sweep.

    Raises:
        UsageError: There is none, or several fit; the message lists them.
    """
    path = Path(word)
    try:
        if word and _is_run(path):
            return path
        is_folder = bool(word) and path.is_dir()
    except OSError as error:
        raise UsageError(f"{word}: {error.strerror}") from error
    head, _, job = word.partition("/")
    named = [p for p in every() if p.name == head or p.name[-4:] == head]
    if head == "last" and not named:
        named = every()[-1:]
        if not named:
            raise UsageError("last: there are no runs here yet; start one with `trainer run`")
    if len(named) > 1:
        raise UsageError(f"{word}: several runs fit: {', '.join(p.name for p in named)}")
    if named:
        found = named[0] / job if job else named[0]
        if _is_run(found):
            return found
        raise UsageError(f"{word}: {named[0]} has no job {job}; it has {_jobs(named[0])}")
    if is_folder:
        raise UsageError(f"{word}: {path.absolute()} is not a run: it has no config.yaml")
    letters = [p.name[-4:] for p in every()]
    near = nearest(word, letters + [p.name for p in every()])
    some = f"; the newest are {', '.join(letters[-5:])}" if letters else f"; there are no runs in {RUNS.absolute()}"
    raise UsageError(f"{word}: no such run{some}" + (f"; did you mean {near}?" if near else ""))


def is_sweep(path: Path) -> bool:
    """Say whether a directory holds a sweep."""
    return (path / "sweep.json").is_file()


def jobs(path: Path) -> list[Path]:
    """Return the job directories of a sweep, in their order."""
    folders = (p for p in path.iterdir() if _JOB.fullmatch(p.name) and p.is_dir() and not p.is_symlink())
    return sorted(folders, key=lambda p: int(p.name))


def _is_run(path: Path) -> bool:
    return RunDir(path).exists or is_sweep(path)


def every() -> list[Path]:
    """Return the directories of all runs and sweeps in ./runs, the oldest first."""
    if not RUNS.is_dir():
        return []
    return [RUNS / name for name in sorted(os.listdir(RUNS)) if _is_run(RUNS / name)]


def _jobs(path: Path) -> str:
    names = [p.name for p in jobs(path)] if is_sweep(path) else []
    return f"{names[0]} to {names[-1]}" if names else "none"
