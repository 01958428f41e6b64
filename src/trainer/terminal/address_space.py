"""Reports a lack of address space (`ulimit -v`) in one line, before a library crashes in C."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from trainer.errors import RunFailed

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

_MIB = 2**20
_NEEDED = {"torch": 600 * _MIB, "numpy": 120 * _MIB, "polars": 200 * _MIB}  # for the import alone
_WORDS = ("allocate memory", "bad_alloc", "bad alloc", "out of memory", "start new thread")
_OTHERWISE = "static tls"  # a small fixed area, which can run out while memory is free
_UNDER_A_LIMIT = ("failed to map segment", "error return without")


def watch() -> None:
    """From now on, refuse to import a large library that doesn't fit into the address space."""
    if _limit() is not None and not any(isinstance(one, _Room) for one in sys.meta_path):
        sys.meta_path.insert(0, _Room())


def shortage(error: BaseException) -> str | None:
    """Return one line for an error caused by a lack of memory, None for any other error."""
    limit = _limit()
    for one in _with_causes(error):
        if type(one).__name__ == "OutOfMemoryError":  # raised by torch for a GPU, with a better message
            return None
        text = str(one.strerror if isinstance(one, OSError) else one).lower()
        words = _WORDS if limit is None else _WORDS + _UNDER_A_LIMIT
        if isinstance(one, MemoryError) or (any(word in text for word in words) and _OTHERWISE not in text):
            return "out of memory" if limit is None else f"out of memory: {_reason(limit)}"
    return None


class _Room:
    """An import finder that finds nothing but refuses large libraries that don't fit into the address space."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        limit = _limit()
        if name not in _NEEDED or limit is None:
            return
        if (room := limit - _used()) < _NEEDED[name]:
            what = f"importing {name} takes {_NEEDED[name] // _MIB:,} MiB of address space"
            raise RunFailed(f"{what}, and {max(room, 0) // _MIB:,} MiB are left: {_reason(limit)}")


def _limit() -> int | None:
    """Return the limit of the address space in bytes, None if there is none."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _reason(limit: int) -> str:
    return f"this process is limited to {limit // _MIB:,} MiB (see `ulimit -v`)"


def _used() -> int:
    """Return the address space in use in bytes, 0 if the system does not report it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, the newest first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
