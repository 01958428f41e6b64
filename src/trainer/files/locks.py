"""The lock on an open file, and its text, which names the holder.

The lock is flock's. On a file system where flock does not work, the holder in the text decides: its host, its pid and
the time at which it started.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from contextlib import suppress

from trainer.files.process import Process

_TRIES = 20  # 10 ms apart: `is_held` holds the lock for an instant
_MOST_BYTES = 1000  # that are read
_MOST_WORDS = 600  # bytes of the first part, so that all is read
_RELEASED = b"released\n"
_OLDER = re.compile(r"process ([0-9]{1,9}) on (\S+): ")


def acquire(descriptor: int) -> bool:
    """Take the lock, unless another process holds it, and return whether it is taken."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:  # where flock does not work, the user has to prevent two writers on two machines
            holder = _holder(descriptor)
            return holder is None or holder.is_gone or not holder.is_here
        else:
            return True
    return False


def is_held(descriptor: int) -> bool:
    """Return whether a process holds the lock; where flock does not work, one on another machine may have ended."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        holder = _holder(descriptor)
        return holder is not None and not holder.is_gone


def text(descriptor: int) -> bytes:
    """Return the text of the file."""
    return os.pread(descriptor, _MOST_BYTES, 0)


def named(descriptor: int) -> str:
    """Return the words of the text that name the holder, "" if there are none."""
    return _parts(descriptor)[0].strip()


def sign(descriptor: int, command: str) -> None:
    """Name this process as the holder, and its command."""
    rewrite(descriptor, _words(command) + f"{Process.me().text}\n".encode())


def release(descriptor: int, command: str) -> None:
    """Name this process as the last holder; the lock itself goes with the descriptor."""
    with suppress(OSError):
        rewrite(descriptor, _words(command) + _RELEASED)


def rewrite(descriptor: int, content: bytes) -> None:
    """Replace the text; a reader sees old or new words, never none."""
    os.pwrite(descriptor, content, 0)
    os.ftruncate(descriptor, len(content))


def _words(command: str) -> bytes:
    return os.fsencode(f"process {os.getpid()} on {socket.gethostname()}: {command}")[:_MOST_WORDS] + b"\n"


def _parts(descriptor: int) -> tuple[str, str]:
    """Return the words and the last line if it is ours; a lock of an older version has only the words."""
    found = text(descriptor).decode(errors="replace")
    words, _, last = found.removesuffix("\n").rpartition("\n")
    is_ours = last == _RELEASED.decode().strip() or Process.from_text(last) is not None
    return (words, last) if is_ours else (found, "")


def _holder(descriptor: int) -> Process | None:
    """Return the process that the text names as the holder, None if it names none."""
    words, last = _parts(descriptor)
    if last:
        return Process.from_text(last)
    if (found := _OLDER.match(words)) is None:
        return None
    return Process(int(found[1]), None, found[2])
