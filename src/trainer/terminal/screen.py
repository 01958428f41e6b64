"""What commands print with: remarks, tables, results, and what one may type next. Without torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

# Texts come from files and users: nothing in them is markup. What can't be read any more must not end a run.
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
    """Print a remark."""
    head, colon, rest = printable(text).partition(":")
    style = "bold" if colon and head == "warning" else ""
    stderr.print(Text.assemble((head + colon, style), rest), soft_wrap=True)


def say(text: str) -> None:
    """Print a line of a result."""
    stdout.print(printable(text), soft_wrap=True)


def as_json(data: Any) -> None:
    """Print a result for programs; of a list, which may be long, an item a line."""
    items = ",\n".join(map(json.dumps, data)) if isinstance(data, list) else ""
    stdout.file.write(f"[\n{items}\n]\n" if items else f"{json.dumps(data, indent=1)}\n")


def as_yaml(data: dict[str, Any]) -> None:
    """Print a configuration as its file would hold it."""
    import yaml

    stdout.print(yaml.safe_dump(secrets.tree(data), sort_keys=False, allow_unicode=True).rstrip(), soft_wrap=True)


def heading(name: str, what: str) -> None:
    """Print a heading of a result, with what it is about."""
    if stdout.is_terminal:
        stdout.print()
    line = Text.assemble((printable(name), "bold"), (f"  {printable(what)}" if what else "", "dim"))
    stdout.print(line, soft_wrap=not stdout.is_terminal)


def rows(texts: Mapping[str, str]) -> None:
    """Print lines of a result: names and texts in two columns."""
    two_columns(stdout, texts, "bold")


def columns(texts: Sequence[str], numbers: Sequence[str] = (), lines: Iterable[Sequence[str]] = ()) -> Table:
    """Return a table with columns of texts, then of numbers.

    Args:
        texts: Headings of the columns that hold texts.
        numbers: Headings of those that hold numbers.
        lines: A cell for each column.
    """
    content = Table(box=None, header_style="bold", pad_edge=False)
    for heading in texts:
        content.add_column(Text(printable(heading)), overflow="fold")
    for heading in numbers:
        content.add_column(Text(printable(heading)), justify="right")
    for line in lines:
        content.add_row(*(Text(printable(cell)) for cell in line))
    return content


def table(content: Table) -> None:
    """Print a table of results; a row stays one line where there is no screen to fit.

    On a narrow screen headings and texts give way, but never numbers, which stand in the columns on the right.
    """
    for column in content.columns:
        if column.justify == "right":
            column.min_width = max((len(str(cell)) for cell in column.cells), default=0)
            column.overflow = "fold"
    _whole().print(content)


def _whole() -> Console:
    """Return standard output, so wide that nothing is folded where there is no screen to fit."""
    if stdout.is_terminal:
        return stdout
    return Console(file=stdout.file, width=_UNWRAPPED, markup=False, highlight=False)


def tree(content: Tree) -> None:
    """Print a tree; nothing is folded where there is no screen to fit."""
    _whole().print(content)


def fits(content: Table) -> bool:
    """Say whether a table can be printed without folding anything."""
    return not stdout.is_terminal or Measurement.get(_UNBOUNDED, _UNBOUNDED.options, content).maximum <= stdout.width


def is_live() -> bool:
    """Say whether the screen can be redrawn."""
    return stderr.is_interactive and stderr.file.isatty()


def state(name: str) -> Text:
    """Return a state's name in its colour."""
    return Text(name, style=_STATES.get(name, ""))


def next_commands(commands: Mapping[str, str]) -> None:
    """Print commands that one may type next, each after what it does: a copied line holds the command alone.

    Args:
        commands: What each does, by the command.
    """
    if stdout.is_terminal:
        stdout.print()
    for line in command_lines(commands, narrow=stdout.is_terminal and stdout.width < _NARROW):
        stdout.print(line, soft_wrap=True)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """Yield items, with a progress bar when going through them takes a while."""
    if not is_live():
        return items
    from rich.progress import track as rich_track  # takes as long to import as a table of a thousand runs

    return rich_track(items, what, total=total, console=stderr, transient=True)


@contextmanager
def busy(what: str) -> Iterator[Callable[[str], None]]:
    """Show that something is being done for the duration of a block, which may tell how far it is."""
    if not is_live():
        yield lambda progress: None
        return
    with stderr.status(what) as status:
        yield lambda progress: status.update(f"{what}: {printable(progress)}")


def result(name: str, text: str) -> None:
    """Print how something ended, its name in colour."""
    stdout.print(Text.assemble(state(name), f"  {printable(text)}"), soft_wrap=not stdout.is_terminal)


def two_columns(console: Console, texts: Mapping[str, str], style: str = "dim") -> None:
    """Print names and texts in two columns; the run directory is never broken, so that it can be copied."""
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
    widest = max(map(len, commands.values()), default=0)
    for command, what in commands.items():
        before = f"{what}:\n" if narrow else f"  {what:<{widest}}  "
        yield Text.assemble((before, "dim"), (printable(command), "bold"))
