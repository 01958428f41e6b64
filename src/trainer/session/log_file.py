"""trainer.log of a run: what happened when."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from trainer.config.secrets import hide
from trainer.training.loop import Row

log = logging.getLogger("trainer")
_file: ContextVar[LogFile | None] = ContextVar("_file", default=None)  # that of the run at work: many may be open


class Formatter(logging.Formatter):
    """Writes records without the secrets in them."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        return hide(super().format(record))


class LogFile(logging.FileHandler):
    """A log that is best effort: where it can't be written to, training goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record if possible."""
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Pass over what went wrong."""


class _ToTheRunAtWork(logging.Handler):
    """Hands records on to the file of the run that is at work."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on."""
        if (file := _file.get()) is not None:
            file.handle(record)


_handler = _ToTheRunAtWork()


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write what the package logs to a file for the duration of a block, as far as it is logged in the same context."""
    file = LogFile(path, encoding="utf-8", delay=True)
    file.setFormatter(Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = _file.set(file)
    log.addHandler(_handler)  # once, however often
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        _file.reset(before)
        with suppress(OSError):
            file.close()


def log_evaluation(row: Row) -> None:
    """Write an evaluation into trainer.log."""
    if not math.isfinite(row.get("loss", 0.0)):
        log.warning("step %d: skipped, its loss or gradients are not finite", row["step"])
    if "loss" not in row:
        log.info(
            "step %d: %s",
            row["step"],
            ", ".join(f"{k} {v:.6g}" for k, v in row.items() if k.startswith("val")),
        )
