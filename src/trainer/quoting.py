"""Writes settings as they are typed: what one quotes here, Hydra and the shell read back."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

_BARE = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z_][\w./-]*", re.IGNORECASE | re.ASCII)
# A name in a choice, after what stays as it is: quoted texts, patterns, ranges, functions and their arguments.
_NAME = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?:glob|range|interval)\([^()]*\)|\w+\s*(?=\()|\w+=(?=[^(]*\))"""
    r"""|(?P<name>[^\s,()\[\]{}'"][^,()\[\]{}'"]*)"""
)


def word(key: str, given: Any) -> str:
    """Write a setting as Hydra reads it, quoted where its value needs quotes."""
    return f"{key}={value(given)}"


def typed(key: str, given: Any) -> str:
    """Write a setting as it is typed into a shell."""
    return shell(word(key, given))


def command(words: Iterable[str]) -> str:
    """Join words to a line for a shell, in double quotes those that hold single ones."""
    return " ".join(map(shell, words))


def shell(word: str) -> str:
    """Quote a word for a shell, in double quotes if it holds single ones and nothing that these would change."""
    return f'"{word}"' if "'" in word and not {*'"$`\\!'} & {*word} else shlex.quote(word)


def choice(given: str, options: Iterable[str]) -> str:
    """Return a typed choice with quotes around the names in it: Hydra reads 2024, true and null as values.

    Args:
        given: A name, or names in a sweep or a list.
        options: The names of the options.
    """
    named, known = [name.strip() for name in given.split(",")], {option.lower() for option in options}
    if all(name.lower() in known for name in named):
        return ",".join(map(_quoted, named))
    return _NAME.sub(lambda found: _quoted(found["name"].strip()) if found["name"] else found[0], given)


def corrected(key: str, given: str) -> str:
    """Write a setting whose value Hydra can't read as it was meant, as it is typed into a shell.

    Args:
        key: The key.
        given: The value, as it was typed: text, or a list of texts in brackets.
    """
    if given[:1] == "[" and given[-1:] == "]":
        return typed(key, [item.strip().strip("'\"") for item in given[1:-1].split(",")])
    return typed(key, given)


def value(given: Any) -> str:
    """Write a value as Hydra reads it, quoted where it needs quotes."""
    if isinstance(given, str | os.PathLike):
        text = os.fspath(given)
        return text if _BARE.fullmatch(text) else _quoted(text)
    if isinstance(given, Mapping):
        return "{" + ",".join(f"{value(key)}:{value(inner)}" for key, inner in given.items()) + "}"
    if isinstance(given, list | tuple):
        return "[" + ",".join(map(value, given)) + "]"
    return "null" if given is None else str(given).lower() if isinstance(given, bool) else str(given)


def _quoted(text: str) -> str:
    """Quote a text for Hydra, which takes a backslash for itself unless a quote follows."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", "\\'"), text) + "'"
