"""The counters of a run: the state that influences its next step and belongs to no other component."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from typing import Any

from trainer.config.annotations import fits


@dataclass
class Counters:
    """The state of the training loop; time is counted in finished optimizer steps.

    Attributes:
        step: Number of finished steps, including skipped ones.
        loss: Loss of the last step; NaN if it was skipped.
        first_loss: Loss of the first step that was not skipped.
        skipped: Number of steps skipped because of non-finite numbers.
        skipped_in_a_row: Number of these since the last step that was not skipped.
        validation: Metrics of the last evaluation.
        validation_step: Step of the last evaluation.
        best_step: Step of the best evaluation.
        best_value: Monitored metric of the best evaluation.
        stale: Number of evaluations since the best one.
    """

    step: int = 0
    loss: float | None = None
    first_loss: float | None = None
    skipped: int = 0
    skipped_in_a_row: int = 0
    validation: dict[str, float] = field(default_factory=dict)
    validation_step: int | None = None
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0

    def note_loss(self, loss: float) -> None:
        """Record a finished step; a NaN loss marks a skipped step."""
        self.step += 1
        self.loss = loss
        if math.isnan(loss):
            self.skipped += 1
            self.skipped_in_a_row += 1
            return
        self.skipped_in_a_row = 0
        if self.first_loss is None:
            self.first_loss = loss

    def note_evaluation(self, metrics: dict[str, float], monitor: str | None, mode: str) -> None:
        """Record an evaluation after the current step.

        Args:
            metrics: Its metrics by name.
            monitor: Name of the metric that decides which evaluation is the best; None for none.
            mode: Whether min or max is better.
        """
        self.validation, self.validation_step = metrics, self.step
        if monitor is None:
            return
        value = metrics[monitor]
        if self.is_better(value, mode):
            self.best_step, self.best_value, self.stale = self.step, value, 0
        else:
            self.stale += 1

    def is_better(self, value: float, mode: str) -> bool:
        """Return whether a value of the monitored metric is better than the best so far."""
        better = self.best_value is None or (value < self.best_value if mode == "min" else value > self.best_value)
        return better and math.isfinite(value)

    def state_dict(self) -> dict[str, Any]:
        """Return all fields as plain data."""
        return dataclasses.asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`.

        Raises:
            ValueError: The state has other fields, or a value has the wrong type.
        """
        kinds = typing.get_type_hints(type(self))
        if state.keys() != kinds.keys():
            raise ValueError(f"the state has {', '.join(sorted(state))}, not {', '.join(sorted(kinds))}")
        for name, value in state.items():
            ok, value = fits(value, kinds[name])
            if not ok:
                raise ValueError(f"the state has {name}={value!r}")
            setattr(self, name, value)
