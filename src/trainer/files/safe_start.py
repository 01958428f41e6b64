"""Keeps the working directory off the module search path of Python processes that a command starts.

The working directory may be a run from someone else. `python -m` and `python -c` search it before everything else,
even before the standard library, and joblib, multiprocessing and torch start their workers that way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_NAME = "PYTHONSAFEPATH"
_OURS = "trainer"  # any nonempty value enables it; this one distinguishes our setting from the user's


@contextmanager
def safe_path() -> Iterator[None]:
    """Make every process started during a block, and its descendants, leave out the working directory."""
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
    """Suspend `safe_path` during a block, so that scripts that the user's code starts find modules next to them."""
    is_ours = os.environ.get(_NAME) == _OURS
    lift()
    try:
        yield
    finally:
        if is_ours:
            os.environ[_NAME] = _OURS


def lift(worker: int = 0) -> None:
    """End `safe_path` for good in a process that was started under it.

    Args:
        worker: The worker's number, which DataLoader passes.
    """
    if os.environ.get(_NAME) == _OURS:
        del os.environ[_NAME]
