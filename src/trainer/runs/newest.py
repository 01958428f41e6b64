"""When runs and sweeps were created, and runs/.newest, the pointer to the last one created. Without torch.

The pointer is written before the run that it names exists, so that it never names an older run. Where it is missing or
names what is not there, the times of all runs decide.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.files import reading, writing

RUNS = Path("runs")
ID = re.compile(r"\d{8}-\d{6}-[a-z]{4}")
POINTER = ".newest"
_MOST_BYTES = 300  # a file name has at most 255
_CREATED = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}\.[0-9]{9}Z")


def stamp(nanoseconds: int | None = None) -> str:
    """Return a time in UTC as text of fixed length, whose order is that of the times.

    Args:
        nanoseconds: The time in ns since 1970; None means now.
    """
    seconds, rest = divmod(time.time_ns() if nanoseconds is None else nanoseconds, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def announce(path: Path) -> str:
    """Make the pointer name a run or a sweep that is about to be created, and return the time of its creation.

    Args:
        path: Its directory; the one above it exists. Only a folder `runs`, or one with a pointer, gets a pointer.

    Raises:
        OSError: The pointer can't be written.
    """
    file = path.absolute().parent / POINTER
    if RUNS.name in (file.parent.name, path.resolve().parent.name) or os.path.lexists(file):
        with suppress(IsADirectoryError), writing.replacing(file) as pointer:  # a directory points nowhere
            pointer.write(os.fsencode(f"{path.name}\n"))
    return stamp()


def pointed(folder: Path) -> Path | None:
    """Return the path that the pointer in a folder names; None if there is none, or it is not a folder in this one."""
    try:
        name = os.fsdecode(reading.content(folder / POINTER, _MOST_BYTES)).removesuffix("\n")
        path = folder / name
        is_here = name not in ("", ".", "..") and "/" not in name and not path.is_symlink() and path.is_dir()
    except (OSError, ValueError):
        return None
    return path if is_here else None


def created(path: Path, content: Mapping[str, Any]) -> str:
    """Return when a run or a sweep was created, as `stamp` does; "" if nothing tells.

    Older versions recorded no time of creation; then the id has it, and without an id, the first start.

    Args:
        path: Its directory.
        content: Its status.json or sweep.json.
    """
    if _CREATED.fullmatch(found := str(content.get("created", ""))):
        return found
    for name in (content.get("id", ""), path.name, path.parent.name):
        if ID.fullmatch(name) and (found := _stamp_of(name[:15], "%Y%m%d-%H%M%S")):
            return found
    return started((content.get("segments") or [{}])[0])


def started(segment: Mapping[str, Any]) -> str:
    """Return when a segment of a run started, as `stamp` does; "" if it does not tell."""
    return _stamp_of(segment.get("started", ""), "%Y-%m-%dT%H:%M:%S%z")


def _stamp_of(text: str, form: str) -> str:
    """Return the stamp of a time in text, "" if it is none; the time of an id is local."""
    from datetime import datetime  # a command that reads no old runs does not need it

    try:
        return stamp(int(datetime.strptime(text, form).timestamp()) * 10**9)
    except (ValueError, OverflowError, OSError):
        return ""
