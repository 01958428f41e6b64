"""The history of a run: segments of steps, each trained with different settings. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.checkpoints import manifest
from trainer.config import secrets as redact
from trainer.config.settings import Settings, check
from trainer.errors import UsageError, refusal
from trainer.runs import moved_files
from trainer.runs.directory import RunDirectory

_ENDED = ("done", "stopped", "failed")


class NothingYet(UsageError):
    """A run has saved nothing that can be compared."""


@dataclass(frozen=True)
class Segment:
    """The steps that a run trained with the same settings.

    Args:
        settings: The settings.
        segments: The starts that trained these steps, as recorded in status.json.
    """

    settings: Settings
    segments: list[dict[str, Any]]

    @property
    def first_step(self) -> int:
        """The number of steps finished before this segment."""
        return int(self.segments[0]["from_step"])


@dataclass(frozen=True)
class History:
    """The history of a run.

    Args:
        rundir: The run.
        status: The content of its status.json.
        legs: Its segments, one for each change of settings, without steps that a later start discarded.
        end: The number of steps that can be compared; for an interrupted run, those up to its last checkpoint.
    """

    rundir: RunDirectory
    status: dict[str, Any]
    legs: list[Segment]
    end: int

    @property
    def has_ended(self) -> bool:
        """Whether the run ended, so that all of its steps were saved."""
        return self.status.get("state") in _ENDED

    @property
    def failure(self) -> str | None:
        """The error that ended the run."""
        return self.status.get("error") if self.status.get("state") == "failed" else None


def course(rundir: RunDirectory, config: dict[str, Any], secrets: dict[str, Any]) -> History:
    """Read the history of a run.

    Args:
        rundir: The run.
        config: Its current configuration.
        secrets: The values that are not stored with the run, by dotted key.

    Raises:
        NothingYet: There is nothing to compare.
        UsageError: status.json does not record how the run began.
    """
    status = rundir.read_status()
    ended = status.get("state") in _ENDED
    end = int(status.get("step", 0)) if ended else max(manifest.steps(rundir.checkpoints), default=0)
    if not status.get("segments") or (end == 0 and status.get("state") != "failed"):
        raise NothingYet(f"{rundir.path} has saved nothing yet that can be compared")
    legs: list[Segment] = []
    recorded, stored = status.get("data", {}).get("files", {}), rundir.read_config().get("data", {})
    for segment, own in _configured(status.get("segments", []), config):
        files = segment.get("files", {})
        if "data" in own and "data" in config:
            own = {**own, "data": moved_files.followed(own["data"], files, stored, config["data"], recorded)}
        filled = redact.filled(own, secrets)
        redact.require_given(filled)
        settings = check(filled)
        if legs and legs[-1].settings == settings:
            legs[-1].segments.append(segment)
        else:
            legs.append(Segment(settings, [segment]))
    if not legs or legs[0].first_step != 0:
        raise refusal(str(rundir.path / "status.json"), "does not record how the run began")
    return History(rundir, status, legs, end)


def _configured(segments: list[dict[str, Any]], config: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the starts whose steps were kept, each with its configuration; by default that of the next start."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for segment in reversed(segments):
        config = segment.get("config", config)
        if "from_step" in segment and (not found or segment["from_step"] < found[-1][0]["from_step"]):
            found.append((segment, config))
    return found[::-1]
