"""The user's own list of code that may be executed: an empty file for each digest, in a folder of this user's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path


class Unusable(Exception):
    """The list can't vouch for anything; the message says why, in one line."""


def folder() -> Path:
    """Return where the list lies: `$XDG_STATE_HOME/trainer/trusted`, or the same below `~/.local/state`.

    Raises:
        Unusable: Neither XDG_STATE_HOME nor HOME is an absolute path.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):  # the specification has relative ones ignored
        home = os.environ.get("HOME", "")
        if not os.path.isabs(home):
            raise Unusable("HOME is not set")
        state = os.path.join(home, ".local", "state")
    return Path(state, "trainer", "trusted")


def problem() -> str | None:
    """Return why the list can't vouch for anything, None if it can."""
    try:
        _checked()
    except Unusable as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None


def contains(digest: str) -> bool:
    """Return whether the user's list has a digest; a list that others may have written has none."""
    try:
        place = _checked()
        return place is not None and stat.S_ISREG((place / digest).lstat().st_mode)
    except (OSError, Unusable):
        return False


def add(digests: Iterable[str]) -> str | None:
    """Add digests to the list; return why later commands will not find them, None if they will."""
    new = {digest for digest in digests if not contains(digest)}
    if not new:
        return None
    try:
        place = folder()
        _checked()
        place.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (place.parent, place):
            part.mkdir(mode=0o700, exist_ok=True)
        _checked()
        for digest in sorted(new):
            os.close(os.open(place / digest, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except Unusable as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or place}: {error.strerror}"
    return None


def remarks(digests: Iterable[str]) -> list[str]:
    """Add the digests of what the user has just typed, and return what the user should know of that."""
    problem = add(digests)
    lines = f"note: your list of trusted code can't be kept ({problem}): later commands will need --trust-code"
    return [] if problem is None else [lines]


def forget(digests: Iterable[str]) -> int:
    """Take digests off the list and return how many were on it.

    Raises:
        OSError: The list can't be written to.
    """
    known = [digest for digest in {*digests} if contains(digest)]
    for digest in known:
        (folder() / digest).unlink()
    return len(known)


def _checked() -> Path | None:
    """Return the folder of the list, None if there is none yet.

    Raises:
        Unusable: It is another user's, or others may write to it.
    """
    place = folder()
    for part in (place.parent, place):
        try:
            found = part.lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(found.st_mode):
            raise Unusable(f"{part} is not a folder")
        if found.st_uid != os.geteuid():
            raise Unusable(f"{part} belongs to another user")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Unusable(f"others may write to {part}")
    return place
