"""Lists the values of a sweep: `a,b`, `range(0,3)`, `glob(*)`."""

from __future__ import annotations

import math
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException

from trainer.config.catalog import GROUPS, Catalog
from trainer.errors import refusal
from trainer.text import show


def values(override: Override, most: int) -> list[str]:
    """Return the values of a sweep as text that Hydra reads.

    Args:
        override: A typed word that sweeps.
        most: The largest number of values to list.

    Raises:
        UsageError: The values have no end, or there are none, or more than `most`.
    """
    _refuse_endless(override, most)
    try:
        found = list(override.sweep_string_iterator())
    except (HydraException, ArithmeticError, TypeError, ValueError) as error:
        raise refusal(str(override.input_line), f"can't be listed: {error}") from error
    if not found:
        raise refusal(str(override.input_line), "has no values")
    return found


def options(override: Override, catalog: Catalog, most: int) -> list[Any]:
    """Return the names of options that a word selects from a group, one for each job; some may be lists of names.

    Args:
        override: A typed word whose key is a group, with quotes around the names.
        catalog: The options that can be selected.
        most: The largest number of names to list.

    Raises:
        UsageError: No option is selected, or more than `most`.
    """
    group, pattern = override.key_or_group, override.value()
    if not override.is_sweep_override():
        return [pattern]
    if isinstance(pattern, Glob):
        found = pattern.filter(list(catalog.options(group)))
        if not found:
            raise refusal(str(override.input_line), f"no {group} has such a name", catalog.options(group))
        return found
    values(override, most)
    return [_plain(value) for value in override.sweep_iterator()]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.text if isinstance(value, QuotedString) else value if isinstance(value, str | dict) else show(value)


def _refuse_endless(override: Override, most: int) -> None:
    word, pattern = str(override.input_line), override.value()
    if isinstance(pattern, Glob):
        raise refusal(word, "glob selects options of a group", [f"{group}=glob(...)" for group in GROUPS])
    if isinstance(pattern, IntervalSweep):
        raise refusal(word, "an interval has infinitely many values; list the values")
    if isinstance(pattern, RangeSweep):
        ends = [float(one) for one in (pattern.start or 0, pattern.stop or 0, pattern.step)]
        if not all(map(math.isfinite, ends)) or not ends[2]:
            raise refusal(word, "has no end", "range(START,STOP,STEP) with finite numbers and a step other than 0")
        if (count := math.ceil((ends[1] - ends[0]) / ends[2])) > most:
            raise refusal(word, f"makes {count:,} jobs", f"up to {most:,}; max_jobs={count}")
