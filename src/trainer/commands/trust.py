"""`trainer trust`: shows the code that runs would execute besides trainer and torch, and adds it to the trust list."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from trainer.config import arguments
from trainer.errors import TrainerError, UsageError, refusal
from trainer.launch import launcher_words
from trainer.runs import directory, find, own_modules, sweep_file, trust_list, user_code
from trainer.runs.directory import RunDirectory
from trainer.runs.user_code import OwnCode
from trainer.terminal import screen

FLAGS = ("--dry-run", "--forget", "--json")


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS, "trust")
    word = words.take_run(alone=True)
    if {"dry_run", "forget"} <= words.flags.keys():
        raise refusal("--dry-run --forget", "only one of them at a time", "--dry-run, --forget")
    if not (folders := find.find_all(word)):
        raise UsageError(f"trust: there are no runs in {Path(word).absolute()}")
    users, problems = _users(folders)
    for unread in problems:
        screen.note(f"warning: {unread}")
    digests = {digest for digest, _, _ in users}
    before = {digest for digest in digests if trust_list.contains(digest)}
    if "forget" in words.flags:
        trust_list.forget(digests)
    elif "dry_run" not in words.flags and (problem := trust_list.add(digests)) is not None:
        raise TrainerError(f"your list of trusted code can't be written: {problem}")
    if "json" in words.flags:
        screen.as_json([_plain(*one) for one in users])
        return 0
    for digest, own, places in users:
        screen.heading(", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else ""), digest[:12])
        screen.rows(_described(own, RunDirectory(Path(places[0]))))
    if digests or not problems:
        _conclude(word, len(digests), len(before), words.flags)
    return 1 if problems else 0


def _users(folders: list[Path]) -> tuple[list[tuple[str, OwnCode, list[str]]], list[str]]:
    """Return the distinct code of runs, each with its digest and the runs that use it, and the problems with others."""
    found: dict[str, tuple[OwnCode, list[str]]] = {}
    problems = []
    for place in screen.track(list(_places(folders)), "reading"):
        try:
            own = _own_code(place)
        except UsageError as error:
            problems.append(str(error))
            continue
        if own is not None:
            found.setdefault(own.digest, (own, []))[1].append(str(place))
    return [(digest, own, places) for digest, (own, places) in found.items()], problems


def _places(folders: list[Path]) -> Iterator[Path]:
    """Yield runs, sweeps and the jobs of sweeps."""
    for folder in folders:
        yield folder
        yield from directory.jobs(folder) if directory.is_sweep(folder) else ()


def _own_code(place: Path) -> OwnCode | None:
    """Return the custom code of a run, a job or a sweep's launcher; None if there is none."""
    if directory.is_sweep(place):
        return launcher_words.launcher_code(sweep_file.read(place))
    return user_code.of_run(RunDirectory(place))


def _described(own: OwnCode, rundir: RunDirectory) -> dict[str, str]:
    """Return the lines about custom code: classes, files to read, packages, launcher."""
    lines: dict[str, str] = {}
    for group, section in own.sections:
        arguments = ", ".join(f"{key}={value}" for key, value in section.items() if key != "_target_")
        line = f"{section['_target_']}" + (f" ({arguments})" if arguments else "")
        lines[group] = f"{lines[group]}; {line}" if group in lines else line
    for target in own.installed:
        lines[f"not in code/: {target}"] = _package(target)
    if own.sources:
        lines["read"] = ", ".join(str(rundir.code / path) for path in own.sources)
    if own.launcher is not None:
        lines["launcher"] = " ".join(map(shlex.quote, own.launcher["words"]))
        if own.launcher["config_dirs"]:
            lines["configs"] = ", ".join(own.launcher["config_dirs"])
    return lines


def _package(target: str) -> str:
    """Return the installed package of a class with its version and place, in words."""
    top = target.partition(".")[0]
    names = metadata.packages_distributions().get(top, [])
    named = ", ".join(f"{name} {metadata.version(name)}" for name in dict.fromkeys(names))
    place = own_modules.installed_file(target)
    return f"{named or 'no installed package'}, {place or 'not found'}"


def _plain(digest: str, own: OwnCode, places: list[str]) -> dict[str, Any]:
    return {
        "digest": digest,
        "trusted": trust_list.contains(digest),
        "runs": places,
        "sections": [{"section": group, **section} for group, section in own.sections],
        "modules": user_code.sums(own.sources or {}),
        "installed": {target: _package(target) for target in own.installed},
        "launcher": own.launcher,
    }


def _conclude(word: str, count: int, before: int, flags: dict[str, str]) -> None:
    """Print the result and the next commands."""
    again = shlex.quote(word)
    if not count:
        screen.say("nothing to trust: only code of trainer and torch")
    elif "forget" in flags:
        screen.say(f"removed {before} from your list of trusted code")
    elif "dry_run" in flags:
        screen.say(f"{before} of {count} on your list of trusted code")
        if before < count:
            screen.next_commands({f"trainer trust {again}": "add it once you have read it"})
    else:
        screen.say(f"added {count - before} to your list of trusted code; {before} already on it")
        screen.next_commands({f"trainer trust {again} --forget": "undo it"})
