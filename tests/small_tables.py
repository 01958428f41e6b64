"""Small tables on the command line: the words of a run on t.csv, and the file itself."""

from __future__ import annotations

from pathlib import Path

DEFAULTS = {"experiment": "table", "data.path": "t.csv", "data.target": "y", "batch_size": "2", "steps": "2"}


def table(*words: str) -> list[str]:
    """The words of a small run on t.csv, with some replaced."""
    chosen = DEFAULTS | dict(word.split("=", 1) for word in words)
    return [f"{key}={value}" for key, value in chosen.items()]


def write(*lines: str, name: str = "t.csv") -> None:
    Path(name).write_text("\n".join(lines) + "\n")
