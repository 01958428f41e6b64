"""Summaries of runs, read from status.json. Without torch."""

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
    """A run, summarized from its status.json."""

    path: Path
    state: str
    status: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of its directory: an id, or the number of a job."""
        return self.path.name

    @property
    def short(self) -> str:
        """The short name that a user types for it."""
        return RunDirectory(self.path).short

    @property
    def swept(self) -> Mapping[str, str]:
        """The values that its sweep set."""
        return self.status.get("swept") or {}

    @property
    def step(self) -> int:
        """The number of finished steps."""
        return int(self.status.get("step", 0))

    @property
    def steps(self) -> int:
        """The number of steps to train."""
        return int(self.status.get("steps", 0))

    @cached_property
    def metrics(self) -> Mapping[str, float | None]:
        """The latest loss and the latest evaluation."""
        return self.status.get("metrics") or {}

    @cached_property
    def best(self) -> Mapping[str, Any] | None:
        """The best evaluation."""
        return self.status.get("best")

    @property
    def error(self) -> str | None:
        """The error that ended it."""
        return self.status.get("error")

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Its configuration."""
        return self.status.get("config") or {}

    @cached_property
    def choices(self) -> Mapping[str, str]:
        """The option selected in each group."""
        return self.status.get("choices") or {}

    @property
    def segments(self) -> Sequence[Mapping[str, Any]]:
        """Its first start and each resume."""
        return self.status.get("segments") or []

    def to_dict(self) -> dict[str, Any]:
        """Return everything known about it as plain data."""
        return {"run": self.short, "path": str(self.path), **self.status, "state": self.state}


def entry(path: Path) -> RunSummary:
    """Read the run in a directory; a running run whose lock no process holds was interrupted."""
    rundir = RunDirectory(path)
    status = rundir.status_as_needed()
    state = status.get("state", "unreadable")
    return RunSummary(path, "interrupted" if state == "running" and not rundir.is_held() else state, status)


def entries(folders: Iterable[Path]) -> list[RunSummary]:
    """Read the runs in directories, and every job of the sweeps."""
    found = []
    with garbage.uncollected():
        for folder in folders:
            found += [entry(job) for job in jobs(folder)] if is_sweep(folder) else [entry(folder)]
    return found


def typed(status: Mapping[str, Any]) -> dict[str, str]:
    """Return the overrides that started a run, by key, without those that can't be reused."""
    segments = status.get("segments") or [{}]
    words = dict(word.lstrip("+").partition("=")[::2] for word in segments[0].get("overrides", ()))
    words.update(status.get("swept") or {})
    return {key: value for key, value in words.items() if may_be_typed(key, value)}


def may_be_typed(key: str, value: str) -> bool:
    """Return whether an override from a status.json, which may be untrusted, is a setting that is safe to use."""
    root = key.partition(".")[0]
    harmless = root in (*GROUPS, *Settings.__dataclass_fields__) and not key.endswith("_target_") and value != MARK
    return harmless and key not in ("run_dir", "resume")
