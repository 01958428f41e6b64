"""Reads the help text of a command from commands/NAME.txt; importing the command would take up to 0.1 s."""

import os

TYPE_CHECKING = False  # importing typing would slow down every --help
if TYPE_CHECKING:
    from collections.abc import Sequence

FLAGS = ("-h", "--help")
_COMMANDS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "commands")


def is_asked(argv: "Sequence[str]") -> bool:
    """Return whether the words of a command, up to `--`, ask for its help."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    return any(flag in words for flag in FLAGS)


def text(command: str, argv: "Sequence[str]" = ()) -> str:
    """Return the help of a command.

    Args:
        command: Its name.
        argv: The words after it.

    Raises:
        UsageError: A word is invalid.
    """
    with open(os.path.join(_COMMANDS, f"{command}.txt"), encoding="utf-8") as file:
        found = file.read()
    if "\n{" in found:  # placeholders for parts made from config folders and settings
        from trainer.terminal import help_parts

        return help_parts.filled(found, argv)
    return found
