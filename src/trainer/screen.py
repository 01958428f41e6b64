"""What commands print around the training: the header, remarks, and the summary with what to type next."""

from __future__ import annotations

from rich.console import Console

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
