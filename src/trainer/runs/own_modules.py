"""Finds the user's own modules that a job has imported or an import would find. Without torch."""

from __future__ import annotations

import ast
import functools
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path, PurePosixPath
from types import ModuleType

import trainer
from trainer.files import reading
from trainer.runs import code_import

NAME = re.compile(r"(?:[^\W\d]\w*/)*[^\W\d]\w*\.py")  # the path of a module's source relative to a folder of sys.path
_INSTALLED = ("site-packages", "dist-packages")  # also matches the user's site-packages
_FIXED = tuple(
    os.path.realpath(str(folder)) + os.sep
    for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *trainer.__path__)
)
_at_start = {*sys.modules}  # modules that this command did not import


def sources(classes: Iterable[str]) -> dict[str, bytes]:
    """Return the sources of the user's modules that a job has imported or may import later.

    Args:
        classes: The full names of the job's classes.

    Returns:
        Sources by path relative to a folder of sys.path.
    """
    found: dict[str, bytes] = {}
    names = [prefix for name in classes for prefix in accumulate(name.split(".")[:-1], "{}.{}".format)]
    names += [name for name in {*sys.modules} - _at_start if _own_file(name) is not None]
    while names:
        name = names.pop()
        file = _own_file(name)
        if file is None or (path := _path_of(name, file)) in found or not NAME.fullmatch(path):
            continue
        source = code_import.executed(sys.modules[name]) if name in sys.modules else content_of(file)
        if source is None:
            continue
        found[path] = source
        names += [*_imports(source, name, is_package=file.name == "__init__.py"), name.rpartition(".")[0]]
    return dict(sorted(found.items()))


def begin() -> None:
    """Note the modules imported before a command, to tell them from those that the command imports."""
    _at_start.clear()
    _at_start.update(sys.modules)


def installed_file(target: str) -> Path | None:
    """Return the file of the module of a `_target_`, or of its package, without importing anything."""
    parts = target.split(".")[:-1]
    names = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    files = (on_path(f"{name}{end}") for name in names for end in (".py", "/__init__.py"))
    return next((file for file in files if file is not None), None)


def _own_file(name: str) -> Path | None:
    """Return the source file of a module, imported or not, unless it belongs to trainer or an installation."""
    module: ModuleType | None = sys.modules.get(name)
    if module is None:
        found = on_path(f"{name.replace('.', '/')}.py") or on_path(f"{name.replace('.', '/')}/__init__.py")
        file = None if found is None else str(found)
    else:
        file = getattr(module, "__file__", None)
    if name.startswith("__") or not isinstance(file, str) or not file.endswith(".py") or _is_installed(file):
        return None
    return Path(file) if module is not None or Path(file).is_file() else None


@functools.cache  # called for thousands of modules for each job
def _is_installed(file: str) -> bool:
    """Return whether a module belongs to the standard library, trainer or any site-packages."""
    full = os.path.realpath(file)
    return full.startswith(_FIXED) or any(f"{os.sep}{folder}{os.sep}" in f"{file} {full}" for folder in _INSTALLED)


def _path_of(name: str, file: Path) -> str:
    module = PurePosixPath(*name.split("."))
    return f"{module}/__init__.py" if file.name == "__init__.py" else f"{module}.py"


@functools.lru_cache(maxsize=1000)
def _imports(source: bytes, name: str, is_package: bool) -> tuple[str, ...]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):  # importing it reports the error
        return ()
    return tuple(_imported(tree, name, is_package))


def _imported(tree: ast.Module, name: str, is_package: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def here(path: str) -> Path | None:
    """Return the file of the module that was or would be imported for a path, None if there is none."""
    file = getattr(sys.modules.get(code_import.name_of(path)), "__file__", None)
    return on_path(path) if file is None or not Path(file).is_file() else Path(file)


def on_path(path: str) -> Path | None:
    """Return the file that an import would find for a path, in the working directory last; None if there is none."""
    places = (Path(folder or ".").absolute() / path for folder in (*sys.path, str(Path.cwd())))
    return next((place for place in places if place.is_file()), None)


def content_of(file: Path) -> bytes | None:
    """Return the content of a file, symlinks resolved; None if it can't be read."""
    try:
        return reading.content(file.resolve())
    except (OSError, ValueError):
        return None
