"""The user's own modules: kept with the run that imports them, imported again only when known. Without torch."""

from __future__ import annotations

import hashlib
import importlib.machinery
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.errors import UsageError, refusal
from trainer.reading import content
from trainer.rundir import RunDir
from trainer.settings import COMPONENTS, Settings

OURS = ("trainer.", "torch.nn.", "torch.optim.")
_NAME = re.compile(r"(?:[A-Za-z_]\w*/)*[A-Za-z_]\w*\.py", re.ASCII)


def is_ours(target: str) -> bool:
    """Say whether a `_target_` is a public name of trainer or torch, which anybody's run may import."""
    return target.startswith(OURS) and not any(part.startswith("_") for part in target.split("."))


def used(rundir: RunDir | None = None) -> dict[str, bytes]:
    """Return the source of every module that was imported from the working directory, or from a run's own copies.

    Returns:
        Sources by path, relative to the folder that they were imported from.
    """
    roots = [Path.cwd()] if rundir is None else [rundir.code.absolute(), Path.cwd()]
    found: dict[str, bytes] = {}
    for file in _files():
        root = next((root for root in roots if file.is_relative_to(root)), None)
        if root is not None and _NAME.fullmatch(name := file.relative_to(root).as_posix()) and file.is_file():
            found.setdefault(name, file.read_bytes())
    return dict(sorted(found.items()))


def sums(sources: dict[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each source."""
    return {name: hashlib.sha256(source).hexdigest() for name, source in sources.items()}


def require_known(rundir: RunDir, settings: Settings, command: str, trust: bool, force: bool) -> None:
    """Refuse a run that would import code which may be somebody else's or has changed; nothing is imported here.

    Args:
        rundir: The run.
        settings: Its configuration.
        command: What the user typed, to be typed again with a flag.
        trust: Whether the user trusts the code that came with the run.
        force: Whether to go on with modules that have changed.

    Raises:
        UsageError: It would; names the file to read and the whole command to type.
    """
    targets = dict(_foreign(settings))
    if not targets or trust:
        return
    saved = {name: sum_ for name, sum_ in rundir.read_status().get("code", {}).items() if _NAME.fullmatch(name)}
    here = {name: _sum(Path(name)) for name in saved}
    missing = {group: target for group, target in targets.items() if not _source(target) & saved.keys()}
    changed = [name for name, sum_ in here.items() if sum_ not in (None, saved[name])]
    if here == saved and not missing:
        return
    if changed and not missing and None not in here.values():
        if force:
            return
        raise refusal(
            changed[0],
            "has changed since the run started, so it would be another run",
            f"`{command} --force` to go on with it as it is now, or `{command} --trust-code` with the run's own copy",
        )
    group, target = next(iter((missing or targets).items()))
    place = _whereabouts(rundir, target)
    if place is None:
        raise refusal(f"{group}._target_={target}", "is code that neither came with the run nor is here")
    raise refusal(
        f"{group}._target_={target}",
        f"is code that may be somebody else's; read {place} first",
        f"`{command} --trust-code` runs it",
    )


def trust(rundir: RunDir) -> None:
    """Let the run's own copies of modules be imported, before those of the working directory.

    Raises:
        UsageError: There is something else than sources, which one could have read.
    """
    for path in rundir.code.rglob("*"):
        if path.is_symlink() or (path.is_file() and path.suffix != ".py"):
            raise UsageError(f"{path} is no source of a module; delete it to trust the rest")
    sys.dont_write_bytecode = True  # it would be the next thing that is no source
    if rundir.code.is_dir() and str(rundir.code.absolute()) not in sys.path:
        sys.path.append(str(rundir.code.absolute()))


def search_working_directory() -> None:
    """Let modules of the working directory be imported, last: a queue.py there must not shadow the standard one."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def _foreign(settings: Settings) -> Iterator[tuple[str, str]]:
    for group in COMPONENTS:
        target: Any = getattr(settings, group).get("_target_")
        if isinstance(target, str) and not is_ours(target):
            yield group, target


def _files() -> Iterator[Path]:
    """Yield the files of imported modules that neither trainer nor an installation has brought."""
    package, outside = Path(__file__).parent, (sys.prefix, sys.base_prefix, sys.exec_prefix)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and name != "__main__" and "site-packages" not in file:
            path = Path(file).absolute()
            if not path.is_relative_to(package) and not any(path.is_relative_to(prefix) for prefix in outside):
                yield path


def _source(target: str) -> set[str]:
    """Return the files that a `_target_`'s module may have."""
    module = PurePosixPath(*target.split(".")[:-1])
    return {f"{module}.py", f"{module}/__init__.py"}


def _sum(path: Path) -> str | None:
    try:
        return hashlib.sha256(content(path)).hexdigest()
    except (OSError, ValueError):
        return None


def _whereabouts(rundir: RunDir, target: str) -> str | None:
    """Return the file that a `_target_` would be imported from, if there is one; nothing is imported."""
    for name in sorted(_source(target)):
        if (rundir.code / name).is_file():
            return str(rundir.code / name)
    top = target.partition(".")[0]
    spec = importlib.machinery.PathFinder.find_spec(top, [*sys.path, str(Path.cwd())])
    return spec.origin if spec else None
