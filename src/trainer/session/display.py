"""What a session shows a display while it trains, and what a display is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from trainer.training.loop import Row


@dataclass
class Standing:
    """What the display shows besides the newest row."""

    steps: int
    first_step: int
    steps_per_epoch: int
    best: Callable[[], tuple[int | None, float | None]]
    numbers: Callable[[], dict[str, Any] | None]
    stopping: Callable[[], bool] = lambda: False


class Display(Protocol):
    """Something that is entered for the duration of a run and reads its rows."""

    def __enter__(self) -> Display:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the screen in order."""

    def __call__(self, row: Row) -> None:
        """Take a row."""


class NoDisplay:
    """Shows nothing: for the jobs of a sweep, whose overview is elsewhere."""

    def __enter__(self) -> NoDisplay:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    def __call__(self, row: Row) -> None:
        """Ignore the row."""
