"""Opens a run for a command: found, its settings checked, its modules known, its files unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from trainer.checkpoints import manifest
from trainer.checkpoints.manifest import BadCheckpoint, NewerFormat
from trainer.config.settings import Settings, check
from trainer.errors import refusal
from trainer.files import fingerprint
from trainer.runs import directory, find, user_code, vouching
from trainer.runs.directory import RunDirectory


def require_same_files(rundirs: Sequence[RunDirectory], command: str) -> None:
    """Refuse runs whose data came from a file that has changed since.

    Raises:
        UsageError: There is one; names it and the whole command to type.
    """
    unfinished = [status for status in (rundir.read_status() for rundir in rundirs) if status.get("state") != "done"]
    for status in unfinished or [rundir.read_status() for rundir in rundirs]:
        for path in fingerprint.changed(status.get("data", {}).get("files", {})):
            reason = "has changed since the run started, so it would learn from other data"
            raise refusal(path, reason, f"`{command} --allow-data-change`, or a new run")


def require_unedited(rundir: RunDirectory, rows: bool = True) -> None:
    """Refuse a run whose files are not those that it has had, as far as its newest checkpoint says.

    Args:
        rundir: The run.
        rows: Whether metrics.jsonl matters.

    Raises:
        UsageError: There is such a file.
    """
    saved = manifest.steps(rundir.checkpoints)
    with suppress(BadCheckpoint, NewerFormat):  # which one is good is found out when it goes on
        newest = rundir.checkpoints / manifest.name_of(saved[-1]) if saved else None
        vouching.require_resumable(rundir, newest, rows=rows)


def open_run(word: str, flags: Mapping[str, str], command: str) -> tuple[RunDirectory, Settings]:
    """Find a run whose model is to be used, and let its modules be imported if they are known.

    Args:
        word: What the user typed for it.
        flags: Those of the command: whether to trust the code that came with it, or to take modules as they are now.
        command: The whole command, to be typed again with a flag.

    Raises:
        UsageError: There is no such run, or it would import code that may be somebody else's.
    """
    path = find.find(word)
    if directory.is_sweep(path):
        jobs = [RunDirectory(job).short for job in directory.jobs(path)]
        raise refusal(word, f"is a sweep of {len(jobs)} jobs", [f"{RunDirectory(path).short}/best", *jobs[:8]])
    rundir = RunDirectory(path)
    config = rundir.read_config()
    settings = check(config)
    user_code.open_code({rundir: config}, command, "trust_code" in flags, "force" in flags)
    return rundir, settings
