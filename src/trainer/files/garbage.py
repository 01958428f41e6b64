"""When Python searches for garbage: not while much is made that stays, nor among what will stay to the end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Do not search during a block that makes many objects that stay: imports, or the data of thousands of runs."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def kept() -> Iterator[None]:
    """Do not search what is there already, half a million objects of torch's among it, for the duration of a block."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
