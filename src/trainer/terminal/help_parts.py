"""Makes the parts of help texts that list config options and settings. Without rich and YAML."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress

from trainer.config import settings
from trainer.config.catalog import GROUPS, Catalog
from trainer.text import show

_WIDEST, _USUAL = 100, 80  # columns
USED_MOST = (
    *("steps", "epochs", "batch_size", "seed", "patience", "clip_norm", "init_from", "name", "run_dir"),
    *("checkpoint.every", "device.dtype", "device.threads"),
)


def filled(text: str, argv: Sequence[str]) -> str:
    """Return a help text with its {placeholders} filled in.

    Args:
        text: The help text of a command.
        argv: The words of the command, which may name more config folders.

    Raises:
        UsageError: A word is invalid.
    """
    parts: dict[str, Callable[[], str]] = {
        "{groups}": _groups,
        "{options}": lambda: _options(_catalog(argv)),
        "{settings}": _described,
        "{replans}": lambda: _changeable(settings.REPLANS),
        "{harmless}": lambda: _changeable(settings.HARMLESS),
    }
    for mark, part in parts.items():
        text = text.replace(mark, part()) if mark in text else text
    return text


def _catalog(argv: Sequence[str]) -> Catalog:
    """Return the catalog of options, including those in config folders named by the words."""
    if not any(word.startswith(("-cd", "--config-dir")) for word in argv):
        return Catalog()
    from trainer.config import arguments, secrets

    secrets.words(argv)  # hides them in a message about another word
    return arguments.split(list(argv)).catalog()


def _groups() -> str:
    return "\n".join(f"  {group:<12} {what}" for group, what in GROUPS.items())


def _options(catalog: Catalog) -> str:
    """Return a paragraph for each group: its options, the default marked with a star."""
    defaults = catalog.defaults()
    texts = {}
    for group in GROUPS:
        names = (name + "*" * (name == defaults.get(group)) for name in catalog.options(group))
        texts[group] = ", ".join(names) or "none yet"
    return _columns(texts)


def _described() -> str:
    """Return a paragraph for each of the most used settings: its default and meaning."""
    known = settings.documented()
    return _columns({f"{key}={show(known[key][0])}": known[key][1] for key in USED_MOST})


def _changeable(kind: str) -> str:
    """Return the settings of a kind of `settings.resume_kind` as one paragraph."""
    keys = [key for key in settings.documented() if settings.resume_kind(key) == kind]
    return _filled(", ".join(keys), "  ", "  ")


def _columns(texts: dict[str, str]) -> str:
    indent = min(max(map(len, texts)) + 4, _width() // 2)
    return "\n".join(_filled(text, f"  {name}  ".ljust(indent), " " * indent) for name, text in texts.items())


def _filled(text: str, first: str, others: str) -> str:
    return textwrap.fill(
        text,
        _width(),
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _width() -> int:
    """Return the columns of a line like shutil.get_terminal_size, without the cost of importing shutil."""
    columns = os.environ.get("COLUMNS", "")
    found = int(columns) if columns.isdecimal() else 0
    if not found and sys.__stdout__ is not None:
        with suppress(OSError, ValueError):
            found = os.get_terminal_size(sys.__stdout__.fileno()).columns
    return min(found or _USUAL, _WIDEST) - 1
