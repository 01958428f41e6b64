"""A run that is about to be trained: everything that `train` needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainer.runs.directory import RunDirectory
from trainer.session.display import Display, NoDisplay, Standing
from trainer.session.log_file import log
from trainer.session.stopping import Stopping

if TYPE_CHECKING:
    from trainer.training.build import Built

SECONDS = 1.0  # seconds between two writes of status.json


@dataclass(frozen=True)
class Request:
    """What the user typed.

    Args:
        command: The whole command, for status.json and the lock.
        overrides: Its settings, for status.json.
        force: Whether to start over if no checkpoint is good, and to accept edited files and changed modules.
    """

    command: str
    overrides: list[str]
    force: bool = False


@dataclass(frozen=True)
class Session:
    """A run that is about to be trained.

    Args:
        rundir: Its directory.
        built: Its parts, built from its settings.
        request: What the user typed.
        show: Creates the display when training is about to start.
        announce: Shows one line to the user.
        stopping: Tells when to stop.
        seconds: The interval between writes of status.json.
    """

    rundir: RunDirectory
    built: Built
    request: Request
    show: Callable[[Standing], Display] = NoDisplay
    announce: Callable[[str], None] = log.info
    stopping: Stopping = field(default_factory=Stopping)
    seconds: float = SECONDS
