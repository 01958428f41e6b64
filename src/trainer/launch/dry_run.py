"""`trainer run --dry-run`: shows the jobs that would run, their sizes, and how long they would take."""

from __future__ import annotations

import time
from collections.abc import Sequence

from trainer.config import secrets
from trainer.config.arguments import Choice
from trainer.config.compose import JobConfig
from trainer.errors import RunFailed
from trainer.session.prepare import prepare
from trainer.terminal import screen
from trainer.text import duration
from trainer.training.build import Built
from trainer.training.loop import fit
from trainer.training.monitor import idle
from trainer.training.parameters import num_parameters

MEASURED_SECONDS = 0.2
_MEASURED_STEPS = 50


def show(jobs: Sequence[JobConfig], choices: Sequence[Choice]) -> int:
    """Check every job, measure a few of its steps and print a table; nothing is created."""
    keys = list(choices[0].swept) or ["model", "data", "loss", "optim"]
    lines, total, warnings = [], 0.0, dict[str, None]()
    for index, (job, choice) in enumerate(zip(screen.track(jobs, "measuring"), choices, strict=True)):
        built = prepare(job.settings, job.choices, asked=job.asked)
        steps, rows = built.run.steps, built.run.batches.rows
        warnings |= dict.fromkeys(idle(built.run, built.names["schedule"]))
        seconds = steps * seconds_per_step(built)
        total += seconds
        chosen = {**job.choices, **built.choices}
        cells = [f"{index:03d}", *(secrets.tree(choice.swept).get(key) or chosen[key] for key in keys)]
        lines.append([*cells, f"{num_parameters(built.run):,}", f"{rows:,}", f"{steps:,}", duration(seconds)])
    screen.table(screen.columns(("job", *keys), ("parameters", "rows", "steps", "about"), lines, unbroken=("job",)))
    if len(jobs) > 1:
        screen.say(f"{len(jobs):,} jobs, about {duration(total)} one after the other; nothing was created")
    else:
        screen.rows(built.data.described())
        screen.say("nothing was created")
    for warning in (*built.data.warnings, *warnings):
        screen.note(f"warning: {warning}")
    for note in dict.fromkeys(note for job in jobs for note in job.notes):
        screen.note(note)
    return 0


def seconds_per_step(built: Built) -> float:
    """Return the seconds per step of a run, measured on some steps; the run can't be used afterwards."""
    run = built.run
    end, first = time.perf_counter() + MEASURED_SECONDS, run.state.step
    run.steps, run.max_divergence = min(run.steps, first + _MEASURED_STEPS), float("inf")
    start = time.perf_counter()
    try:
        fit(run, stopping=lambda: time.perf_counter() > end)
    except RunFailed as error:
        screen.note(f"warning: {error}")
    return (time.perf_counter() - start) / max(run.state.step - first, 1)
