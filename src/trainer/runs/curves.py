"""Reads the metrics of a run from its metrics.jsonl. Without torch and NumPy."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.files import plain_json

_LARGEST_STEP = 2**53
LARGEST = 1e150  # its square is still finite
_MISSING = object()


@dataclass(frozen=True)
class Curve:
    """One metric of a run.

    Args:
        steps: Step numbers in ascending order.
        values: The value at each step; nan where it was missing or too large.
    """

    steps: Sequence[int] = field(default_factory=lambda: array("q"))
    values: Sequence[float] = field(default_factory=lambda: array("d"))

    def at(self, step: float) -> float:
        """Return the value at a step, linearly interpolated; nan outside the range and next to a missing value."""
        index = bisect_left(self.steps, step)
        if index == len(self.steps):
            return math.nan
        if self.steps[index] == step:
            return self.values[index]
        if index == 0:
            return math.nan
        before, after = self.steps[index - 1], self.steps[index]
        share = (step - before) / (after - before)
        return self.values[index - 1] * (1 - share) + self.values[index] * share

    @property
    def last(self) -> float:
        """The last value; nan if there is none."""
        return self.values[-1] if self.values else math.nan


def read(path: Path, metrics: Iterable[str]) -> dict[str, Curve]:
    """Return the curves of metrics by name, without those that the run never recorded.

    Damaged rows are skipped, such as the last row of a run that was killed while writing it.

    Args:
        path: A metrics.jsonl; a million rows take a few seconds.
        metrics: The names of the metrics: loss, lr, validation_loss, ...

    Raises:
        OSError: The file can't be read.
        Unreadable: A line is too long to be a row.
    """
    wanted = [(name, array("q"), array("d")) for name in metrics]
    for row in plain_json.readable_rows(path):
        step = row.get("step")
        if type(step) is not int or not 0 <= step < _LARGEST_STEP:
            continue
        for name, steps, values in wanted:
            value = row.get(name, _MISSING)
            if value is None:
                value = math.nan
            elif type(value) is not float and (type(value) is not int or abs(value) > _LARGEST_STEP):
                continue
            if not steps or step > steps[-1]:
                steps.append(step)
                values.append(value)
    return {name: Curve(steps, _finite(values)) for name, steps, values in wanted if steps}


def _finite(values: array[float]) -> array[float]:
    """Return values, with nan for those too large to compute with, such as 1e999 in an untrusted file."""
    return array("d", (value if abs(value) <= LARGEST else math.nan for value in values))
