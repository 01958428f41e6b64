"""Writes settings as they are typed: what one quotes here, Hydra and the shell read back."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from trainer.text import show

_BARE = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z_][\w./-]*", re.IGNORECASE | re.ASCII)
# A name in a choice, after what stays as it is: quoted texts, patterns, ranges, functions and their arguments.
_NAME = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?:glob|range|interval)\([^()]*\)|\w+\s*(?=\()|\w+=(?=[^(]*\))"""
    r"""|(?P<name>[^\s,()\[\]{}'"][^,()\[\]{}'"]*)"""
)


def word(key: str, value: Any) -> str:
    """Write a setting as Hydra reads it, quoted where its value needs quotes."""
    return f"{key}={_written(value)}"


def command(words: Iterable[str]) -> str:
    """Join words to a line for a shell, in double quotes those that hold single ones."""
    return " ".join(map(shell, words))


def shell(word: str) -> str:
    """Quote a word for a shell, in double quotes if it holds single ones and nothing that these would change."""
    return f'"{word}"' if "'" in word and not {*'"$`\\!'} & {*word} else shlex.quote(word)


def choice(value: str, options: Iterable[str]) -> str:
    """Return a typed choice with quotes around the names in it: Hydra reads 2024, true and null as values.

    Args:
        value: A name, or names in a sweep or a list.
        options: The names of the options.
    """
    named, known = [name.strip() for name in value.split(",")], {option.lower() for option in options}
    if all(name.lower() in known for name in named):
        return ",".join(map(_quoted, named))
    return _NAME.sub(lambda found: _quoted(found["name"].strip()) if found["name"] else found[0], value)


def _written(value: Any) -> str:
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        return text if _BARE.fullmatch(text) else _quoted(text)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_written(key)}:{_written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_written, value)) + "]"
    return show(value)


def _quoted(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()
