"""Writes trainer.log of a run."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config.secrets import hide

if TYPE_CHECKING:
    from trainer.training.loop import Row

log = logging.getLogger("trainer")
_file: ContextVar[LogFile | None] = ContextVar(
    "_file", default=None
)  # of the run in the current context; other runs have their own


class Formatter(logging.Formatter):
    """Hides secrets in records."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        return hide(super().format(record))


class LogFile(logging.FileHandler):
    """A log file that training does not depend on: errors of the disk are ignored."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record if possible."""
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore an error."""


class _Dispatcher(logging.Handler):
    """Passes records to the log file of the run in the current context."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on."""
        if (file := _file.get()) is not None:
            file.handle(record)


_handler = _Dispatcher()


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write the log records of the current context to a file for the duration of a block."""
    file = LogFile(path, encoding="utf-8", delay=True)
    file.setFormatter(Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = _file.set(file)
    log.addHandler(_handler)  # has no effect the second time
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        _file.reset(before)
        with suppress(OSError):
            file.close()


def log_evaluation(row: Row) -> None:
    """Write the row of an evaluation or of a skipped step to trainer.log."""
    if not math.isfinite(row.get("loss", 0.0)):
        log.warning("step %d: skipped, its loss or gradients are not finite", row["step"])
    if "loss" not in row:
        log.info(
            "step %d: %s",
            row["step"],
            ", ".join(f"{k} {v:.6g}" for k, v in row.items() if k.startswith("val")),
        )
