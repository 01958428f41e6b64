"""Writes a new run and trains it before the user's eyes: what it is, how it goes, how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.analysis import failure
from trainer.errors import RunFailed
from trainer.runs import trust_list
from trainer.runs.directory import RunDirectory
from trainer.session.display import Display, NoDisplay, Standing
from trainer.session.log_file import log
from trainer.session.prepare import plan_of, prepare
from trainer.session.stopping import Stopping
from trainer.session.train import Outcome, train
from trainer.terminal import run_screen, screen
from trainer.training.build import Built

if TYPE_CHECKING:
    from trainer.config.compose import JobConfig


@dataclass(frozen=True)
class Begun:
    """A run that is written and about to be trained.

    Args:
        rundir: Its directory.
        built: Its parts.
        open_screen: Prints what is about to be trained, once nothing can be refused any more.
    """

    rundir: RunDirectory
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
        return run_screen.progress(standing)

    announce = log.info if quiet else screen.note
    try:
        outcome = train(begun.rundir, begun.built, command, overrides, show, announce, force, stopping)
    except RunFailed as error:
        with suppress(KeyboardInterrupt), nullcontext() if quiet else screen.busy("finding out why it failed"):
            failure.find_out(begun.rundir, begun.built.settings, begun.built.choices, command, begun.built)
        if begun.rundir.exists:
            error.add_note(run_screen.failure(begun.rundir))
        raise
    if not quiet:
        run_screen.summary(outcome, begun.rundir)
    return outcome


def begin(job: JobConfig, path: Path, objects: Mapping[str, Any] | None = None) -> Begun:
    """Check and write one job.

    Args:
        job: Its configuration.
        path: Its directory.
        objects: Parts that are there already, by group.
    """

    built = prepare(job.settings, job.choices, objects, job.asked)
    plan = plan_of(built, {"choices": job.choices})
    notes = [*job.notes, *trust_list.remarks([plan.own_code.digest] if plan.own_code else [])]
    rundir = plan.write(path)

    def open_screen(standing: Standing) -> None:
        run_screen.header(built, {**job.choices, **built.choices}, rundir)
        for note in notes:
            screen.note(note)

    return Begun(rundir, built, open_screen)
