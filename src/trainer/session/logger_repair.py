"""Adds rows of a finished run that its loggers lack because the process was killed at the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from trainer.config.settings import Settings
from trainer.errors import UsageError
from trainer.loggers import Logger
from trainer.runs.directory import RunDirectory
from trainer.session import logger_feed
from trainer.session.logger_feed import LoggerFeed


def repair(rundir: RunDirectory, settings: Settings, command: str, announce: Callable[[str], None]) -> None:
    """Pass the rows of a finished run to each of its loggers that lacks some.

    Args:
        rundir: The run's directory.
        settings: The run's settings.
        command: What the user typed, for the lock.
        announce: Shows one line to the user.

    Raises:
        UsageError: Another process uses the run.
    """
    status = rundir.read_status()
    step, steps = status.get("step", 0), status.get("steps", 0)
    if not settings.logger or not _incomplete(rundir, settings, steps):
        return
    with rundir.lock(command):
        loggers = _incomplete(rundir, settings, steps)
        feed = LoggerFeed(rundir.metrics, loggers, announce, 0.0)
        with closing(feed):
            feed.open(step)
        for name in loggers:
            if name not in feed.dropped:
                announce(f"logger={name} missed rows of the run; they have been written")


def _incomplete(rundir: RunDirectory, settings: Settings, steps: int) -> dict[str, Logger]:
    try:
        loggers = logger_feed.build_loggers(settings, steps)
    except UsageError:
        return {}  # a logger that can't be built here is no reason to refuse a complete run
    return {name: logger for name, logger in loggers.items() if not logger_feed.is_whole(logger, rundir)}
