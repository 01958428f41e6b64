"""Trains a written run before the user's eyes: what it is, how it goes, how it ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from trainer.analysis import failure
from trainer.errors import RunFailed
from trainer.runs.directory import RunDir
from trainer.session.log_file import log
from trainer.session.stopping import Stopping
from trainer.session.train import Outcome, train
from trainer.terminal import screen
from trainer.terminal.progress import Display, NoDisplay, Standing
from trainer.training.build import Built


@dataclass(frozen=True)
class Begun:
    """A run that is written and about to be trained.

    Args:
        rundir: Its directory.
        built: Its parts.
        open_screen: Prints what is about to be trained, once nothing can be refused any more.
    """

    rundir: RunDir
    built: Built
    open_screen: Callable[[Standing], None]


def follow(
    begun: Begun,
    command: str,
    overrides: list[str],
    force: bool = False,
    stopping: Stopping | None = None,
    quiet: bool = False,
) -> Outcome:
    """Train a written run on the screen, to its summary.

    Args:
        begun: The run.
        command: What the user typed, for the record.
        overrides: The settings that the user typed, for the record.
        force: Start over if there should be a good checkpoint and is none.
        stopping: What asks it to stop; by default a signal.
        quiet: Show nothing.

    Raises:
        RunFailed: Training met something it can't go on from; its notes say where the run is and what one may do.
    """

    def show(standing: Standing) -> Display:
        if quiet:
            return NoDisplay()
        begun.open_screen(standing)
        return screen.progress(standing)

    announce = log.info if quiet else screen.note
    try:
        outcome = train(begun.rundir, begun.built, command, overrides, show, announce, force, stopping)
    except RunFailed as error:
        with suppress(KeyboardInterrupt), nullcontext() if quiet else screen.busy("finding out why it failed"):
            failure.find_out(begun.rundir, begun.built.settings, begun.built.choices, command, begun.built)
        if begun.rundir.exists:
            error.add_note(screen.failure(begun.rundir))
        raise
    if not quiet:
        screen.summary(outcome, begun.rundir)
    return outcome
