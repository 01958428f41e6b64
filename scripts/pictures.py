#!/usr/bin/env python3
"""Draws the pictures of README.md from a real run: the live screen, light and dark, and the curve.

.venv/bin/python scripts/pictures.py    writes docs/images/
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME, TerminalTheme
from rich.text import Text

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
COMMAND = ("trainer", "run", "experiment=digits")
COLUMNS, LINES = 100, 30
SHOWN_AT = 0.5  # of the steps: late enough for a curve and a best evaluation
LIGHT = TerminalTheme(
    (255, 255, 255),
    (31, 35, 40),
    [
        *[(36, 41, 47), (207, 34, 46), (17, 99, 41), (77, 45, 0)],  # black, red, green, yellow
        *[(9, 105, 218), (130, 80, 223), (27, 124, 131), (110, 119, 129)],  # blue, magenta, cyan, white
    ],
)
THEMES = {"light": LIGHT, "dark": SVG_EXPORT_THEME}
_TOKEN = re.compile(r"\x1b\[\??([\d;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")
_STEP = re.compile(r"step\D*([\d,]+)/([\d,]+)")
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class Screen:
    """The lines of a terminal, with their colors: what rich's live display needs and no more."""

    def __init__(self) -> None:
        self._lines, self._row = [""], 0

    def write(self, text: str) -> None:
        """Take what a program prints."""
        for token in _TOKEN.finditer(text):
            if token[0] == "\n":
                self._row += 1
                self._lines += [""] * (self._row + 1 - len(self._lines))
            elif token[2] == "A":  # cursor up
                self._row = max(0, self._row - int(token[1] or 1))
            elif token[2] == "K":
                self._lines[self._row] = ""
            elif token[0] != "\r" and token[2] in (None, "m"):
                self._lines[self._row] += token[0]

    @property
    def text(self) -> Text:
        """The screen as a text of rich."""
        return Text.from_ansi("\n".join(self._lines).rstrip())


def live_run(folder: str) -> Iterator[Text]:
    """Train in a terminal and yield the screen whenever it changes."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    words = [str(Path(sys.executable).with_name(COMMAND[0])), *COMMAND[1:]]
    environment = {**os.environ, "TERM": "xterm-256color", "XDG_STATE_HOME": folder, "OMP_NUM_THREADS": "1"}
    environment = {key: value for key, value in environment.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    child = subprocess.Popen(words, cwd=folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    screen = Screen()
    screen.write(f"\x1b[1m$ {' '.join(COMMAND)}\x1b[0m\n")
    with suppress(OSError):  # EIO: the run has ended
        while data := os.read(main, 65536):
            screen.write(data.decode(errors="replace"))
            yield screen.text
    os.close(main)
    if child.wait():
        raise SystemExit(f"{' '.join(COMMAND)} failed:\n{screen.text.plain}")


def recorded(folder: str) -> Text:
    """Return the screen of a run in progress, after training to its end."""
    shown = None
    for screen in live_run(folder):
        steps = _STEP.search(screen.plain.rpartition("run ")[2])
        if shown is None and steps and "best" in screen.plain:
            done, of = (int(number.replace(",", "")) for number in steps.groups())
            shown = screen if done > SHOWN_AT * of else None
    if shown is None:
        raise SystemExit("the run was too short to be shown while it trains")
    return shown


def svg(screen: Text, theme: TerminalTheme) -> str:
    """Return a screen as SVG that loads no fonts from other sites."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(screen, soft_wrap=True)
    drawn = _FONTS.sub("", console.export_svg(title="trainer", theme=theme, unique_id="trainer"))
    return drawn.replace("rgba(255,255,255,0.35)", "rgba(128,128,128,0.5)")  # a frame that white does not hide


def main() -> None:
    """Train once and write the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        screen = recorded(folder)
        for name, theme in THEMES.items():
            (IMAGES / f"run-{name}.svg").write_text(svg(screen, theme))
        words = ["plot", "last", "-o", str(IMAGES / "curve.png"), "--size", "6.4x3.2"]
        subprocess.run([Path(sys.executable).with_name(COMMAND[0]), *words], cwd=folder, check=True)


if __name__ == "__main__":
    main()
