"""Chooses the directory of a new run: the one the user asked for, or a new id."""

from __future__ import annotations

import os
import random
import shlex
import time
from pathlib import Path

from trainer.errors import refusal
from trainer.runs.directory import REPLACED, RunDirectory
from trainer.runs.newest import RUNS

_CONSONANTS = "bcdfghjklmnpqrstvwxz"


def new_path(asked: str | None) -> Path:
    """Return the directory for a new run: the one asked for, or runs/<id> with four letters that no other run has.

    Raises:
        UsageError: It already exists, can't be created, or has control characters in its name.
    """
    if asked is None:
        names = os.listdir(RUNS) if RUNS.is_dir() else []
        taken, newest = {name[-4:] for name in names}, max(names, default="")
        chooser = random.SystemRandom()
        while True:
            letters = "".join(chooser.choices(_CONSONANTS, k=4))
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{letters}"
            # Within a second the letters ascend, so that the last name is the newest run.
            if letters not in taken and (name > newest or name[:15] < newest[:15]):
                return RUNS / name
    path = Path(asked)
    if any(ord(character) < 32 for character in asked):
        raise refusal(f"run_dir={asked!r}", "has control characters")
    try:
        if path.exists() and not path.is_dir():
            raise refusal(f"run_dir={asked}", "is a file")
        if path.is_dir() and not _is_fresh(path):
            resume = f"trainer resume {shlex.quote(RunDirectory(path).short)}, or resume=true"
            go_on = resume if RunDirectory(path).exists else "another run_dir"
            raise refusal(f"run_dir={asked}", "exists and is not empty", go_on)
    except OSError as error:
        raise refusal(f"run_dir={asked}", f"can't be created: {error.strerror}") from error
    return path


def _is_fresh(path: Path) -> bool:
    """Return whether a directory is empty or holds only the leftovers of an interrupted `RunDirectory.create`."""
    rest = {p.name for p in path.iterdir() if not p.name.startswith(tuple(f".{name}." for name in REPLACED))}
    made = {"lock", "status.json", "preprocess.json", "checkpoints"}
    if "lock" in rest:  # created first; without it, code/ belongs to the user
        made.add("code")
    return rest <= made and not list(path.glob("checkpoints/*"))
