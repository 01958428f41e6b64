"""Reads what a run measured, step by step, from its metrics.jsonl. Without torch and NumPy."""

from __future__ import annotations

import json
import math
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from trainer.files import reading

_BLOCK = 2**20  # bytes read at a time
_LONGEST = 2**20  # bytes of a row
_LARGEST_STEP = 2**53
LARGEST = 1e150  # its square is still a number
_MISSING = object()


@dataclass(frozen=True)
class Curve:
    """One metric of a run.

    Args:
        steps: Rising step numbers.
        values: As many values; nan where the run had no number to reckon with.
    """

    steps: Sequence[int] = field(default_factory=lambda: array("q"))
    values: Sequence[float] = field(default_factory=lambda: array("d"))

    def at(self, step: float) -> float:
        """Return the value at a step, on the straight line between its neighbours; nan outside and at a gap."""
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
        """The newest value; nan if there is none."""
        return self.values[-1] if self.values else math.nan

    @property
    def level_from(self) -> int | None:
        """Step of the first of the last values if these, two at least, are equal; None if the last two differ."""
        count = sum(1 for _ in takewhile(lambda value: value == self.last, reversed(self.values)))
        return self.steps[-count] if count > 1 else None


def read(path: Path, metrics: Iterable[str]) -> dict[str, Curve]:
    """Return metrics of a run by name; those that it never measured are missing.

    A row that is no whole row of numbers is passed over, as the last one of a run that was killed while it wrote.

    Args:
        path: A metrics.jsonl; a million rows take a few seconds.
        metrics: The names to look for: loss, lr, validation_loss, ...

    Raises:
        OSError: It can't be read.
        Unreadable: It is not made of rows.
    """
    wanted = [(name, array("q"), array("d")) for name in metrics]
    for row in _rows(path):
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
    """Return values with nan where they are too large to reckon with, as 1e999 in a file that somebody else wrote."""
    return array("d", (value if abs(value) <= LARGEST else math.nan for value in values))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows that can be read, block by block, so that the size of the file does not matter."""
    with os.fdopen(reading.opened(path), "rb") as file:
        rest = b""
        while block := file.read(_BLOCK):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if len(rest) > _LONGEST:
                raise reading.Unreadable(f"has a row of more than {_LONGEST:,} bytes")
            yield from _parsed(lines)
        yield from _parsed([rest])


def _parsed(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the rows of whole lines: all at once, which is fast, or one by one if one of them is damaged."""
    try:
        rows = json.loads(b"[" + b",".join(filter(None, lines)) + b"]")
    except (ValueError, RecursionError):
        if len(lines) == 1:
            return
        for line in lines:
            yield from _parsed([line])
        return
    yield from (row for row in rows if isinstance(row, dict))
