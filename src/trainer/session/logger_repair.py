"""Gives loggers what they lack of a finished run: a kill at its end may have kept it from them."""

from __future__ import annotations

from collections.abc import Callable

from trainer.config.settings import Settings
from trainer.errors import UsageError
from trainer.loggers import Logger
from trainer.runs.directory import RunDirectory
from trainer.session import logger_feed
from trainer.session.logger_feed import LoggerFeed


def repair(rundir: RunDirectory, settings: Settings, command: str, announce: Callable[[str], None]) -> None:
    """Let the loggers of a finished run that lack rows of it write them.

    Args:
        rundir: The run's directory.
        settings: Those that it was trained under.
        command: What the user typed, for whoever finds the run in use.
        announce: Tells the user something in one line.

    Raises:
        UsageError: Another process has the run.
    """
    status = rundir.read_status()
    step, steps = status.get("step", 0), status.get("steps", 0)
    if not settings.logger or not _incomplete(rundir, settings, steps):
        return
    with rundir.lock(command):
        loggers = _incomplete(rundir, settings, steps)
        feed = LoggerFeed(rundir.metrics, loggers, announce, 0.0)
        with feed:
            feed.open(step)
        for name in loggers:
            if name not in feed.left_out:
                announce(f"logger={name} lacked rows of the run; it has them now")


def _incomplete(rundir: RunDirectory, settings: Settings, steps: int) -> dict[str, Logger]:
    try:
        loggers = logger_feed.chosen(settings, steps)
    except UsageError:
        return {}  # one can't be made here, which is no reason to refuse what is complete
    return {name: logger for name, logger in loggers.items() if not logger_feed.is_whole(logger, rundir)}
