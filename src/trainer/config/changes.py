"""Applies the words of a command to the settings of a run; without words, Hydra is not imported."""

from __future__ import annotations

from trainer.config import arguments
from trainer.config.arguments import CommandLine
from trainer.config.settings import Settings


def changed_by(words: CommandLine, stored: Settings) -> tuple[Settings, dict[str, str]]:
    """Return a run's settings with the words of a command applied, and the options that the words choose by group."""
    if not words.overrides:
        return stored, {}
    from trainer.config.compose import override

    catalog = words.catalog()
    (choice,) = arguments.jobs(words, catalog)
    return override(stored, choice, catalog), dict(word.split("=", 1) for word in choice.groups)
