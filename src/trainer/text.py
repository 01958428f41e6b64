"""Formats values for people: settings, numbers, sizes, counts, rates and durations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def show(value: Any) -> str:
    """Format a value as typed in a config."""
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
    """Format settings as typed on the command line."""
    return " ".join(f"{key}={value}" for key, value in words.items())


def is_number(value: Any) -> bool:
    """Return whether a value is a float, or an int of at most 64 bits."""
    if isinstance(value, int):
        return not isinstance(value, bool) and -(2**63) <= value < 2**64
    return isinstance(value, float)


def number(value: float | None) -> str:
    """Format a number with about six significant digits."""
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.6g}"


def numbers(value: Any) -> str:
    """Format a number or nested lists of numbers with about six digits, and other values as in a config."""
    if isinstance(value, list):
        return "[" + " ".join(map(numbers, value)) + "]"
    return number(value) if isinstance(value, float) else show(value)


def size_of(amount: int) -> str:
    """Format a number of bytes: 8 bytes, 4.1 kB or 0.4 MB."""
    if amount < 1000:
        return f"{amount} bytes"
    return f"{amount / 1e6:,.1f} MB" if amount >= 1e5 else f"{amount / 1e3:,.1f} kB"


def count(amount: int, noun: str) -> str:
    """Format a count with its noun: 1 step, 2,000 steps."""
    return f"{amount:,} {noun}{'s' * (amount != 1)}"


def rate(value: float) -> str:
    """Format a rate with three significant digits, or as an integer from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Format a duration: 0.7 s, 43 s, 1:02 or 1:02:03."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return clock(seconds)


def clock(seconds: float) -> str:
    """Format a running duration, with a stable width: 0:03, 1:02 or 1:02:03."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def digits(value: Any) -> str:
    """Format numbers with five digits, including trailing zeros, so that the text keeps its width."""
    if isinstance(value, list):
        return "[" + " ".join(map(digits, value)) + "]"
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value:#.5g}".rstrip(".")


def tick(value: float) -> str:
    """Format the label of an axis tick: 2,000, 0.05, 1e-5, 1e7."""
    if 1000 <= abs(value) < 1e7 and value == round(value):
        return f"{value:,.0f}"
    return f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
