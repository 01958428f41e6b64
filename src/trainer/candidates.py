"""Answers saved TAB scripts from older versions, which call this module, and asks the user to replace them."""

from __future__ import annotations

import sys

CURE = "this TAB script is from an older version; replace it: trainer completion"


def main(arguments: list[str]) -> None:
    """Print the remedy to the terminal: the script would insert stdout into the command line, and it discards stderr.

    Args:
        arguments: The shell, then the words after `trainer`.
    """
    line = f"trainer: {CURE} {arguments[0]}\n"
    try:
        with open("/dev/tty", "w") as terminal:
            terminal.write(f"\n{line}")
    except OSError:
        sys.stderr.write(line)
