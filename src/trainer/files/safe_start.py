"""Processes of Python that are started here look for no modules in the working directory.

That may be a run that somebody has sent. `python -m` and `python -c` would look there first of all, even for modules of
the standard library, and that is how joblib, multiprocessing and torch start their workers and helpers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_NAME = "PYTHONSAFEPATH"
_OURS = "trainer"  # any text switches it on; by this one it is told from what the user has set


@contextmanager
def safe_path() -> Iterator[None]:
    """Keep processes that start meanwhile, of this one and of those, from looking into the working directory first."""
    if os.environ.get(_NAME):
        yield
        return
    before = os.environ.get(_NAME)
    os.environ[_NAME] = _OURS
    try:
        yield
    finally:
        os.environ.pop(_NAME, None)
        if before is not None:
            os.environ[_NAME] = before


@contextmanager
def lifted() -> Iterator[None]:
    """Undo that while a job is at work: the scripts that the user's own code starts find modules beside themselves."""
    is_ours = os.environ.get(_NAME) == _OURS
    lift()
    try:
        yield
    finally:
        if is_ours:
            os.environ[_NAME] = _OURS


def lift(worker: int = 0) -> None:
    """Undo that for good, in a process that has been started so.

    Args:
        worker: Its number, which DataLoader tells.
    """
    if os.environ.get(_NAME) == _OURS:
        del os.environ[_NAME]
