"""A run as its status.json tells it. Without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trainer.config.catalog import GROUPS
from trainer.config.secrets import MARK
from trainer.config.settings import Settings
from trainer.files import garbage
from trainer.runs.directory import RunDirectory, is_sweep, jobs


@dataclass(frozen=True)
class RunSummary:
    """A run as its status.json tells it."""

    path: Path
    state: str
    status: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of its directory: an id, or the number of a job."""
        return self.path.name

    @property
    def short(self) -> str:
        """What one types to mean it."""
        return RunDirectory(self.path).short

    @property
    def swept(self) -> Mapping[str, str]:
        """What a sweep set in it."""
        return self.status.get("swept") or {}

    @property
    def step(self) -> int:
        """Finished steps."""
        return int(self.status.get("step", 0))

    @property
    def steps(self) -> int:
        """Steps that it is to take."""
        return int(self.status.get("steps", 0))

    @cached_property
    def metrics(self) -> Mapping[str, float | None]:
        """The newest loss and the newest evaluation."""
        return self.status.get("metrics") or {}

    @cached_property
    def best(self) -> Mapping[str, Any] | None:
        """The best evaluation."""
        return self.status.get("best")

    @property
    def error(self) -> str | None:
        """What it failed for."""
        return self.status.get("error")

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Its settings."""
        return self.status.get("config") or {}

    @cached_property
    def choices(self) -> Mapping[str, str]:
        """What the groups select."""
        return self.status.get("choices") or {}

    @property
    def segments(self) -> Sequence[Mapping[str, Any]]:
        """Its starts: the first one and each resume."""
        return self.status.get("segments") or []

    def to_dict(self) -> dict[str, Any]:
        """Return all that is known of it as plain data."""
        return {"run": self.short, "path": str(self.path), **self.status, "state": self.state}


def entry(path: Path) -> RunSummary:
    """Read the run in a directory; one that nobody trains any more and that has not ended was interrupted."""
    rundir = RunDirectory(path)
    status = rundir.status_as_needed()
    state = status.get("state", "unreadable")
    return RunSummary(path, "interrupted" if state == "running" and not rundir.is_held() else state, status)


def entries(folders: Iterable[Path]) -> list[RunSummary]:
    """Read the runs in directories, and of sweeps every job."""
    found = []
    with garbage.uncollected():
        for folder in folders:
            found += [entry(job) for job in jobs(folder)] if is_sweep(folder) else [entry(folder)]
    return found


def typed(status: Mapping[str, Any]) -> dict[str, str]:
    """Return the words that a run was started with, by key, without those that would be refused a second time."""
    segments = status.get("segments") or [{}]
    words = dict(word.lstrip("+").partition("=")[::2] for word in segments[0].get("overrides", ()))
    words.update(status.get("swept") or {})
    return {key: value for key, value in words.items() if may_be_typed(key, value)}


def may_be_typed(key: str, value: str) -> bool:
    """Say whether a word of a status.json, which somebody else may have written, is a setting that does no harm."""
    root = key.partition(".")[0]
    harmless = root in (*GROUPS, *Settings.__dataclass_fields__) and not key.endswith("_target_") and value != MARK
    return harmless and key not in ("run_dir", "resume")
