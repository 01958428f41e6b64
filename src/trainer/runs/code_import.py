"""Imports the user's modules from the copies kept with a run, without adding a folder of the run to sys.path."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import CodeType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from trainer.errors import UsageError

_executed: WeakKeyDictionary[ModuleType, bytes] = WeakKeyDictionary()


class Source(NamedTuple):
    """A module's source, and the file it was read from."""

    content: bytes
    file: Path


class CodeImporter(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and loads modules of certain names from bytes in memory.

    Args:
        sources: The sources by path relative to a folder of sys.path.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = dict(sources)
        self._sources = {name_of(path): source for path, source in sources.items()}
        self._packages = {".".join(folder.parts) for path in sources for folder in PurePosixPath(path).parents} - {""}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module of a known name, None for other names."""
        if fullname.partition(".")[0] in sys.stdlib_module_names:
            return None  # as when the run was trained, the standard library takes precedence over the user's modules
        source, is_package = self._sources.get(fullname), fullname in self._packages
        if source is None:
            return importlib.machinery.ModuleSpec(fullname, None, is_package=True) if is_package else None
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=str(source.file), is_package=is_package)
        spec.has_location = True
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Execute a module and remember the executed source."""
        _executed[module] = self._sources[module.__name__].content
        super().exec_module(module)

    def is_package(self, fullname: str) -> bool:
        """Return whether a module is a package."""
        return fullname in self._packages

    def get_source(self, fullname: str) -> str:
        """Return the source of a module as text."""
        return importlib.util.decode_source(self._sources[fullname].content)

    def get_code(self, fullname: str) -> CodeType:
        """Return the compiled source of a module."""
        source = self._sources[fullname]
        code: CodeType = compile(source.content, str(source.file), "exec", dont_inherit=True)
        return code


def install(sources: Mapping[str, Source]) -> None:
    """Make modules importable from memory, ahead of others with the same names.

    Raises:
        UsageError: A module with other content is already imported or importable from memory.
    """
    before = next((one for one in sys.meta_path if isinstance(one, CodeImporter)), None)
    known = {} if before is None else before.sources
    for path, source in sources.items():
        module = sys.modules.get(name_of(path))
        there = known[path].file if path in known else Path(getattr(module, "__file__", None) or "elsewhere")
        there_content = known[path].content if path in known else module and executed(module)
        if (path in known or module is not None) and there_content != source.content:
            raise UsageError(f"{source.file} and {there} differ, and a process can import only one of them")
    if before is not None:
        sys.meta_path.remove(before)
    sys.meta_path.insert(0, CodeImporter({**known, **sources}))


def uninstall() -> None:
    """Make modules no longer importable from memory; those already imported stay."""
    sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, CodeImporter)]


def executed(module: ModuleType) -> bytes | None:
    """Return the source of a module as it was executed, else as it is in its file; None if it has no source."""
    if module not in _executed:
        file: Any = getattr(module, "__file__", None)
        try:
            _executed[module] = Path(file).read_bytes()
        except (TypeError, OSError):
            return None
    return _executed[module]


def name_of(path: str) -> str:
    """Return the name of the module with a path relative to a folder of sys.path."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
