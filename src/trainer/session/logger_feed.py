"""Passes the rows of a run to its loggers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainer import randomness
from trainer.config import secrets
from trainer.config.settings import Settings
from trainer.files import plain_json, reading
from trainer.loggers import Logger
from trainer.runs.directory import RunDirectory
from trainer.training.instantiate import check_arguments, construct, locate, reason_of, supplied
from trainer.training.loop import Reader, Row

_MOST_BYTES = 2**20  # bytes of metrics.jsonl in memory at a time


def build_loggers(settings: Settings, steps: int) -> dict[str, Logger]:
    """Build the loggers that the settings select, by name; nothing is written yet.

    Args:
        settings: The run's settings.
        steps: Length of the run.

    Raises:
        UsageError: A logger can't be built.
    """
    loggers = {}
    for name, section in settings.logger.items():
        group = f"logger.{name}"
        cls = locate(section, group)
        arguments = {**check_arguments(cls, section, group), **supplied(cls, steps=steps)}
        with randomness.isolated(0):
            loggers[name] = construct(group, cls, arguments, f"logger={name}")
    return loggers


def is_whole(logger: Logger, rundir: RunDirectory) -> bool:
    """Return whether a logger has all rows of a finished run, as far as it can tell."""
    try:
        return logger.is_whole(rundir.path, plain_json.json_lines(rundir.metrics))
    except Exception:  # the logger may be custom code
        return True


class LoggerFeed:
    """Passes the rows of metrics.jsonl to the loggers of a run; as a reader of the loop, it only checks the time.

    Because the rows come from the file, loggers get exactly the rows that are kept, and all of them again on resume.
    They can't disturb training: random generators are restored, and a logger that raises is dropped with a warning.

    Args:
        metrics: The metrics.jsonl of the run, in its directory.
        loggers: The loggers by name.
        announce: Shows one line to the user.
        seconds: The interval between deliveries.
    """

    def __init__(
        self, metrics: Path, loggers: Mapping[str, Logger], announce: Callable[[str], None], seconds: float
    ) -> None:
        self._metrics, self._loggers, self._announce, self._seconds = metrics, loggers, announce, seconds
        self._open: dict[str, Logger] = {}
        self.dropped: set[str] = set()
        self._read, self._next = 0, 0.0

    @property
    def readers(self) -> list[Reader]:
        """The feed as a list of readers of the loop: empty if there are no loggers."""
        return [self] if self._loggers else []

    def open(self, step: int) -> None:
        """Open the loggers and pass them the rows so far.

        Args:
            step: The step that training starts from.
        """
        self._open = dict(self._loggers)
        self._each(lambda logger: logger.open(self._metrics.parent, step))
        self._deliver()

    def __call__(self, row: Row) -> None:
        """Pass on new rows if the last delivery is long enough ago."""
        if time.monotonic() >= self._next:
            self._deliver()

    def close(self) -> None:
        """Pass on the last rows and close the loggers that are open: each has all rows or has been dropped."""
        self._deliver()
        self._each(lambda logger: logger.close())
        self._open = {}

    def _deliver(self) -> None:
        try:
            while self._open and (rows := self._rows()):
                self._pass(rows)
        except (OSError, ValueError, RecursionError) as error:  # metrics.jsonl was deleted or edited
            for name in list(self._open):
                self._drop(name, error)
        self._next = time.monotonic() + self._seconds

    def _pass(self, rows: list[Row]) -> None:
        self._each(lambda logger: logger([dict(row) for row in rows]))

    def _rows(self) -> list[Any]:
        """Return the next rows of metrics.jsonl, none if there are no new ones."""
        with os.fdopen(reading.opened(self._metrics), "rb") as file:
            file.seek(self._read)
            lines = file.read(_MOST_BYTES)
        lines = lines[: lines.rfind(b"\n") + 1]
        self._read += len(lines)
        return list(json.loads(b"[%s]" % lines.rstrip().replace(b"\n", b",")))

    def _each(self, call: Callable[[Logger], None]) -> None:
        if not self._open:
            return
        with randomness.isolated(0):
            for name, logger in list(self._open.items()):
                try:
                    call(logger)
                except Exception as error:
                    self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        del self._open[name]
        self.dropped.add(name)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else reason_of(error)
        self._announce(f"warning: logger={name} has stopped: {secrets.hide(reason)}; training continues")
