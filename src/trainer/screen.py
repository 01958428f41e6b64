"""What commands print around the training: the header, remarks, and the summary with what to type next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track
from rich.table import Table

from trainer.build import Built
from trainer.job import Outcome, num_parameters
from trainer.progress import Display, Standing, display, number
from trainer.resume import Change
from trainer.rundir import RunDir
from trainer.values import show

stdout = Console(highlight=False, soft_wrap=True)
stderr = Console(stderr=True, highlight=False)


def header(built: Built, choices: dict[str, str], rundir: RunDir) -> None:
    """Say what is about to be trained."""
    run = built.run
    stderr.print(f"{choices['model']}, {num_parameters(run):,} parameters", markup=False)


def note(text: str) -> None:
    """Print a remark."""
    stderr.print(text, markup=False, soft_wrap=True)


def progress(standing: Standing) -> Display:
    """Return the display of a run."""
    return display(stderr, standing)


def summary(outcome: Outcome, rundir: RunDir) -> None:
    """Print the result, the run directory and what one may type next."""
    metrics = ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in outcome.metrics.items())
    stdout.print(f"{outcome.state} at step {outcome.step}: {metrics}", markup=False)
    stdout.print(f"{rundir.path}", markup=False)


def resuming(rundir: RunDir, step: int, changes: list[Change]) -> None:
    """Say what a run continues from and which settings changed."""
    stderr.print(f"resuming {rundir.path} from step {step:,}", markup=False)
    for change in changes:
        stderr.print(f"  {change.key}: {show(change.old)} -> {show(change.new)}", markup=False)


def is_live() -> bool:
    """Say whether the screen can be redrawn."""
    return stderr.is_terminal and not stderr.is_dumb_terminal


def say(text: str) -> None:
    """Print a line of a result."""
    stdout.print(text, markup=False, soft_wrap=True)


def table(content: Table) -> None:
    """Print a table of results."""
    stdout.print(content)


def state(name: str) -> str:
    """Return a state's name in its colour, as markup."""
    colour = {"done": "green", "failed": "red", "running": "cyan", "stopped": "yellow"}.get(name)
    return f"[{colour}]{name}[/]" if colour else name


def next_commands(commands: dict[str, str]) -> None:
    """Print commands that one may type next, with what each does."""
    for command, what in commands.items():
        stdout.print(f"{command}   # {what}", markup=False, soft_wrap=True)


T = TypeVar("T")


def track(items: Sequence[T], what: str) -> Iterable[T]:
    """Yield items, with a progress bar when going through them takes a while."""
    if not is_live():
        return items
    return rich_track(items, what, console=stderr, transient=True)
