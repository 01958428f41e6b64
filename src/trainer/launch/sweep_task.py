"""What a launcher calls for each job of a sweep, here or in a worker process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from trainer.errors import RunFailed, TrainerError, UsageError
from trainer.files import safe_start
from trainer.launch import groups
from trainer.launch.owner import Owner
from trainer.runs.directory import RunDirectory
from trainer.session import train as job
from trainer.session.stopping import Stopping
from trainer.terminal import screen
from trainer.training.stacked import stack

STOP = "stop"  # while a file of this name is in the sweep's directory, no further job starts


@dataclass(frozen=True)
class Task:
    """Trains the job of a name: what is called for each, here or in a worker process."""

    path: Path
    command: str
    overrides: tuple[str, ...]
    force: bool
    digests: Mapping[str, str]
    secrets: Mapping[str, Mapping[str, Any]]
    owner: Owner

    @property
    def marker(self) -> Path:
        """The file that keeps further jobs from starting."""
        return self.path / STOP

    def __call__(self, name: str) -> None:
        """Train a job; how it ends stands in its status.json."""
        with safe_start.lifted(), self.owner.working():
            if not self.marker.exists() and not self.owner.is_gone:
                self._train(name)

    def opened(self, name: str) -> dict[str, Any]:
        """Return the configuration of a job, whose own code may be imported from then on.

        Raises:
            UsageError: The code is not what was checked.
        """
        rundir = RunDirectory(self.path / name)
        return job.opened(rundir, self.command, self.force, self.digests.get(name))

    def _train(self, name: str) -> None:
        rundir, digest, secrets = RunDirectory(self.path / name), self.digests.get(name), self.secrets.get(name)
        job.execute(rundir, self.command, list(self.overrides), self.force, self._stopping(), secrets, digest)

    def together(self, names: Sequence[str]) -> Iterator[tuple[str, None]]:
        """Train jobs that differ only in numbers as one, and the others singly; yield their names as they end."""
        for group in groups.groups([RunDirectory(self.path / name) for name in names]):
            if self.marker.exists():
                return
            size, how = self._size_of(group)
            screen.note(f"{groups.named(group)} {how}")
            for part in groups.parts(group, size):
                if len(part) == 1:
                    self(part[0].path.name)
                    yield part[0].path.name, None
                elif not self.marker.exists():
                    yield from self._at_once(part)

    def _size_of(self, group: Sequence[RunDirectory]) -> tuple[int, str]:
        name = group[0].path.name
        try:
            self.opened(name)
        except UsageError:
            return 1, "singly: the first one can't be opened"  # which it says itself when it is its turn
        return groups.size_of(group, self.secrets.get(name, {}))

    def _at_once(self, rundirs: Sequence[RunDirectory]) -> Iterator[tuple[str, None]]:
        seconds = groups.seconds_between_writes(len(rundirs))
        with self._stopping() as stopping:
            loops = [
                job.executing(
                    rundir,
                    self.command,
                    list(self.overrides),
                    self.force,
                    stopping,
                    self.secrets.get(rundir.path.name),
                    self.digests.get(rundir.path.name),
                    seconds,
                )
                for rundir in rundirs
            ]
            for number in stack.train(loops):
                yield rundirs[number].path.name, None

    def compose(self, config: DictConfig) -> None:
        """Train the job that a configuration of Hydra's names."""
        self(config.run_dir)
        if self.marker.exists() and self.owner.is_me:
            raise KeyboardInterrupt

    def note_death(self, name: str, problem: RunFailed) -> None:
        """Let the status of a job say that its process has died over it."""
        rundir = RunDirectory(self.path / name)
        with suppress(OSError, TrainerError), rundir.lock(self.command):
            if rundir.read_status().get("state") in ("waiting", "running"):
                rundir.write_status({**rundir.read_status(), "state": "failed", "error": str(problem)})

    def _stopping(self) -> Stopping:
        if self.owner.is_me:
            return Stopping(asked=self.marker.exists)

        def asked() -> bool:
            return self.marker.exists() or self.owner.is_gone

        return Stopping(asked=asked, leave=lambda: os._exit(128 + signal.SIGINT))
