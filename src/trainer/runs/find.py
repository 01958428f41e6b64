"""Finds a run by what a user types for it: last, best, four letters, an id or a path. Without torch."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import UsageError, nearest
from trainer.runs.directory import RUNS, every, is_run, is_sweep, jobs
from trainer.runs.ranking import best


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
    named = [p for p in every() if p.name == head or p.name[-4:] == head]
    if head == "last" and not named:
        named = every()[-1:]
        if not named:
            raise UsageError("last: there are no runs here yet; start one with `trainer run`")
    if len(named) > 1:
        raise UsageError(f"{word}: several runs match: {', '.join(p.name for p in named)}")
    if named:
        found = named[0] / job if job else named[0]
        if is_run(found):
            return found
        raise UsageError(f"{word}: {named[0]} has no job {job}; it has {_jobs(named[0])}")
    if is_folder:
        raise UsageError(f"{word}: {path.absolute()} is not a run: it has no config.yaml")
    letters = [p.name[-4:] for p in every()]
    near = nearest(word, letters + [p.name for p in every()])
    some = f"; the newest are {', '.join(letters[-5:])}" if letters else f"; there are no runs in {RUNS.absolute()}"
    raise UsageError(f"{word}: no such run{some}" + (f"; did you mean {near}?" if near else ""))


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
