"""Little address space, as after `ulimit -v`: said in a line, where the libraries that need it would end in C."""

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
_NEEDED = {"torch": 600 * _MIB, "numpy": 120 * _MIB, "polars": 200 * _MIB}  # to be imported; work takes more
_WORDS = ("allocate memory", "bad_alloc", "bad alloc", "out of memory", "start new thread")
_OTHERWISE = "static tls"  # which a library may find full in any memory
_UNDER_A_LIMIT = ("failed to map segment", "error return without")


def watch() -> None:
    """Let an import of a large library be refused in a line where there is no room for it."""
    if _limit() is not None and not any(isinstance(one, _Room) for one in sys.meta_path):
        sys.meta_path.insert(0, _Room())


def shortage(error: BaseException) -> str | None:
    """Return a line for an error that is a lack of memory, None for any other."""
    limit = _limit()
    for one in _with_causes(error):
        if type(one).__name__ == "OutOfMemoryError":  # torch's, of a GPU, which says more
            return None
        text = str(one.strerror if isinstance(one, OSError) else one).lower()
        words = _WORDS if limit is None else _WORDS + _UNDER_A_LIMIT
        if isinstance(one, MemoryError) or (any(word in text for word in words) and _OTHERWISE not in text):
            return "the memory is full" if limit is None else f"the memory is full: {_said(limit)}"
    return None


class _Room:
    """Finds nothing; refuses what there is no room for."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        limit = _limit()
        if name not in _NEEDED or limit is None:
            return
        if (room := limit - _used()) < _NEEDED[name]:
            what = f"{name} needs {_NEEDED[name] // _MIB:,} MiB of address space to be imported"
            raise RunFailed(f"{what}, and {max(room, 0) // _MIB:,} MiB are left: {_said(limit)}")


def _limit() -> int | None:
    """Return the address space that this process may have, None if there is no limit."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _said(limit: int) -> str:
    return f"this process may have {limit // _MIB:,} MiB (`ulimit -v` says so)"


def _used() -> int:
    """Return the address space that this process has, 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came from, the newest first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
