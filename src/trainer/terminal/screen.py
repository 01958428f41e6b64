"""Prints for commands: notes, tables, results, and the commands to type next. Without torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from trainer.config import secrets
from trainer.errors import printable
from trainer.terminal.streams import Stream

# Texts come from files and users, so nothing in them is markup. A closed stdout or stderr must not end a run.
stdout = Console(file=Stream("stdout", BrokenPipeError), markup=False, emoji=False, highlight=False)  # type: ignore[arg-type]
stderr = Console(file=Stream("stderr", OSError), markup=False, emoji=False, highlight=False)  # type: ignore[arg-type]
_UNWRAPPED = 10_000  # columns of a file or a pipe
_UNBOUNDED = Console(width=_UNWRAPPED)
_NARROW = 50  # columns
_STATES = {
    **{"done": "green", "failed": "red", "running": "cyan", "stopped": "magenta"},
    **{"identical": "green", "different": "red"},
}
RUN = "run"
T = TypeVar("T")


def note(text: str) -> None:
    """Print a note or a warning to stderr."""
    head, colon, rest = printable(text).partition(":")
    style = "bold" if colon and head == "warning" else ""
    stderr.print(Text.assemble((head + colon, style), rest), soft_wrap=True)


def say(text: str) -> None:
    """Print a line of a result to stdout."""
    stdout.print(printable(text), soft_wrap=True)


def as_json(data: Any) -> None:
    """Print a result as JSON; a list, which may be long, has one item per line."""
    items = ",\n".join(map(json.dumps, data)) if isinstance(data, list) else ""
    stdout.file.write(f"[\n{items}\n]\n" if items else f"{json.dumps(data, indent=1)}\n")


def as_yaml(data: dict[str, Any]) -> None:
    """Print a configuration as YAML."""
    import yaml

    stdout.print(yaml.safe_dump(secrets.tree(data), sort_keys=False, allow_unicode=True).rstrip(), soft_wrap=True)


def heading(name: str, what: str) -> None:
    """Print the heading of a section and, dimmed, its subject."""
    if stdout.is_terminal:
        stdout.print()
    line = Text.assemble((printable(name), "bold"), (f"  {printable(what)}" if what else "", "dim"))
    stdout.print(line, soft_wrap=not stdout.is_terminal)


def rows(texts: Mapping[str, str]) -> None:
    """Print names and texts in two columns."""
    two_columns(stdout, texts, "bold")


def columns(
    texts: Sequence[str],
    numbers: Sequence[str] = (),
    lines: Iterable[Sequence[str | Text]] = (),
    unbroken: Collection[str] = (),
) -> Table:
    """Return a table with columns of texts, then of numbers.

    Args:
        texts: Headings of the columns that hold texts.
        numbers: Headings of the columns that hold numbers.
        lines: The cells of each row.
        unbroken: Headings of the columns whose texts are never wrapped.
    """
    content = Table(box=None, header_style="bold", pad_edge=False)
    for heading in texts:
        no_wrap = heading in unbroken
        content.add_column(Text(printable(heading)), no_wrap=no_wrap, overflow="ellipsis" if no_wrap else "fold")
    for heading in numbers:
        content.add_column(Text(printable(heading)), justify="right")
    for line in lines:
        content.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in line))
    return content


def table(content: Table) -> None:
    """Print a table; outside a terminal each row stays on one line.

    On a narrow terminal headings are wrapped, then texts, but never numbers, which stand in the columns on the right.
    """
    if not fits(content):
        for column in content.columns:
            if column.justify == "right":
                column.header = Text("\n".join(str(column.header).split()))
                column.no_wrap = True
    _unwrapped().print(content)


def _unwrapped() -> Console:
    """Return standard output, wide enough that nothing is wrapped unless it is a terminal."""
    if stdout.is_terminal:
        return stdout
    return Console(file=stdout.file, width=_UNWRAPPED, markup=False, highlight=False)


def tree(content: Tree) -> None:
    """Print a tree; outside a terminal nothing is wrapped."""
    _unwrapped().print(content)


def fits(content: Table) -> bool:
    """Return whether a table can be printed without wrapping."""
    return not stdout.is_terminal or Measurement.get(_UNBOUNDED, _UNBOUNDED.options, content).maximum <= stdout.width


def is_live() -> bool:
    """Return whether the terminal can be redrawn."""
    return stderr.is_interactive and stderr.file.isatty()


def state(name: str) -> Text:
    """Return the name of a state in its color."""
    return Text(name, style=_STATES.get(name, ""))


def next_commands(commands: Mapping[str, str]) -> None:
    """Print the commands to type next, each after its purpose: a copied line holds the command alone.

    Args:
        commands: The purpose of each command.
    """
    if stdout.is_terminal:
        stdout.print()
    for line in command_lines(commands, narrow=stdout.is_terminal and stdout.width < _NARROW):
        stdout.print(line, soft_wrap=True)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """Yield items, with a progress bar on a terminal."""
    if not is_live():
        return items
    from rich.progress import track as rich_track  # importing it takes as long as a table of a thousand runs

    return rich_track(items, what, total=total, console=stderr, transient=True)


@contextmanager
def busy(what: str) -> Iterator[Callable[[str], None]]:
    """Show an activity for the duration of a block; yield a function that shows its progress."""
    if not is_live():
        yield lambda progress: None
        return
    with stderr.status(what) as status:
        yield lambda progress: status.update(f"{what}: {printable(progress)}")


def result(name: str, text: str) -> None:
    """Print how something ended, the state in color."""
    stdout.print(Text.assemble(state(name), f"  {printable(text)}"), soft_wrap=not stdout.is_terminal)


def two_columns(console: Console, texts: Mapping[str, str], style: str = "dim") -> None:
    """Print names and texts in two columns; the run directory is never wrapped, so that it can be copied."""
    narrow = console.is_terminal and console.width < _NARROW
    indent = 2 if narrow else max(map(len, texts), default=0) + 4
    for name, text in texts.items():
        before = Text(printable(name) if narrow else f"  {printable(name)}".ljust(indent), style=style)
        if narrow:
            console.print(before)
            before = Text(" " * indent)
        whole = name == RUN or not console.is_terminal
        lines = [Text(printable(text))] if whole else Text(printable(text)).wrap(console, console.width - indent)
        for line in lines:
            console.print(Text.assemble(before, line), soft_wrap=True)
            before = Text(" " * indent)


def command_lines(commands: Mapping[str, str], narrow: bool = False) -> Iterator[Text]:
    """Yield a line for each command, after its purpose."""
    widest = max(map(len, commands.values()), default=0)
    for command, what in commands.items():
        before = f"{what}:\n" if narrow else f"  {what:<{widest}}  "
        yield Text.assemble((before, "dim"), (printable(command), "bold"))
