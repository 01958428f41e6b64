"""`trainer run`: composes the configuration, trains one job, or hands a sweep on."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from trainer import words as command_line

if TYPE_CHECKING:
    from trainer.config import Job

HELP = """Usage: trainer run [GROUP=OPTION ...] [KEY=VALUE ...] [-m] [--dry-run]

Trains one model; with -m, one for each combination of the comma lists.
"""


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = command_line.split(argv)
    if "help" in words.flags:
        sys.stdout.write(HELP)
        return 0
    catalog = words.catalog()
    choices = command_line.jobs(words, catalog)
    from trainer.config import compose_jobs

    jobs = compose_jobs(choices, catalog)
    command = shlex.join(["trainer", "run", *argv])
    return run_one(jobs[0], command, words.overrides)


def run_one(job: Job, command: str, overrides: list[str]) -> int:
    from trainer import screen
    from trainer.job import create, prepare, train
    from trainer.rundir import new_path

    path = new_path(job.settings.run_dir)
    built = prepare(job.settings, job.choices)
    rundir = create(built, path, {"choices": job.choices})
    screen.header(built, job.choices, rundir)
    for note in (*job.notes, *built.notes):
        screen.note(note)
    outcome = train(rundir, built, command, overrides, screen.progress, screen.note)
    screen.summary(outcome, rundir)
    return outcome.exit_code
