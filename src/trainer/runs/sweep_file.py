"""sweep.json: what a sweep varies, its jobs and what launches them. Without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, cast

from trainer.errors import UsageError
from trainer.files.json_fields import Fields
from trainer.files.plain_json import has_shape
from trainer.runs import directory

FORMAT = 1


class Launcher(TypedDict):
    """What a sweep was launched with."""

    name: str
    overrides: list[str]
    config_dirs: list[str]


class Sweep(TypedDict):
    """What sweep.json holds."""

    format: int
    name: str | None
    command: str
    launcher: Launcher
    swept: list[str]
    jobs: list[str]


def read(path: Path) -> Sweep:
    """Return the sweep.json of a directory.

    Raises:
        UsageError: It can't be read, is of a later version, or names other jobs than those that are there.
    """
    file = path / "sweep.json"
    try:
        sweep = dict(Fields(file, Sweep))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} can't be read: {error}") from error
    if not has_shape(Sweep)(sweep):
        raise UsageError(f"{file} does not hold what it must")
    if sweep["format"] != FORMAT:
        what = f"has format {sweep['format']}, and this version reads {FORMAT}"
        raise UsageError(f"{file} {what}; use the version that wrote it")
    if lacking := sorted({*sweep["jobs"]} - {folder.name for folder in directory.jobs(path)}):
        raise UsageError(f"{file} names jobs that are not there: {', '.join(lacking[:5])}")
    if sweep["jobs"] != (there := [folder.name for folder in directory.jobs(path)]):
        raise UsageError(f"{file} does not name the jobs that are there, each once: {', '.join(there[:5])}")
    return cast(Sweep, sweep)


def launcher_of(job: Path) -> str | None:
    """Return the name of the launcher of a job's sweep, None for a run that is no job of one."""
    try:
        return read(job.parent)["launcher"]["name"]
    except UsageError:
        return None
