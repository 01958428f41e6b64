"""Opens a run for a command: finds it and checks its settings, its code and its files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from trainer.checkpoints import manifest
from trainer.checkpoints.manifest import BadCheckpoint, NewerFormat
from trainer.config.settings import Settings, check
from trainer.errors import refusal
from trainer.files import fingerprint
from trainer.runs import directory, find, user_code, vouching
from trainer.runs.directory import RunDirectory
from trainer.runs.user_code import Opened


def require_same_files(rundirs: Sequence[RunDirectory], command: str, left: Collection[str] = ()) -> None:
    """Refuse runs whose data files have changed, except for paths in `left`, which are not read any more.

    Raises:
        UsageError: A file has changed; the message names it and the command with the flag that allows it.
    """
    statuses = [rundir.read_status() for rundir in rundirs]
    for status in [one for one in statuses if one.get("state") != "done"] or statuses:
        files = status.get("data", {}).get("files", {})
        for path in fingerprint.changed({path: sums for path, sums in files.items() if path not in left}):
            reason = "has changed since the run started, so training would continue on different data"
            raise refusal(path, reason, f"`{command} --allow-data-change`, or a new run")


def require_unedited(rundir: RunDirectory, rows: bool = True) -> None:
    """Refuse a run whose files have been edited since its newest checkpoint.

    Args:
        rundir: The run.
        rows: Whether metrics.jsonl matters.

    Raises:
        UsageError: A file has been edited; the message names it and a way out.
    """
    saved = manifest.steps(rundir.checkpoints)
    with suppress(BadCheckpoint, NewerFormat):  # resuming finds the newest good checkpoint
        newest = rundir.checkpoints / manifest.name_of(saved[-1]) if saved else None
        vouching.require_resumable(rundir, newest, rows=rows)


def open_runs(
    rundirs: Iterable[RunDirectory], command: str, trust: bool = False, force: bool = False, typed: Iterable[str] = ()
) -> tuple[list[Settings], Opened]:
    """Return the settings of runs, and allow their custom code to be imported; arguments as for `open_code`.

    Raises:
        UsageError: The settings of a run are invalid, or its code is not trusted.
    """
    configs = {rundir: rundir.read_config() for rundir in rundirs}
    settings = [check(config) for config in configs.values()]
    return settings, user_code.open_code(configs, command, trust, force, typed)


def open_run(
    word: str, flags: Mapping[str, str], command: str, warn: Callable[[str], None]
) -> tuple[RunDirectory, Settings]:
    """Find a run to use its model, and let its modules be imported if they are trusted.

    Args:
        word: The word that the user typed for the run.
        flags: The flags of the command; only trust_code and force are used.
        command: The whole command, to be typed again with a flag.
        warn: Called with a line for each module that has changed since the run and is used as it is now.

    Raises:
        UsageError: There is no such run, or its code is not trusted.
    """
    rundir = directory.require_run(find.find(word), word)
    (settings,), opened = open_runs([rundir], command, "trust_code" in flags, "force" in flags)
    for module in opened.changed:
        warn(f"warning: {module} differs from the copy that the run keeps: results may differ from those of the run")
    return rundir, settings
