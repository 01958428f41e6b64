"""The function that a launcher calls for each job of a sweep."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from trainer.errors import RunFailed, TrainerError
from trainer.files import safe_start
from trainer.launch import groups
from trainer.launch.owner import Owner
from trainer.runs.directory import RunDirectory
from trainer.session import job
from trainer.session.job import Job
from trainer.session.session import Request
from trainer.session.stopping import Stopping
from trainer.terminal import screen
from trainer.training.stacked import stack

STOP = "stop"  # no further job starts while the sweep's directory holds a file of this name


@dataclass(frozen=True)
class Task:
    """Trains jobs of a sweep: a launcher calls it with the name of each job, in this process or in a worker.

    Args:
        path: The sweep's directory.
        request: What the user typed.
        digests: Digests of the jobs' custom code when it was checked, by job.
        secrets: The secrets in the settings by job and dotted key.
        owner: The process that runs the sweep.
    """

    path: Path
    request: Request
    digests: Mapping[str, str]
    secrets: Mapping[str, Mapping[str, Any]]
    owner: Owner

    @property
    def marker(self) -> Path:
        """The file that keeps further jobs from starting."""
        return self.path / STOP

    def job(self, name: str) -> Job:
        """Return the job with a name."""
        return Job(RunDirectory(self.path / name), self.request, self.digests.get(name), self.secrets.get(name, {}))

    def __call__(self, name: str) -> None:
        """Train a job; its status.json records how it ended."""
        with safe_start.lifted(), self.owner.working():
            if not self.marker.exists() and not self.owner.is_gone:
                job.execute(self.job(name), self._stopping())

    def together(self, names: Sequence[str]) -> Iterator[tuple[str, None]]:
        """Train jobs that differ only in numbers as one program, the others separately; yield each name at its end."""
        for group in groups.groups([self.job(name) for name in names]):
            if self.marker.exists():
                return
            size, how = groups.size_of(group)
            screen.note(f"{groups.named(group)} {how}")
            for part in groups.parts(group, size):
                if len(part) == 1:
                    self(part[0].rundir.path.name)
                    yield part[0].rundir.path.name, None
                elif not self.marker.exists():
                    yield from self._at_once(part)

    def _at_once(self, jobs: Sequence[Job]) -> Iterator[tuple[str, None]]:
        seconds = groups.seconds_between_writes(len(jobs))
        with self._stopping() as stopping:
            for number in stack.train([job.executing(one, stopping, seconds) for one in jobs]):
                yield jobs[number].rundir.path.name, None

    def compose(self, config: DictConfig) -> None:
        """Train the job that a Hydra configuration names."""
        self(config.run_dir)
        if self.marker.exists() and self.owner.is_me:
            raise KeyboardInterrupt

    def note_death(self, name: str, problem: RunFailed) -> None:
        """Record in the status of a job that its process has died."""
        rundir = RunDirectory(self.path / name)
        with suppress(OSError, TrainerError), rundir.lock(self.request.command):
            if rundir.read_status().get("state") in ("waiting", "running"):
                rundir.write_status({**rundir.read_status(), "state": "failed", "error": str(problem)})

    def _stopping(self) -> Stopping:
        if self.owner.is_me:
            return Stopping(asked=self.marker.exists)

        def asked() -> bool:
            return self.marker.exists() or self.owner.is_gone

        return Stopping(asked=asked, leave=lambda: os._exit(128 + signal.SIGINT))
