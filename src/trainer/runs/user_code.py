"""The custom code of a run: keeps copies of it, and imports it only if the user trusts it. Without torch."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from trainer.config.settings import COMPONENTS, LOGGER, OBJECT, Settings
from trainer.config.targets import foreign, is_ours, search_working_directory
from trainer.errors import UsageError, refusal
from trainer.files.sums import sha256
from trainer.runs import code_import, own_modules, trust_list
from trainer.runs.code_import import Source
from trainer.runs.directory import RunDirectory

_NAMED = 3  # files that a refusal lists


@dataclass(frozen=True)
class OwnCode:
    """The code beyond trainer and torch that a run, or the launcher of a sweep, would execute.

    Args:
        sections: The (group, section) pairs of configurations whose `_target_` is custom code.
        sources: The module sources kept with the run, by path relative to a folder of sys.path.
        launcher: The launcher in sweep.json.
    """

    sections: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    sources: Mapping[str, bytes] | None = None
    launcher: Mapping[str, Any] | None = None

    @property
    def digest(self) -> str:
        """The SHA-256 of sections, sources and launcher."""
        sections = sorted(_json(section) for section in self.sections)
        content = {"sections": sections, "launcher": self.launcher, "modules": sums(self.sources or {})}
        return sha256(_json(content).encode())

    @property
    def targets(self) -> dict[str, str]:
        """The classes named in the sections, with their groups."""
        return {str(section["_target_"]): group for group, section in self.sections}

    @property
    def installed(self) -> dict[str, str]:
        """The classes whose modules are not kept with the run, with their groups."""
        kept = {*(self.sources or {})}
        return {
            target: group
            for target, group in self.targets.items()
            if target.partition(".")[0] in sys.stdlib_module_names or not _paths(target) & kept
        }


def of_configs(configs: Iterable[Mapping[str, Any]], sources: Mapping[str, bytes]) -> OwnCode | None:
    """Return the custom code of a run with these configurations, None if it has none.

    Args:
        configs: The current configuration and those of its segments.
        sources: The modules kept with the run.
    """
    found = {_json(section): section for config in configs for section in _own_sections(config)}
    return OwnCode(tuple(found.values()), sources) if found else None


def of_run(rundir: RunDirectory, config: Mapping[str, Any] | None = None) -> OwnCode | None:
    """Return the custom code of a run, None if it has none.

    Args:
        rundir: The run.
        config: Its configuration, if already read.

    Raises:
        UsageError: The copies of its modules can't be read.
    """
    configs = _all_configs(rundir.read_config() if config is None else config, rundir.read_status())
    if of_configs(configs, {}) is None:
        return None
    try:
        sources = {path: source for path, source in rundir.read_code().items() if own_modules.NAME.fullmatch(path)}
    except (OSError, ValueError) as error:
        raise UsageError(f"{rundir.code}: {error}") from error
    for path in sources:
        if code_import.name_of(path).partition(".")[0] in sys.stdlib_module_names:
            reason = "has the name of a standard library module, which would be imported instead"
            raise refusal(str(rundir.code / path), reason, "no such file")
    return of_configs(configs, sources)


def _all_configs(config: Mapping[str, Any], status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return every configuration that a run has or had: from config.yaml, and from status.json."""
    segments = status.get("segments") or []
    return [config, status.get("config") or {}, *(one.get("config") or {} for one in segments)]


def require_unchanged(rundir: RunDirectory, config: Mapping[str, Any], digest: str | None) -> OwnCode | None:
    """Return the custom code of a run if it has the given digest; None if the run should have none.

    Raises:
        UsageError: The digest differs.
    """
    own = of_run(rundir, config)
    if (own and own.digest) != digest:
        raise UsageError(f"{rundir.path}: the code it would execute has changed since it was checked")
    return own


class Opened(NamedTuple):
    """The custom code of runs that may now be imported.

    Args:
        code: The checked code of each run, by directory.
        changed: The files of modules that differ from the run's copies and are used as they are now.
    """

    code: dict[Path, OwnCode]
    changed: list[str]

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each run's code, by the name of its directory."""
        return {path.name: own.digest for path, own in self.code.items()}


def open_code(
    configs: Mapping[RunDirectory, Mapping[str, Any]],
    command: str,
    trust: bool = False,
    force: bool = False,
    typed: Iterable[str] = (),
) -> Opened:
    """Allow the custom code of runs to be imported if it is on the user's list, or once if the user trusts it.

    Args:
        configs: The configuration of a run, or of each job of a sweep.
        command: The whole command, for messages that repeat it with a flag.
        trust: Whether the user trusts the copies that came with the runs.
        force: Whether to use changed modules as they are now.
        typed: Classes that the user has typed, which are imported from sys.path and must be those of the run.

    Raises:
        UsageError: The code is not trusted or has changed; the message names the files to read and the command to type.
    """
    code_import.uninstall()
    found = {rundir: own for rundir, config in configs.items() if (own := of_run(rundir, config)) is not None}
    for rundir, own in found.items():
        if trust_list.contains(own.digest):
            continue
        if not own.targets.keys() <= {*typed}:
            _require_flag(rundir, own, command, trust, is_sweep=len(configs) > 1)
        elif missing := [path for path in own.sources or () if own_modules.here(path) is None]:
            raise refusal(missing[0], "came with the run but is missing here", f"`{command} --trust-code`")
        if problem := differing(rundir, own.sources or {}):
            raise UsageError(problem)
    changed = admit(found, command, trust, force)
    if typed:
        search_working_directory()
    return Opened({rundir.path: own for rundir, own in found.items()}, changed)


def admit(found: Mapping[RunDirectory, OwnCode], command: str, trust: bool, force: bool) -> list[str]:
    """Make the modules of runs importable from memory, and return the changed files that are used as they are now.

    Args:
        found: The custom code of runs.
        command: The whole command, for messages that repeat it with a flag.
        trust: Whether to use the runs' copies of changed modules.
        force: Whether to use changed modules as they are now.

    Raises:
        UsageError: A module has changed, and neither flag says which version to use.
    """
    sources: dict[str, Source] = {}
    changed: dict[str, Path] = {}
    for rundir, own in found.items():
        for path, content in (own.sources or {}).items():
            place = own_modules.here(path)
            now = None if place is None else own_modules.content_of(place) or b""
            source = Source(content, rundir.code / path)
            if place is not None and now is not None and (now == content or not trust):
                source = Source(now, place)  # so that the module finds files next to it
            if source.content != content and place is not None:
                changed[path] = place
            if path in sources and sources[path].content != source.content:
                raise UsageError(f"{sources[path].file} and {source.file} differ; resume the jobs one by one")
            sources[path] = source
    if changed and not force:
        raise refusal(
            str(next(iter(changed.values()))),
            "differs from the copy that the run keeps, so the results would be those of different code",
            f"`{command} --force` uses the current file, `{command} --trust-code` the run's copy",
        )
    code_import.install(sources)
    if changed:
        search_working_directory()  # a changed module may import new ones
    return [str(place) for place in changed.values()]


def _require_flag(rundir: RunDirectory, own: OwnCode, command: str, trust: bool, is_sweep: bool) -> None:
    """Refuse a run that is not on the user's list, unless --trust-code covers all of its code."""
    whole = RunDirectory(rundir.path.parent) if is_sweep else rundir
    again = f"`trainer trust {shlex.quote(whole.short)}` adds it to your list of trusted code (--dry-run: shows it)"
    if problem := trust_list.problem():
        again += f", which can't be used now: {problem}"
    for target, group in own.installed.items():
        place = own_modules.installed_file(target)
        if place is None:
            raise refusal(f"{group}._target_={target}", "is code that did not come with the run and is not installed")
        reason = f"is code that did not come with the run: it would be imported from {place}"
        raise refusal(f"{group}._target_={target}", reason, again)
    if not trust:
        target, group = next(iter(own.targets.items()))
        files = [str(rundir.code / path) for path in own.sources or ()]
        more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
        reason = f"is code that you have not trusted; read {', '.join(files[:_NAMED])}{more} first"
        raise refusal(f"{group}._target_={target}", reason, f"`{command} --trust-code` runs it once; {again}")


def used(settings: Settings) -> dict[str, bytes]:
    """Return the sources of the user's modules that a job has imported, by path; none without classes of the user's."""
    classes = [name for key in ("_target_", OBJECT) for _, name in foreign(settings, key)]
    return own_modules.sources(classes) if classes else {}


def keep(rundir: RunDirectory, sources: Mapping[str, bytes], before: OwnCode | None) -> dict[str, str]:
    """Keep the modules that a run has imported, and only those.

    Args:
        rundir: The run.
        sources: The sources of the imported modules.
        before: Its custom code as it was opened, None if it had none.

    Returns:
        The SHA-256 of all modules that are kept, by path.
    """
    kept_now = to_keep(sources, before)
    if kept_now != ((before and before.sources) or {}):
        rundir.write_code(kept_now)
    return sums(kept_now)


def to_keep(sources: Mapping[str, bytes], before: OwnCode | None) -> Mapping[str, bytes]:
    """Return the modules to keep with a run; arguments as for `keep`."""
    opened = (before and before.sources) or {}
    # Earlier copies stay: some modules are imported later, or have been installed since.
    return opened if sources.items() <= opened.items() else sources


def trust_next(
    rundir: RunDirectory,
    before: OwnCode | None,
    status: Mapping[str, Any],
    sources: Mapping[str, bytes],
) -> list[str]:
    """Add the next code of a trusted run to the user's list, before any of it is written; return notes for the user.

    Args:
        rundir: The run.
        before: Its custom code as it was opened, None if it had none.
        status: Its next status.json, with the configuration to continue with and its earlier starts.
        sources: The modules that will be kept with it.
    """
    if before is not None and not trust_list.contains(before.digest):
        return []
    config = rundir.read_config()
    # A kill may leave new modules with the old status.json, or the new status.json with the old config.yaml.
    states = [(config, rundir.read_status()), (config, status), (status["config"], status)]
    found = [of_configs(_all_configs(*state), sources) for state in states]
    return trust_list.remarks(own.digest for own in found if own is not None)


def sums(sources: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each source."""
    return {name: sha256(source) for name, source in sources.items()}


def kept(rundir: RunDirectory) -> dict[str, str]:
    """Return the SHA-256 of the modules kept with a run, by path, as recorded in status.json."""
    recorded: dict[str, str] = rundir.read_status().get("code", {})
    return {name: sum_ for name, sum_ in recorded.items() if own_modules.NAME.fullmatch(name)}


def differing(rundir: RunDirectory, sources: Mapping[str, bytes]) -> str | None:
    """Return a problem if a kept module differs from the record in status.json; None if there is no record."""
    if "code" not in rundir.read_status():
        return None
    here, saved = sums(sources), kept(rundir)
    name = next((name for name in sorted({*here, *saved}) if here.get(name) != saved.get(name)), None)
    what = "is missing" if name not in here else "has changed: its SHA-256 differs from the one in status.json"
    return None if name is None else f"{rundir.code / name} {what}"


def _own_sections(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the sections of an unchecked configuration whose `_target_` is custom code."""
    loggers = config.get(LOGGER)
    found = {group: config.get(group) for group in COMPONENTS}
    found.update({f"{LOGGER}.{key}": one for key, one in (loggers if isinstance(loggers, dict) else {}).items()})
    for group, section in found.items():
        if isinstance(section, dict) and isinstance(target := section.get("_target_"), str) and not is_ours(target):
            yield group, section


def _paths(target: str) -> set[str]:
    """Return the possible paths of a `_target_`'s module, relative to a folder of sys.path."""
    module = PurePosixPath(*target.split(".")[:-1])
    return {f"{module}.py", f"{module}/__init__.py"}


def _json(data: Any) -> str:
    return json.dumps(data, sort_keys=True)
