"""The interface of a display, and the facts it shows besides the rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from trainer.training.loop import Row


@dataclass
class Standing:
    """What the display shows besides the newest row.

    Args:
        steps: Length of the run.
        first_step: The step that training starts from.
        steps_per_epoch: Steps in an epoch.
        best: Returns step and value of the best evaluation.
        numbers: Returns the parameters if there are few, else None.
        stopping: Returns whether training has been asked to stop.
    """

    steps: int
    first_step: int
    steps_per_epoch: int
    best: Callable[[], tuple[int | None, float | None]]
    numbers: Callable[[], dict[str, Any] | None]
    stopping: Callable[[], bool] = lambda: False


class Display(AbstractContextManager["Display"], Protocol):
    """A reader of rows that is entered while a run trains."""

    def __call__(self, row: Row) -> None:
        """Show a row."""


class NoDisplay(nullcontext["NoDisplay"]):
    """Shows nothing: for quiet runs and the jobs of a sweep."""

    def __init__(self, standing: Standing) -> None:
        super().__init__(self)

    def __call__(self, row: Row) -> None:
        """Ignore the row."""
