"""Which `_target_`s are public names of trainer or torch, and where those of the user are looked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config.settings import Settings

OURS = ("trainer.", "torch.nn.", "torch.optim.")


def is_ours(target: str) -> bool:
    """Return whether a `_target_` is a public name of trainer or torch, which anybody's run may import."""
    return target.startswith(OURS) and not any(part.startswith("_") for part in target.split("."))


def search_working_directory() -> None:
    """Let modules of the working directory be imported, last: a queue.py there must not shadow the standard one."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def own_targets(settings: Settings) -> set[str]:
    """Return the classes that settings name and that are neither trainer's nor torch's."""
    return {target for _, target in foreign(settings)}


def foreign(settings: Settings, key: str = "_target_") -> Iterator[tuple[str, str]]:
    for group, section in settings.selected.items():
        target: Any = section.get(key)
        if isinstance(target, str) and not is_ours(target):
            yield group, target
