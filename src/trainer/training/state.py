"""Where a run stands: everything that influences its next step and is not part of another component."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from typing import Any

from trainer.config.annotations import fits


@dataclass
class Counters:
    """The loop's own state; time is the number of finished optimizer steps."""

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
        """Take note of the next finished step; NaN is one that was left out because its numbers were not finite."""
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
        """Take note of an evaluation after the current step, which may be the best so far."""
        self.validation, self.validation_step = metrics, self.step
        if monitor is None:
            return
        value = metrics[monitor]
        better = self.best_value is None or (value < self.best_value if mode == "min" else value > self.best_value)
        if better and math.isfinite(value):
            self.best_step, self.best_value, self.stale = self.step, value, 0
        else:
            self.stale += 1

    def state_dict(self) -> dict[str, Any]:
        """Return all fields as plain data."""
        return dataclasses.asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned.

        Raises:
            ValueError: It is not of the same fields, or one has a value of another kind.
        """
        kinds = typing.get_type_hints(type(self))
        if state.keys() != kinds.keys():
            raise ValueError(f"the state has {', '.join(sorted(state))}, not {', '.join(sorted(kinds))}")
        for name, value in state.items():
            ok, value = fits(value, kinds[name])
            if not ok:
                raise ValueError(f"the state has {name}={value!r}")
            setattr(self, name, value)
