"""Writes a new run, and trains a run on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.analysis import failure
from trainer.errors import RunFailed
from trainer.runs import trust_list
from trainer.session.display import Display, NoDisplay, Standing
from trainer.session.log_file import log
from trainer.session.prepare import plan_of, prepare
from trainer.session.session import Request, Session
from trainer.session.train import Outcome, train
from trainer.terminal import run_screen, screen

if TYPE_CHECKING:
    from trainer.config.compose import JobConfig


def begin(job: JobConfig, path: Path, request: Request, objects: Mapping[str, Any] | None = None) -> Session:
    """Check and write a new run.

    Args:
        job: Its configuration.
        path: Its directory.
        request: What the user typed.
        objects: Parts passed as Python objects, by group.

    Raises:
        UsageError: A setting is wrong; nothing has been created.
    """
    built = prepare(job.settings, job.choices, objects, job.asked)
    plan = plan_of(built, {"choices": job.choices})
    notes = [*job.notes, *trust_list.remarks([plan.own_code.digest] if plan.own_code else [])]
    rundir = plan.write(path)

    def show(standing: Standing) -> Display:
        run_screen.header(built, {**job.choices, **built.choices}, rundir)
        for note in notes:
            screen.note(note)
        return run_screen.progress(standing)

    return Session(rundir, built, request, show, screen.note)


def follow(session: Session, quiet: bool = False) -> Outcome:
    """Train a run on the screen and print its summary.

    Args:
        session: The run.
        quiet: Whether to show nothing.

    Raises:
        RunFailed: Training can't continue; the notes of the error name the run and suggest what to do.
    """
    if quiet:
        session = replace(session, show=NoDisplay, announce=log.info)
    try:
        outcome = train(session)
    except RunFailed as error:
        rundir, built = session.rundir, session.built
        with suppress(KeyboardInterrupt), nullcontext() if quiet else screen.busy("finding out why it failed"):
            failure.find_out(rundir, built.settings, built.choices, session.request.command, built)
        if rundir.exists:
            error.add_note(run_screen.failure(rundir))
        raise
    if not quiet:
        run_screen.summary(outcome, session.rundir)
    return outcome
