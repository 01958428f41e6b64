"""Makes stdout and stderr robust: they may be closed, disappear during a run, or lack characters."""

from __future__ import annotations

import io
import os
import sys

TYPE_CHECKING = False  # importing typing would slow down every --help
if TYPE_CHECKING:
    from typing import TextIO


def prepare() -> None:
    """Redirect closed standard streams to /dev/null, and escape characters that an encoding lacks.

    The next file opened would take a closed descriptor, and messages would be written into that file.
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
    """Send the buffer of a stream, and everything written to it from now on, to /dev/null."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class Stream(io.TextIOBase):
    """The current sys.stdout or sys.stderr, looked up at each write; silent once it has disappeared.

    Args:
        name: stdout or stderr.
        gone: The error that means it has disappeared.
    """

    def __init__(self, name: str, gone: type[OSError]) -> None:
        self._name, self._gone = name, gone

    @property
    def _file(self) -> TextIO:
        file = getattr(sys, self._name)
        # During a live display rich installs a proxy there, which prints through the console that writes here.
        real: TextIO = getattr(file, "rich_proxied_file", file)
        return real

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return the encoding."""
        return self._file.encoding or "ascii"

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
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
        """Flush the stream."""
        try:
            self._file.flush()
        except self._gone:
            silence(self._file)
