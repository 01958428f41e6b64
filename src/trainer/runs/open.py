"""Opens a run for a command: found, its settings checked, its modules known, its files unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

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


class OpenedRun(NamedTuple):
    """A run whose modules may be imported.

    Args:
        rundir: The directory of the run.
        settings: The settings of the run.
        changed: The files of modules that have changed since the run and are used as they are now.
    """

    rundir: RunDirectory
    settings: Settings
    changed: list[str]


def open_run(word: str, flags: Mapping[str, str], command: str) -> OpenedRun:
    """Find a run to use its model, and let its modules be imported if they are trusted.

    Args:
        word: The word that the user typed for the run.
        flags: The flags of the command; trust_code and force matter.
        command: The whole command, to be typed again with a flag.

    Raises:
        UsageError: There is no such run, or its code is not trusted.
    """
    path = find.find(word)
    if directory.is_sweep(path):
        jobs = [RunDirectory(job).short for job in directory.jobs(path)]
        raise refusal(word, f"is a sweep of {len(jobs)} jobs", [f"{RunDirectory(path).short}/best", *jobs[:8]])
    rundir = RunDirectory(path)
    (settings,), changed = open_runs({rundir: rundir.read_config()}, flags, command)
    return OpenedRun(rundir, settings, changed)


def open_runs(
    configs: Mapping[RunDirectory, dict[str, Any]], flags: Mapping[str, str], command: str
) -> tuple[list[Settings], list[str]]:
    """Let the modules of runs be imported if they are trusted; return the settings of each and the changed modules.

    Args:
        configs: The configuration of each run.
        flags: The flags of the command; trust_code and force matter.
        command: The whole command, to be typed again with a flag.

    Raises:
        UsageError: The settings of a run are invalid, or its code is not trusted.
    """
    settings = [check(config) for config in configs.values()]
    opened = user_code.open_code(configs, command, "trust_code" in flags, "force" in flags)
    return settings, opened.changed
