"""Reads what the source of a class says about a constructor argument: its description and its line. Without torch."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_HEADER = re.compile(r"\s*(?:Args|Arguments|Parameters|Other Parameters|Keyword Arg(?:ument)?s)\s*:?\s*", re.IGNORECASE)
_DEFAULT = re.compile(r"\(default\b(?:[^()]|\([^()]*\))*\)", re.IGNORECASE)
_ROLE = re.compile(r"(?::[\w:]+:)?(`+)~?([^`]+?)(?:\s*<[^`]*>)?\1_*")  # :class:`name`, ``name``, `name <link>`__
_SENTENCE = re.compile(r".{25,}?[.](?=\s+[A-Z'\"(:])")  # at least 25 characters: "A float in [0.0, 1.0]." says little
_WORDS = {"None": "null", "True": "true", "False": "false"}


class Place(NamedTuple):
    """A line of a source.

    Args:
        file: The file.
        name: Its path relative to the folder of its package.
        line: The line, counted from 1.
    """

    file: Path
    name: str
    line: int


def sentence(cls: type[Any], name: str) -> str:
    """Return the first sentence about an argument in the docstrings of a class; empty if there is none.

    Args:
        cls: The class. The docstrings of the class, its bases and their constructors may be in Google, torch or
            numpydoc style.
        name: The argument.
    """
    texts = (_described(doc, name) for doc in _docstrings(cls))
    parts = (part.strip() for text in texts for part in _DEFAULT.split(text))
    text = _ROLE.sub(r"\2", next(filter(None, parts), ""))
    first = _SENTENCE.match(text)
    found = (first[0] if first else text).rstrip(". ")
    return re.sub(r"\b(?:None|True|False)\b", lambda match: _WORDS[match[0]], found)


def place(cls: type[Any], name: str) -> Place | None:
    """Return where a class declares an argument, in its constructor or as a field; None without source."""
    parts = (inspect.unwrap(cls.__init__), *cls.__mro__)
    return next((names[name] for names in map(_named_in, parts) if name in names), None)


@functools.lru_cache(maxsize=64)  # to find a class, its whole file must be parsed
def _named_in(part: Any) -> dict[str, Place]:
    """Return where a function declares its arguments, or a class its annotated fields; {} without source."""
    try:
        file, (_, first) = inspect.getsourcefile(part), inspect.getsourcelines(part)
    except (OSError, TypeError):
        return {}
    if file is None:
        return {}
    path = Path(file)
    depth = part.__module__.count(".") + 1 + (path.stem == "__init__")
    name = "/".join(path.parts[-depth:])
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {
        argument: Place(path, name, line)
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and _first_line(node) == first
        for argument, line in _names(node)
    }


def _docstrings(cls: type[Any]) -> Iterator[str]:
    for base in cls.__mro__[:-1]:
        own = vars(base)
        for doc in (own.get("__doc__"), own["__init__"].__doc__ if "__init__" in own else None):
            if doc:
                yield inspect.cleandoc(doc)


def _described(doc: str, name: str) -> str:
    """Return the description of an argument in a docstring, on one line; empty if there is none."""
    lines = doc.splitlines()
    start = next((i for i, line in enumerate(lines) if _HEADER.fullmatch(line)), len(lines))
    is_numpydoc = start + 1 < len(lines) and re.fullmatch(r"\s*-{3,}\s*", lines[start + 1])
    entry = re.compile(rf"(\s*)(?:\*?\w+, )*\*{{0,2}}{re.escape(name)}(?:, \*?\w+)*\s*(?:\(.*?\)\s*)?(?::(.*))?")
    for number, line in enumerate(lines[start + 1 :], start + 1):
        if (match := entry.fullmatch(line)) is None:
            continue
        text = [] if is_numpydoc else [match[2] or ""]  # in numpydoc style, the type is there
        for more in lines[number + 1 :]:
            if not more.strip() or len(more) - len(more.lstrip()) <= len(match[1]):
                break
            text.append(more)
        return " ".join(" ".join(text).split())
    return ""


def _first_line(node: ast.FunctionDef | ast.ClassDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _names(node: ast.FunctionDef | ast.ClassDef) -> Iterator[tuple[str, int]]:
    """Yield the arguments of a function, or the annotated fields of a class, and their lines."""
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                yield part.target.id, part.lineno
        return
    for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        yield argument.arg, argument.lineno
