"""stdout and stderr that may be closed, go away while a run is on, or lack characters."""

from __future__ import annotations

import io
import os
import sys

TYPE_CHECKING = False  # typing's own would be imported with every help
if TYPE_CHECKING:
    from typing import TextIO


def prepare() -> None:
    """Give closed standard streams /dev/null, and let stdout and stderr take characters that their encoding lacks.

    A descriptor that is left closed would be taken by the next file opened, and messages written into that file.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence(stream: TextIO) -> None:
    """Send to /dev/null what a stream still holds and whatever is written to it from now on."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class Stream(io.TextIOBase):
    """sys.stdout or sys.stderr, whatever that is at the time of writing; falls silent when it has gone.

    Args:
        name: stdout or stderr.
        gone: Errors after which it is silent instead of raising them.
    """

    def __init__(self, name: str, gone: type[OSError]) -> None:
        self._name, self._gone = name, gone

    @property
    def _file(self) -> TextIO:
        file = getattr(sys, self._name)
        # While rich shows something live, it puts a proxy there that prints through the console that writes here.
        real: TextIO = getattr(file, "rich_proxied_file", file)
        return real

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return the encoding that is written in."""
        return self._file.encoding or "ascii"

    def isatty(self) -> bool:
        """Say whether it is a terminal."""
        return self._file.isatty()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._file.fileno()

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return self._file.write(text)
        except self._gone:
            silence(self._file)
            return len(text)

    def flush(self) -> None:
        """Hand on what is held back."""
        try:
            self._file.flush()
        except self._gone:
            silence(self._file)
