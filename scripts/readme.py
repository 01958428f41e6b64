#!/usr/bin/env python3
"""Runs the commands in README.md and docs/, each page in an empty directory, and writes their output below them.

    .venv/bin/python scripts/readme.py              all pages, and the pictures
    .venv/bin/python scripts/readme.py docs/own.md  some pages

A console block holds commands (`$ trainer ...`) and their output, without lines of progress. The tables of options and
settings between `<!-- table: NAME -->` and `<!-- end -->` are generated from configs/ and from the descriptions of the
settings.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import MISSING, fields
from pathlib import Path

import pictures

from trainer.config.catalog import Catalog, summary
from trainer.config.settings import CheckpointSettings, DeviceSettings, Settings
from trainer.text import show

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"in\s`([\w./]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WIDTH = "100"  # columns
PROGRESS = re.compile(r"^\s*step [\d,]+/.*\n", re.MULTILINE)  # how many such lines there are depends on the machine
TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def commands(block: str) -> list[str]:
    """Return the commands of a console block."""
    return [line[2:] for line in block.splitlines() if line.startswith("$ ")]


def write_files(text: str, folder: Path) -> None:
    """Write the files that the text shows, each after the words: in `PATH`."""
    for name, content in FILE.findall(text):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def options_table(group: str) -> str:
    """Return a Markdown table of the options of a group."""
    rows = [f"| `{name}` | {summary(file)} |" for name, file in Catalog().options(group).items()]
    return "\n".join([f"| `{group}=` | |", "|---|---|", *rows])


def settings_table() -> str:
    """Return a Markdown table of all settings outside the groups."""
    rows = []
    for prefix, section in (("", Settings), ("checkpoint.", CheckpointSettings), ("device.", DeviceSettings)):
        for one in fields(section):
            if one.default is not MISSING and "doc" in one.metadata:
                doc = one.metadata["doc"].replace("|", r"\|")
                rows.append(f"| `{prefix}{one.name}` | {show(one.default)} | {doc} |")
    return "\n".join(["| setting | default | |", "|---|---|---|", *rows])


def tables(text: str) -> str:
    """Return the text with its tables generated again."""

    def fill(match: re.Match[str]) -> str:
        name = match[2]
        content = settings_table() if name == "settings" else options_table(name)
        return f"{match[1]}{content}\n{match[3]}"

    return TABLE.sub(fill, text)


def renew(page: Path) -> None:
    """Rewrite a page with the current output of its commands."""
    text = page.read_text()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as state:

        def run(match: re.Match[str]) -> str:
            write_files(text[: match.start()], Path(folder))
            parts = []
            for command in commands(match[1]):
                print(command, file=sys.stderr)
                words = shlex.split(command)
                words[0] = str(Path(sys.executable).with_name("trainer"))
                environment = {**os.environ, "COLUMNS": WIDTH, "XDG_STATE_HOME": state}
                done = subprocess.run(
                    words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
                output = PROGRESS.sub("", done.stdout).replace(str(Path(folder).resolve()), "~/experiments")
                parts.append(f"$ {command}\n{output.replace(str(ROOT), '~/trainer')}")
            return "```console\n" + "\n".join(parts) + "```"

        page.write_text(BLOCK.sub(run, tables(text)))


if __name__ == "__main__":
    for page in [Path(word).resolve() for word in sys.argv[1:]] or PAGES:
        renew(page)
    if not sys.argv[1:]:
        pictures.main()
