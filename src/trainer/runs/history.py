"""How a run came to be what it is: stretches of steps, each under settings of its own. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.checkpoints import manifest
from trainer.config import secrets as redact
from trainer.config.settings import Settings, check
from trainer.errors import UsageError, refusal
from trainer.runs.directory import RunDirectory

_ENDED = ("done", "stopped", "failed")


class NothingYet(UsageError):
    """A run has saved nothing that could be compared."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a run under the same settings.

    Args:
        settings: Its configuration.
        segments: The starts that made it, as status.json describes them.
    """

    settings: Settings
    segments: list[dict[str, Any]]

    @property
    def first_step(self) -> int:
        """Steps that were finished before it."""
        return int(self.segments[0]["from_step"])


@dataclass(frozen=True)
class History:
    """How a run came to be what it is.

    Args:
        rundir: The run.
        status: What its status.json says.
        legs: Its stretches, one for each change of settings; what a later start has taken back is left out.
        end: How many steps can be compared: of a run that was interrupted, those up to its last checkpoint.
    """

    rundir: RunDirectory
    status: dict[str, Any]
    legs: list[Segment]
    end: int

    @property
    def has_ended(self) -> bool:
        """Whether nothing follows that was never saved."""
        return self.status.get("state") in _ENDED

    @property
    def failure(self) -> str | None:
        """What it failed for."""
        return self.status.get("error") if self.status.get("state") == "failed" else None


def course(rundir: RunDirectory, config: dict[str, Any], secrets: dict[str, Any]) -> History:
    """Read how a run came about.

    Args:
        rundir: The run.
        config: Its configuration now.
        secrets: What its directory does not hold, by dotted key.

    Raises:
        NothingYet: There is nothing to compare.
        UsageError: It does not say how it began.
    """
    status = rundir.read_status()
    ended = status.get("state") in _ENDED
    end = int(status.get("step", 0)) if ended else max(manifest.steps(rundir.checkpoints), default=0)
    if not status.get("segments") or (end == 0 and status.get("state") != "failed"):
        raise NothingYet(f"{rundir.path} has saved nothing yet that could be compared")
    legs: list[Segment] = []
    for segment, own in _configured(status.get("segments", []), config):
        filled = redact.filled(own, secrets)
        redact.require_given(filled)
        settings = check(filled)
        if legs and legs[-1].settings == settings:
            legs[-1].segments.append(segment)
        else:
            legs.append(Segment(settings, [segment]))
    if not legs or legs[0].first_step != 0:
        raise refusal(str(rundir.path / "status.json"), "does not say how the run began")
    return History(rundir, status, legs, end)


def _configured(segments: list[dict[str, Any]], config: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the segments that count, each with its configuration: the one it holds, or else that of the next."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for segment in reversed(segments):
        config = segment.get("config", config)
        if "from_step" in segment and (not found or segment["from_step"] < found[-1][0]["from_step"]):
            found.append((segment, config))
    return found[::-1]
