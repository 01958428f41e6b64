"""The user's list of trusted code: an empty file per digest, in a folder that only this user can write to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path


class Unusable(Exception):
    """The list can't be trusted; the message gives the reason in one line."""


def folder() -> Path:
    """Return the folder of the list: `trainer/trusted` in `$XDG_STATE_HOME` or `~/.local/state`.

    Raises:
        Unusable: Neither XDG_STATE_HOME nor HOME is an absolute path.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):  # the XDG specification says to ignore relative paths
        home = os.environ.get("HOME", "")
        if not os.path.isabs(home):
            raise Unusable("HOME is not set")
        state = os.path.join(home, ".local", "state")
    return Path(state, "trainer", "trusted")


def problem() -> str | None:
    """Return why the list can't be trusted, None if it can."""
    try:
        _checked()
    except Unusable as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None


def contains(digest: str) -> bool:
    """Return whether the list contains a digest; a list that others can write to counts as empty."""
    try:
        place = _checked()
        return place is not None and stat.S_ISREG((place / digest).lstat().st_mode)
    except (OSError, Unusable):
        return False


def add(digests: Iterable[str]) -> str | None:
    """Add digests to the list; return why they could not be added, None on success."""
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
    """Add the digests of code that the user has just typed, and return notes for the user."""
    problem = add(digests)
    line = f"note: your list of trusted code can't be updated ({problem}): later commands will need --trust-code"
    return [] if problem is None else [line]


def forget(digests: Iterable[str]) -> int:
    """Remove digests from the list and return how many it contained.

    Raises:
        OSError: The list can't be changed.
    """
    known = [digest for digest in {*digests} if contains(digest)]
    for digest in known:
        (folder() / digest).unlink()
    return len(known)


def _checked() -> Path | None:
    """Return the folder of the list, None if there is none yet.

    Raises:
        Unusable: It belongs to another user, or others can write to it.
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
            raise Unusable(f"others can write to {part}")
    return place
