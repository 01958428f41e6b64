"""`trainer resume --dry-run`: shows what a resume would change, continue from and cost; writes and locks nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config.settings import Change
from trainer.errors import UsageError
from trainer.launch.dry_run import seconds_per_step
from trainer.launch.resume import Continuation
from trainer.session.restore import put_at_newest
from trainer.terminal import run_screen, screen
from trainer.text import count, duration
from trainer.training.monitor import idle

_NOTHING = "nothing was written"


@dataclass(frozen=True)
class Ahead:
    """What a resume would do.

    Args:
        state: The state of the run.
        first: The step it would continue from.
        steps: The step it would end at.
        seconds: How long that would take, about.
        changes: The changed settings.
        notes: What the resume would say.
    """

    state: str
    first: int
    steps: int
    seconds: float
    changes: Sequence[Change]
    notes: Sequence[str]

    @property
    def left(self) -> int:
        """The number of steps it would take."""
        return max(self.steps - self.first, 0)


def look(continued: Continuation) -> Ahead:
    """Build a run that could be resumed, put it at its newest good checkpoint, and measure some steps.

    Raises:
        UsageError: It can't be resumed in this way.
    """
    status = continued.status
    state = str(status.get("state", "unknown"))
    state = "running or interrupted" if state == "running" else state  # the lock, which is left alone, would tell
    if continued.is_complete:
        return Ahead(state, status.get("step", 0), status.get("steps", 0), 0.0, [], [])
    notes: list[str] = []
    built = continued.build()
    _, damaged = put_at_newest(built, continued.rundir, notes.append, continued.request.force)
    notes += [f"the checkpoint of step {step:,} would be set aside" for step in damaged]
    notes += [f"warning: {text}" for text in (*built.data.warnings, *idle(built.run, built.names["schedule"]))]
    first, steps = built.run.state.step, built.run.steps
    seconds = (steps - first) * seconds_per_step(built) if steps > first else 0.0
    return Ahead(state, first, steps, seconds, continued.changes, notes)


def show(continued: Continuation) -> int:
    """Print what resuming a run would do, and return the exit code.

    Raises:
        UsageError: It can't be resumed in this way.
    """
    if continued.is_complete:
        run_screen.complete(continued.rundir)
        return 0
    with screen.busy("measuring"):
        ahead = look(continued)
    screen.say(f"{continued.rundir.path}, {ahead.state} at step {continued.status.get('step', 0):,}, would continue:")
    screen.rows(
        {
            "from": f"step {ahead.first:,}",
            "to": f"step {ahead.steps:,}",
            "left": f"{count(ahead.left, 'step')}, about {duration(ahead.seconds)}",
            **run_screen.changed(ahead.changes),
        }
    )
    screen.say(_NOTHING)
    for note in ahead.notes:
        screen.note(note)
    return 0


def show_sweep(
    path: Path, folders: Sequence[Path], swept: Sequence[str], continued: Callable[[Path], Continuation]
) -> int:
    """Print what resuming a sweep would do with each job, and return the exit code.

    Args:
        path: The directory of the sweep.
        folders: The directories of its jobs.
        swept: The keys of the swept settings.
        continued: Returns a job that could be resumed.

    Raises:
        UsageError: A job can't be resumed in this way.
    """
    found, lines = [], []
    for folder in screen.track(folders, "measuring"):
        try:
            job = continued(folder)
            one = look(job)
        except UsageError as error:
            raise error.within(f"job {folder.name}") from error
        values = [(job.status.get("swept") or {}).get(key, "") for key in swept]
        numbers = [f"{one.first:,}", f"{one.steps:,}", f"{one.left:,}", duration(one.seconds)]
        lines.append([folder.name, *values, one.state, *numbers])
        found.append(one)
    words = ("job", *swept, "state")
    screen.table(screen.columns(words, ("from step", "to step", "left", "about"), lines, unbroken=("job",)))
    screen.rows(run_screen.changed([change for one in found for change in one.changes]))
    seconds = sum(one.seconds for one in found)
    jobs = count(sum(one.left > 0 for one in found), "job")
    screen.say(f"{path}: {jobs} would continue, about {duration(seconds)} one after the other; {_NOTHING}")
    for note in dict.fromkeys(note for one in found for note in one.notes):
        screen.note(note)
    return 0
