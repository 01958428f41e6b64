"""Reads sweep.json: the swept keys, the jobs and the launcher. Without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, cast

from trainer.errors import UsageError
from trainer.files.json_fields import Fields
from trainer.files.plain_json import has_shape
from trainer.runs import directory

FORMAT = 1


class Launcher(TypedDict):
    """The launcher of a sweep."""

    name: str
    overrides: list[str]
    config_dirs: list[str]


class OldSweep(TypedDict):
    """The content of a sweep.json that an older version wrote."""

    format: int
    name: str | None
    command: str
    launcher: Launcher
    swept: list[str]
    jobs: list[str]


class Sweep(OldSweep, total=False):
    """The content of sweep.json."""

    created: str


def read(path: Path) -> Sweep:
    """Return the sweep.json of a directory.

    Raises:
        UsageError: It can't be read, is of a later version, or its jobs are not those in the directory.
    """
    file = path / "sweep.json"
    try:
        sweep = dict(Fields(file, Sweep))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} can't be read: {error}") from error
    if not has_shape(Sweep)(sweep):
        raise UsageError(f"{file} lacks required fields or has fields of the wrong type")
    if sweep["format"] != FORMAT:
        what = f"has format {sweep['format']}, but this version reads {FORMAT}"
        raise UsageError(f"{file} {what}; use the version that wrote it")
    there = [folder.name for folder in directory.jobs(path)]
    if lacking := sorted({*sweep["jobs"]} - {*there}):
        raise UsageError(f"{file} names jobs that do not exist: {', '.join(lacking[:5])}")
    if sweep["jobs"] != there:
        raise UsageError(f"{file} does not name each existing job once: {', '.join(there[:5])}")
    return cast(Sweep, sweep)


def launcher_of(job: Path) -> str | None:
    """Return the name of the launcher of a job's sweep, None for a run outside a sweep."""
    try:
        return read(job.parent)["launcher"]["name"]
    except UsageError:
        return None
