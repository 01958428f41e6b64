"""Hands the rows of a run on to its loggers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trainer import randomness
from trainer.config import secrets
from trainer.config.settings import Settings
from trainer.files import plain_json, reading
from trainer.loggers import Logger
from trainer.runs.directory import RunDirectory
from trainer.training.instantiate import check_arguments, construct, locate, reason_of, supplied
from trainer.training.loop import Reader, Row

_MOST_BYTES = 2**20  # of metrics.jsonl that are in memory at a time


def chosen(settings: Settings, steps: int) -> dict[str, Logger]:
    """Make the loggers that settings choose, by name; nothing is written yet.

    Args:
        settings: The checked configuration.
        steps: Length of the run.

    Raises:
        UsageError: One can't be made.
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
    """Say whether a logger has all rows of a finished run, as far as it can tell."""
    try:
        return logger.is_whole(rundir.path, plain_json.json_lines(rundir.metrics))
    except Exception:  # it may be the user's own
        return True


class LoggerFeed:
    """Reads along in metrics.jsonl for the loggers of a run; also a reader of the loop, which only tells the time.

    So they get the very rows that are kept, from the first on whenever the run goes on, and never touch the training:
    generators are put back, and one that raises is told of and left out. Entered as a context, it finishes when that is
    over, however it ends.

    Args:
        metrics: metrics.jsonl of the run, in its directory.
        loggers: By name.
        announce: Tells the user something in one line.
        seconds: Between two times that they get rows.
    """

    def __init__(
        self, metrics: Path, loggers: Mapping[str, Logger], announce: Callable[[str], None], seconds: float
    ) -> None:
        self._metrics, self._loggers, self._announce, self._seconds = metrics, loggers, announce, seconds
        self._open: dict[str, Logger] = {}
        self.left_out: set[str] = set()
        self._read, self._next = 0, 0.0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish."""
        self.finish()

    def finish(self) -> None:
        """Hand on the last rows and close the loggers, if they are open: then all is on the disk or told of."""
        self._hand_on()
        self._each(lambda logger: logger.close())
        self._open = {}

    @property
    def readers(self) -> list[Reader]:
        """What the loop is to call: nothing if there are no loggers."""
        return [self] if self._loggers else []

    def open(self, step: int) -> None:
        """Open the loggers and hand on the rows that are there.

        Args:
            step: Finished steps that the run goes on from.
        """
        self._open = dict(self._loggers)
        self._each(lambda logger: logger.open(self._metrics.parent, step))
        self._hand_on()

    def __call__(self, row: Row) -> None:
        """Hand on what metrics.jsonl holds by now if the last time is long enough ago."""
        if time.monotonic() >= self._next:
            self._hand_on()

    def _hand_on(self) -> None:
        try:
            while self._open and (rows := self._rows()):
                self._tell(rows)
        except (OSError, ValueError, RecursionError) as error:  # something has deleted or changed it
            for name in list(self._open):
                self._leave_out(name, error)
        self._next = time.monotonic() + self._seconds

    def _tell(self, rows: list[Row]) -> None:
        self._each(lambda logger: logger([dict(row) for row in rows]))

    def _rows(self) -> list[Any]:
        """Return the next rows of metrics.jsonl; none if nothing has been written since."""
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
                    self._leave_out(name, error)

    def _leave_out(self, name: str, error: Exception) -> None:
        del self._open[name]
        self.left_out.add(name)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else reason_of(error)
        self._announce(f"warning: logger={name} has stopped: {secrets.hide(reason)}; training goes on")
