"""Writes values and numbers for people: settings as typed, numbers, sizes, counts, rates and durations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def show(value: Any) -> str:
    """Write a value as it would be typed in a config."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(show, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{show(v)}" for k, v in value.items()) + "}"
    return str(value)


def typed(words: Mapping[str, str]) -> str:
    """Write keys and values as one types them."""
    return " ".join(f"{key}={value}" for key, value in words.items())


def is_number(value: Any) -> bool:
    """Say whether a value is a number that a computer counts with: whole ones have at most 64 bits."""
    if isinstance(value, int):
        return not isinstance(value, bool) and -(2**63) <= value < 2**64
    return isinstance(value, float)


def number(value: float | None) -> str:
    """Write a number in about six significant digits."""
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.6g}"


def numbers(value: Any) -> str:
    """Write a number, or nested lists of them, in about six digits; what is no number as a config holds it."""
    if isinstance(value, list):
        return "[" + " ".join(map(numbers, value)) + "]"
    return number(value) if isinstance(value, float) else show(value)


def size_of(amount: int) -> str:
    """Write an amount of bytes: 8 bytes, 4.1 kB or 0.4 MB."""
    if amount < 1000:
        return f"{amount} bytes"
    return f"{amount / 1e6:,.1f} MB" if amount >= 1e5 else f"{amount / 1e3:,.1f} kB"


def count(amount: int, noun: str) -> str:
    """Write an amount of things: 1 step, 2,000 steps."""
    return f"{amount:,} {noun}{'s' * (amount != 1)}"


def rate(value: float) -> str:
    """Write a rate in three significant digits or as a whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Write how long something took: 0.7 s, 43 s, 1:02 or 1:02:03."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return clock(seconds)


def clock(seconds: float) -> str:
    """Write a duration as 0:03, 1:02 or 1:02:03, always as wide while it runs."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def digits(value: Any) -> str:
    """Write numbers in five digits, zeros at the end included, so that what follows stays in its place."""
    if isinstance(value, list):
        return "[" + " ".join(map(digits, value)) + "]"
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value:#.5g}".rstrip(".")


def tick(value: float) -> str:
    """Write a number at an axis: 2,000, 0.05, 1e-5, 1e7."""
    if 1000 <= abs(value) < 1e7 and value == round(value):
        return f"{value:,.0f}"
    return f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
