"""The parts of a help text that are made from the config folders and the settings. Without torch, Hydra and rich."""

from __future__ import annotations

import shutil
import textwrap

from trainer.config import settings
from trainer.config.catalog import GROUPS, Catalog
from trainer.text import show

_WIDEST = 100  # columns


def groups(catalog: Catalog) -> str:
    """Return a paragraph for each group with its options, the default marked with a star."""
    defaults = catalog.defaults()
    texts = {}
    for group in GROUPS:
        names = (name + "*" * (name == defaults.get(group)) for name in catalog.options(group))
        texts[group] = ", ".join(names) or "none yet"
    return _columns(texts)


def described(*keys: str) -> str:
    """Return a paragraph for each setting with its default and meaning."""
    known = settings.documented()
    return _columns({f"{key}={show(known[key][0])}": known[key][1] for key in keys})


def changeable(kind: str) -> str:
    """Return the settings that a resume may change in a way, as one paragraph.

    Args:
        kind: settings.HARMLESS or settings.REPLANS.
    """
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
    return min(shutil.get_terminal_size().columns, _WIDEST) - 1
