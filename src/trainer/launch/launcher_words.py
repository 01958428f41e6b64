"""The words that select and configure the launcher of a sweep. No torch, no Hydra."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from trainer.config.catalog import LAUNCHERS
from trainer.runs.sweep_file import Sweep
from trainer.runs.user_code import OwnCode

DEFAULT = "local"
_CHOICE = re.compile(r"hydra/launcher=")
_HARMLESS = re.compile(
    rf"hydra/launcher=({'|'.join(LAUNCHERS)})"
    r"|hydra\.launcher\.(n_jobs|verbose|timeout|batch_size|max_nbytes)=-?[0-9]{1,2}"  # at most 99 processes
    r"|hydra\.launcher\.(backend|prefer)=(loky|multiprocessing|threading|processes|threads)"
)


def words_of(sweep: Sweep) -> list[str]:
    """Return the words that select and configure the launcher of a sweep."""
    return launcher_words(sweep["launcher"]["overrides"], sweep["launcher"]["name"])


def launcher_words(typed: Sequence[str], otherwise: str = DEFAULT) -> list[str]:
    """Return typed words for a launcher, with `hydra/launcher=` added if it is missing."""
    return [*typed] if any(map(_CHOICE.match, typed)) else [f"hydra/launcher={otherwise}", *typed]


def launcher_name(typed: Sequence[str]) -> str:
    """Return the name of the launcher that words select."""
    return next(word for word in launcher_words(typed) if _CHOICE.match(word)).partition("=")[2]


def is_harmless(word: str) -> bool:
    """Return whether a word can only make a launcher execute the jobs, and no other code."""
    return _HARMLESS.fullmatch(word) is not None


def launcher_code(sweep: Sweep) -> OwnCode | None:
    """Return the code that the launcher of a sweep could execute, None if it only trains the jobs."""
    if all(map(is_harmless, words_of(sweep))):
        return None
    folders = [str(Path(folder).absolute()) for folder in sweep["launcher"]["config_dirs"]]
    return OwnCode(launcher={"words": words_of(sweep), "config_dirs": folders})
