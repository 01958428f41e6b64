"""The layers of the package and what its modules import, read from the sources; scripts/architecture.py draws them."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "trainer"

# The lowest layer first. A name is a wing (a folder) or a module of the root.
LAYERS = [
    {"errors", "text", "quoting", "version", "candidates", "termination"},
    {"files", "config", "randomness"},
    {"models", "data", "losses", "metrics", "optimizers", "schedules", "loggers", "checkpoints"},
    {"runs", "training"},
    {"session"},
    {"terminal", "charts", "analysis"},
    {"launch", "pages"},
    {"api", "commands"},
    {"cli"},
]
EXCEPTIONS = {("__init__", "api"), ("__main__", "cli")}
FLOOR = {name: floor for floor, names in enumerate(LAYERS) for name in names}


@cache
def files() -> dict[str, Path]:
    """Every module of the package by its dotted name without `trainer.`; a package ends in `__init__`."""
    return {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts): path
        for path in sorted(SOURCE.rglob("*.py"))
        if "examples" not in path.relative_to(SOURCE).parts
    }


def wing(name: str) -> str:
    """Return the folder that a module is in, or its own name in the root."""
    return name.partition(".")[0]


@cache
def imports(name: str, functions: bool = True, types: bool = True) -> frozenset[str]:
    """Return what a module imports, dotted.

    Args:
        name: The module.
        functions: Whether imports inside functions count.
        types: Whether imports under TYPE_CHECKING count.
    """
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(files()[name].read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not types:
            nodes += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {one for one in names if one.removeprefix("trainer.") in files()}
            found |= names | ({str(node.module)} if names - modules else set())
        if functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)
    return frozenset(found)


def ours(name: str, functions: bool = True, types: bool = True) -> set[str]:
    """Return the modules of the package that a module imports; an empty `__init__` does not count."""
    found = {
        module.removeprefix("trainer.") for module in imports(name, functions, types) if module.startswith("trainer.")
    }
    packages = {f"{module}.__init__" for module in found}
    known = files()
    return {module for module in found | packages if module in known and known[module].stat().st_size} - {name}


def others(name: str, functions: bool = True) -> set[str]:
    """Return the packages that a module imports, for types as well."""
    return {module.partition(".")[0] for module in imports(name, functions)}


@cache
def at_start(name: str) -> frozenset[str]:
    """Return the packages that importing a module imports, directly or through other modules of the package."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += ours(module, functions=False, types=False)
    return frozenset(
        found.partition(".")[0] for module in seen for found in imports(module, functions=False, types=False)
    )


def violations() -> list[str]:
    """Return every import that goes up, or sideways into another wing."""
    found = []
    for name in files():
        for other in sorted(ours(name)):
            here, there = wing(name), wing(other)
            if here == there or (here, there) in EXCEPTIONS or there == "__init__":
                continue
            if here in ("__init__", "__main__"):
                if FLOOR[there] > 0:
                    found.append(f"{name} imports {other}")
            elif FLOOR[there] >= FLOOR[here]:
                found.append(f"{name} imports {other}")
    return found


def circles() -> list[list[str]]:
    """Return the groups of modules that import each other, in whatever way."""
    graph = {name: ours(name) & set(files()) for name in files()}
    graph["__init__"] = set()  # `fit` is imported when it is asked for
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 10_000))
    try:
        for name in graph:
            if name not in index:
                visit(name)
    finally:
        sys.setrecursionlimit(limit)
    return found
