"""Keeps Python's garbage collector from scanning objects that stay alive anyway."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Turn collection off during a block that creates many long-lived objects: imports, data of thousands of runs."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def kept() -> Iterator[None]:
    """Exclude all existing objects, half a million of them torch's, from collection during a block."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
