"""What some runs differ in, and what to call each of them. Without torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from trainer.config.catalog import GROUPS
from trainer.config.settings import flat
from trainer.errors import nearest, printable, refusal
from trainer.runs import entries
from trainer.runs.entries import RunSummary
from trainer.text import show, tick

SEED = "seed"
_BESIDES = ("name", "run_dir", "resume", "max_jobs")  # settings that do not tell what a run is
_LONGEST = 60  # characters of a label
_FEW = 3  # settings that make a label of bearable length


def differing(found: Sequence[RunSummary]) -> list[str]:
    """Return the settings that runs were given and that are not the same in all of them."""
    keys: dict[str, None] = {}
    for one in found:
        keys |= dict.fromkeys(entries.typed(one.status))
        for segment in one.status.get("segments") or ():
            keys |= dict.fromkeys(word.lstrip("+").partition("=")[0] for word in segment.get("overrides", ()))
    return [key for key in keys if key not in _BESIDES and len({text(one, key) for one in found}) > 1]


def telling(found: Sequence[RunSummary], keys: Sequence[str]) -> list[str]:
    """Return as few of the settings that set runs apart as tell them all from each other; a few are all kept."""
    if len(keys) <= _FEW:
        return list(keys)
    keys = sorted(keys, key=lambda key: key not in GROUPS)  # of two that tell as much, the part before its settings
    chosen: list[str] = []

    def told(key: str) -> int:
        return len({tuple(text(one, each) for each in (*chosen, key)) for one in found})

    while len(chosen) < len(keys) and (not chosen or told(chosen[-1]) < len(found)):
        best = max((key for key in keys if key not in chosen), key=told)
        if chosen and told(best) == told(chosen[-1]):
            break
        chosen.append(best)
    return chosen


def labels(found: Sequence[RunSummary], differing_in: Sequence[str]) -> tuple[str, list[str]]:
    """Return what to call each of some runs, and a heading: their own names if each has one, else what they differ in.

    Args:
        found: The runs.
        differing_in: The settings that set them apart.
    """
    keys = telling(found, differing_in)
    names = [one.status.get("name") for one in found]
    if len(set(names)) == len(names) and all(names):
        heading, told = "", [printable(str(name)) for name in names]
    elif len(keys) == 1:
        heading, told = keys[0], [text(one, keys[0]) for one in found]
    else:
        heading, told = "", [_told(one, keys) for one in found]
    many = Counter(told)
    for index, one in enumerate(found):
        if many[told[index]] > 1 or not told[index]:
            told[index] = f"{told[index]} ({one.short})" if told[index] else one.short
        if one.state in ("failed", "running", "interrupted"):
            told[index] += f", {one.state}" + (f" at {one.step:,}" if one.state != "running" else "")
    return heading, [label if len(label) <= _LONGEST else f"{label[: _LONGEST - 3]}..." for label in told]


def _told(of: RunSummary, keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={text(of, key)}" for key in keys if setting(of, key) is not None)


def text(of: RunSummary, key: str) -> str:
    """Write what a run has under a key, briefly."""
    value = setting(of, key)
    return tick(value) if isinstance(value, float) else printable(show(value))


def is_number(found: Iterable[RunSummary], key: str) -> bool:
    """Say whether a setting is a number in all runs."""
    values = [setting(one, key) for one in found]
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def require_setting(found: Sequence[RunSummary], key: str, flag: str) -> None:
    """Refuse a key that no run has.

    Raises:
        UsageError: None has; names those that set the runs apart, and the nearest of all.
    """
    keys = {key for one in found for key in (*one.choices, *flat(dict(one.config)))}
    if key not in keys:
        near = nearest(key, keys)
        raise refusal(f"{flag}={key}", "no run here has such a setting", differing(found), near and f"{flag}={near}")


def grouped(
    found: Iterable[RunSummary], keys: Sequence[str], text: Callable[[RunSummary, str], str] = text
) -> dict[tuple[str, ...], list[RunSummary]]:
    """Return groups of the runs that have the same text for each key, in the order of these texts."""
    groups: dict[tuple[str, ...], list[RunSummary]] = {}
    for one in found:
        groups.setdefault(tuple(text(one, key) for key in keys), []).append(one)
    places = [
        {value: place for place, value in enumerate(ordered(values[i] for values in groups))} for i in range(len(keys))
    ]
    return dict(sorted(groups.items(), key=lambda item: [places[i][value] for i, value in enumerate(item[0])]))


def ordered(texts: Iterable[str]) -> list[str]:
    """Return distinct texts, numbers in their order and before all others, which keep theirs."""
    distinct = list(dict.fromkeys(texts))
    return sorted(distinct, key=_place)


def _place(value: str) -> float:
    number_there = number_of(value.replace(",", ""))
    return math.inf if number_there is None else number_there


def setting(of: RunSummary, key: str) -> Any:
    """Return what a run has under a key: a choice, a setting, its state or its name; None if it has none."""
    if key in ("state", "name"):
        return of.state if key == "state" else of.status.get("name")
    if key in of.choices:
        return of.choices[key]
    found: Any = of.config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return None if isinstance(found, dict) else found


def number_of(text: str) -> float | None:
    """Return the number that a text is, None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None
