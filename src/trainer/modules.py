"""The user's own modules: kept with the run that imports them, imported again only when known. Without torch."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import sysconfig
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from trainer.errors import UsageError, refusal
from trainer.reading import content
from trainer.rundir import RunDir
from trainer.settings import OBJECT, Settings

OURS = ("trainer.", "torch.nn.", "torch.optim.")
_NAME = re.compile(r"(?:[^\W\d]\w*/)*[^\W\d]\w*\.py")
_INSTALLED = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")} | {str(Path(__file__).parent)}
)


def is_ours(target: str) -> bool:
    """Say whether a `_target_` is a public name of trainer or torch, which anybody's run may import."""
    return target.startswith(OURS) and not any(part.startswith("_") for part in target.split("."))


def used(settings: Settings) -> dict[str, bytes]:
    """Return the sources of the user's modules that a run's classes come from, and of those that these import.

    Returns:
        Sources by the path that a module of that name has below a folder of sys.path.
    """
    found: dict[str, bytes] = {}
    classes = [name for key in ("_target_", OBJECT) for _, name in _foreign(settings, key)]
    names = [prefix for name in classes for prefix in accumulate(name.split(".")[:-1], "{}.{}".format)]
    while names:
        name = names.pop()
        module = sys.modules.get(name)
        file = None if module is None else _own_file(module)
        if module is None or file is None or (path := _path_of(name, file)) in found:
            continue
        found[path] = file.read_bytes()
        names += [*_imports(found[path], name, is_package=file.name == "__init__.py"), name.rpartition(".")[0]]
    return dict(sorted(found.items()))


def sums(sources: dict[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each source."""
    return {name: hashlib.sha256(source).hexdigest() for name, source in sources.items()}


def require_known(rundir: RunDir, settings: Settings, command: str, trust: bool, force: bool) -> list[str]:
    """Refuse a run that would import code which may be somebody else's or has changed; nothing is imported here.

    Args:
        rundir: The run.
        settings: Its configuration.
        command: What the user typed, to be typed again with a flag.
        trust: Whether the user trusts the code that came with the run.
        force: Whether to go on with modules that have changed.

    Returns:
        The modules that have changed.

    Raises:
        UsageError: It would; names what to read and the whole command to type.
    """
    targets = dict(_foreign(settings))
    if not targets or trust:
        return []
    saved = kept(rundir)
    here = {} if _stands_in(rundir) else {name: _sum_of(name) for name in saved}
    known = {group for group, target in targets.items() if any(here.get(name) for name in _paths(target))}
    changed = [name for name in saved if here.get(name) != saved[name]]
    if known == targets.keys():
        if force or not changed:
            return changed
        raise refusal(
            changed[0],
            "has changed since the run started, so it would be another run",
            f"`{command} --force` to go on with it as it is now, or `{command} --trust-code` with the run's own copy",
        )
    group = next(group for group in targets if group not in known)
    what = f"{group}._target_={targets[group]}"
    place = rundir.code if rundir.code.is_dir() else _installed(targets[group])
    if place is None:
        raise refusal(what, "is code that neither came with the run nor is here")
    reason = f"is code that may be somebody else's; read {place} first"
    raise refusal(what, reason, f"`{command} --trust-code` runs it")


def kept(rundir: RunDir) -> dict[str, str]:
    """Return the SHA-256 of the modules that were kept with a run, by their paths."""
    recorded: dict[str, str] = rundir.read_status().get("code", {})
    return {name: sum_ for name, sum_ in recorded.items() if _NAME.fullmatch(name)}


def differing(rundir: RunDir, sources: dict[str, bytes]) -> str | None:
    """Say which of a run's copies is not what was kept, None if all are or nothing tells any more what was."""
    if "code" not in rundir.read_status():
        return None
    here, saved = sums(sources), kept(rundir)
    name = next((name for name in sorted({*here, *saved}) if here.get(name) != saved.get(name)), None)
    what = "is missing" if name not in here else "has changed: its SHA-256 differs from the one in status.json"
    return None if name is None else f"{rundir.code / name} {what}"


def trust(rundirs: list[RunDir]) -> None:
    """Let the copies of modules that came with a run, or with the jobs of a sweep, be imported before others.

    Raises:
        UsageError: There is something else than sources, which one could have read, or the jobs' copies differ.
    """
    copies = {}
    for rundir in rundirs:
        files = sorted(path for path in rundir.code.rglob("*") if not path.is_dir() or path.is_symlink())
        for path in files:
            if path.is_symlink() or path.suffix != ".py":
                raise UsageError(f"{path} is no source of a module; delete it to trust the rest")
        sources = rundir.read_code()
        if problem := differing(rundir, sources):
            raise UsageError(problem)
        copies[rundir.code] = sources
    folders = [folder for folder, sources in copies.items() if sources]
    for folder in folders[1:]:
        if copies[folder] != copies[folders[0]]:
            raise UsageError(f"{folder} and {folders[0]} differ; resume the jobs one by one")
    sys.dont_write_bytecode = True  # it would be the next thing that is no source
    if folders and str(folders[0].absolute()) not in sys.path:
        sys.path.insert(0, str(folders[0].absolute()))


def search_working_directory() -> None:
    """Let modules of the working directory be imported, last: a queue.py there must not shadow the standard one."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def _foreign(settings: Settings, key: str = "_target_") -> Iterator[tuple[str, str]]:
    for group, section in settings.selected.items():
        target: Any = section.get(key)
        if isinstance(target, str) and not is_ours(target):
            yield group, target


def _stands_in(rundir: RunDir) -> bool:
    """Say whether the working directory belongs to the run, which could then vouch for its own code."""
    folder, here = rundir.path.resolve(), Path.cwd().resolve()
    is_job = (folder.parent / "sweep.json").exists()
    return here.is_relative_to(folder) or (is_job and here.is_relative_to(folder.parent))


def _own_file(module: ModuleType) -> Path | None:
    """Return the source of a module that neither trainer nor an installation has brought."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py") or file.startswith(_INSTALLED):
        return None
    return Path(file) if Path(file).is_file() else None


def _path_of(name: str, file: Path) -> str:
    module = PurePosixPath(*name.split("."))
    return f"{module}/__init__.py" if file.name == "__init__.py" else f"{module}.py"


def _imports(source: bytes, name: str, is_package: bool) -> Iterator[str]:
    """Yield the names of modules that a source may import."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _paths(target: str) -> set[str]:
    """Return the paths that a `_target_`'s module may have below a folder of sys.path."""
    module = PurePosixPath(*target.split(".")[:-1])
    return {f"{module}.py", f"{module}/__init__.py"}


def _sum_of(name: str) -> str | None:
    """Return the SHA-256 of the module that an import would find under a path, None if there is none."""
    for folder in (*sys.path, str(Path.cwd())):
        file = Path(folder) / name
        if file.is_file():
            try:
                return hashlib.sha256(content(file.resolve())).hexdigest()
            except (OSError, ValueError):
                return None
    return None


def _installed(target: str) -> Path | None:
    """Return where the package of a `_target_` lies, without importing anything."""
    top = target.partition(".")[0]
    for folder in (*sys.path, str(Path.cwd())):
        for file in (Path(folder) / top / "__init__.py", Path(folder) / f"{top}.py"):
            if top and file.is_file():
                return file
    return None
