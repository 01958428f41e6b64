"""Trains one job of a sweep, without a display."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from trainer.config import secrets as redact
from trainer.config.settings import Settings, check
from trainer.errors import TrainerError
from trainer.runs import own_modules, user_code
from trainer.runs.directory import InUse, RunDirectory
from trainer.session.prepare import rebuild
from trainer.session.session import SECONDS, Request, Session
from trainer.session.stopping import BrokenOff, Stopping
from trainer.session.train import training
from trainer.training.build import Built
from trainer.training.loop import Learner, Taken, driven


@dataclass(frozen=True)
class Job:
    """A job of a sweep, waiting in its directory.

    Args:
        rundir: The directory.
        request: What the user typed.
        digest: Digest of the job's custom code when it was checked; None if there is none.
        secrets: The secrets in its settings by dotted key; the directory does not hold them.
    """

    rundir: RunDirectory
    request: Request
    digest: str | None = None
    secrets: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> Settings:
        """Return the job's settings; its custom code can be imported from then on.

        Raises:
            UsageError: The code has changed since it was checked.
        """
        own_modules.begin()
        config, force = self.rundir.read_config(), self.request.force
        if (own := user_code.require_unchanged(self.rundir, config, self.digest)) is not None:
            user_code.admit({self.rundir: own}, self.request.command, trust=not force, force=force)
        return check(redact.filled(config, self.secrets))

    def build(self) -> Built:
        """Build the parts of the job."""
        return rebuild(self.rundir, self.settings(), self.rundir.read_status().get("choices"))


def execute(job: Job, stopping: Stopping) -> None:
    """Train a job; its status.json records how it ended."""
    with stopping:
        driven(executing(job, stopping))


def executing(job: Job, stopping: Stopping, seconds: float = SECONDS) -> Generator[Learner, Taken | None, None]:
    """Train a job, but let the caller, which has entered `stopping`, take the steps.

    Args:
        job: The job.
        stopping: Tells when to stop.
        seconds: The interval between writes of status.json.
    """
    try:
        with stopping.breaking_off():
            built = job.build()
        yield from training(Session(job.rundir, built, job.request, stopping=stopping, seconds=seconds))
    except BrokenOff:
        pass  # the job still waits to be trained
    except InUse:
        pass  # another process is training the job and writes its status
    except Exception as error:
        reason = redact.hide(str(error) if isinstance(error, TrainerError) else f"{type(error).__name__}: {error}")
        status = job.rundir.read_status()
        if status.get("state") != "failed":
            with suppress(OSError):  # the directory itself may be gone
                job.rundir.write_status({**status, "state": "failed", "error": reason})
