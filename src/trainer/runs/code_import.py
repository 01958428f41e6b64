"""Imports the user's modules from the bytes that a run kept of them: no folder of the run joins sys.path."""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from trainer.errors import UsageError

_executed: WeakKeyDictionary[ModuleType, bytes] = WeakKeyDictionary()


class Source(NamedTuple):
    """A module's source, and the file that it was read from."""

    content: bytes
    file: Path


class CodeImporter(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and loads modules of certain names, each from bytes in memory.

    Args:
        sources: The sources by the path that a module of that name has below a folder of sys.path.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = dict(sources)
        self._sources = {name_of(path): source for path, source in sources.items()}
        self._packages = {name_of(path) for path in sources if path.endswith("/__init__.py")}
        parents = (name.rpartition(".")[0] for name in self._sources)
        self._packages |= {parent for name in parents if name for parent in _and_above(name)} - {""}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return how a module of a known name is loaded, None of any other name."""
        if fullname.partition(".")[0] in sys.stdlib_module_names:
            return None  # as when the run was trained: what the user has there comes last
        is_package = fullname in self._packages
        if fullname not in self._sources:
            if not is_package:
                return None
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = []
            return spec
        file = str(self._sources[fullname].file)
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=file, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = []
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Execute a module and remember what was executed."""
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
    """Let modules be imported from memory, before others of their names.

    Raises:
        UsageError: One of them is imported already, or to be imported, with another content.
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
    """Forget the modules that could be imported from memory; those that have been imported stay."""
    sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, CodeImporter)]


def executed(module: ModuleType) -> bytes | None:
    """Return the source of a module as it was executed, as far as that is known; None where there is no source."""
    if module not in _executed:
        file: Any = getattr(module, "__file__", None)
        try:
            _executed[module] = Path(file).read_bytes()
        except (TypeError, OSError):
            return None
    return _executed[module]


def name_of(path: str) -> str:
    """Return the name of the module that has a path below a folder of sys.path."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def sum_of(content: bytes) -> str:
    """Return the SHA-256 of a source, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _and_above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
