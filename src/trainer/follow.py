"""Trains a written run before the user's eyes: what it is, how it goes, how it ended."""

from __future__ import annotations

from collections.abc import Callable

from trainer import screen
from trainer.build import Built
from trainer.errors import RunFailed
from trainer.job import train
from trainer.progress import Display, Standing
from trainer.rundir import RunDir


def follow(
    rundir: RunDir,
    built: Built,
    command: str,
    overrides: list[str],
    open_with: Callable[[Standing], None],
    force: bool = False,
) -> int:
    """Train a written run on the screen, to its summary, and return the exit code.

    Args:
        rundir: The run's directory.
        built: Its parts.
        command: What the user typed, for the record.
        overrides: The settings that the user typed, for the record.
        open_with: Prints what is about to be trained, once nothing can be refused any more.
        force: Start over if there should be a good checkpoint and is none.
    """

    def show(standing: Standing) -> Display:
        open_with(standing)
        return screen.progress(standing)

    try:
        outcome = train(rundir, built, command, overrides, show, screen.note, force)
    except RunFailed as error:
        if rundir.exists:
            error.add_note(screen.failure(error, rundir))
        raise
    screen.summary(outcome, rundir)
    return outcome.exit_code
