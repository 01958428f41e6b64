"""Answers TAB scripts that an older version wrote and a user saved: they ask this module, and must be written again."""

from __future__ import annotations

import sys

CURE = "this TAB script is of an older trainer; write it again: trainer completion"


def main(arguments: list[str]) -> None:
    """Tell the cure on the terminal: the script would type what stands on stdout, and it discards stderr.

    Args:
        arguments: The shell, then the words after `trainer`.
    """
    line = f"trainer: {CURE} {arguments[0]}\n"
    try:
        with open("/dev/tty", "w") as terminal:
            terminal.write(f"\n{line}")
    except OSError:
        sys.stderr.write(line)
