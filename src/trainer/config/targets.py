"""Distinguishes `_target_`s of trainer and torch from custom ones, and lets custom ones be imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config.settings import Settings

OURS = ("trainer.", "torch.nn.", "torch.optim.")


def is_ours(target: str) -> bool:
    """Return whether a `_target_` is a public name of trainer or torch, which any run may import."""
    return target.startswith(OURS) and not any(part.startswith("_") for part in target.split("."))


def search_working_directory() -> None:
    """Append the working directory to sys.path, at the end: a queue.py there must not shadow the standard module."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def own_targets(settings: Settings) -> set[str]:
    """Return the classes in settings that are not from trainer or torch."""
    return {target for _, target in foreign(settings)}


def foreign(settings: Settings, key: str = "_target_") -> Iterator[tuple[str, str]]:
    """Yield section and class of each component whose class is not from trainer or torch."""
    for group, section in settings.selected.items():
        target: Any = section.get(key)
        if isinstance(target, str) and not is_ours(target):
            yield group, target
