"""Continues the jobs of a sweep that are not done, and what `run_dir=PATH resume=true` means."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config import secrets as redact
from trainer.config import settings, targets
from trainer.config.arguments import CommandLine
from trainer.config.changes import changed_by
from trainer.config.settings import differences
from trainer.errors import UsageError, refusal
from trainer.launch.launcher_words import words_of
from trainer.launch.resume import ChangedJob, as_composed, changed_job, go_on
from trainer.runs import directory, user_code
from trainer.runs.directory import RunDirectory
from trainer.runs.open import require_same_files
from trainer.text import show

if TYPE_CHECKING:
    from trainer.config.compose import JobConfig


def go_on_with_sweep(path: Path, words: CommandLine, command: str, force: bool, trust: bool) -> int:
    """Apply the words to every job of a sweep, then run those that are not done."""
    configs = {rundir: rundir.read_config() for rundir in map(RunDirectory, directory.jobs(path))}
    all_stored = {rundir.path: settings.check(config) for rundir, config in configs.items()}
    opened = user_code.open_code(configs, command, trust, force)
    from trainer.launch import hydra_launchers, sweep
    from trainer.terminal import run_screen, screen

    overrides, described = redact.words(words.overrides), sweep.described(path, words, command)
    words.overrides = [word for word in words.overrides if word.lstrip("+") not in words.launcher]
    for module in opened.changed:
        screen.note(f"warning: {module} has changed since the sweep started: the same bits are not promised")
    require_not_swept(path, described["swept"], words)

    def change(folder: Path) -> tuple[ChangedJob | None, dict[str, Any]]:
        try:
            stored = all_stored[folder]
            changed, chosen = changed_by(words, stored)
            if RunDirectory(folder).read_status().get("state") != "done":
                redact.require_given(changed.to_dict())
            return changed_job(RunDirectory(folder), stored, changed, chosen, force), dict(
                redact.secrets(changed.to_dict())
            )
        except UsageError as error:
            raise error.within(f"job {folder.name}") from error

    sweep.require_free(path, described)
    with RunDirectory(path).lock(command):
        folders = directory.jobs(path)
        with hydra_launchers.launching(described):
            launcher = hydra_launchers.make_launcher(words_of(described), path)
        found = sweep.checked(launcher, change, folders)
        secrets = {folder.name: given for folder, (_, given) in zip(folders, found, strict=True)}
        plans = [plan for plan, _ in found if plan is not None]
        for folder in folders:
            RunDirectory(folder).require_free()  # before the first one is changed
        run_screen.changes(plan.changes for plan in plans)
        for remark in dict.fromkeys(remark for plan in plans for remark in plan.trusted(opened)):
            screen.note(remark)
        for plan in plans:
            with plan.rundir.lock(command):
                plan.write(opened.code.get(plan.rundir.path))
        sweep.keep_launcher(path, described)
    code = {**opened.code, **{plan.rundir.path: user_code.of_run(plan.rundir, plan.config) for plan in plans}}
    digests = {folder.name: own.digest for folder, own in code.items() if own is not None}
    return sweep.launch(path, described, command, overrides, digests, force, secrets)


def require_not_swept(path: Path, swept: Sequence[str], words: CommandLine) -> None:
    """Refuse a word that would make jobs of a sweep alike.

    Raises:
        UsageError: It sets what the sweep varies.
    """
    for word in redact.words(words.overrides):
        if (key := word.lstrip("+").partition("=")[0]) in swept:
            one = f"`trainer resume {shlex.quote(RunDirectory(path).short)}/000 {word}` for one of its jobs"
            raise refusal(word, f"{key} is what the sweep varies", one)


def go_on_as(path: Path, jobs: Sequence[JobConfig], command: str, words: CommandLine) -> int:
    """Continue a run, or a sweep, that `trainer run ... resume=true` started, as it is configured now.

    Args:
        path: Its directory.
        jobs: The jobs as they are composed now.
        command: What the user typed, for the record.
        words: The words that the user typed.

    Raises:
        UsageError: What is there are other jobs than the command means.
    """
    folders = directory.jobs(path) if directory.is_sweep(path) else [path]
    if len(folders) != len(jobs):
        raise refusal(
            f"run_dir={path} resume=true", f"has {len(folders)} jobs, the command {len(jobs)}", "the same command"
        )
    again = f"trainer resume {shlex.quote(RunDirectory(path).short)}"
    configs = {rundir: rundir.read_config() for rundir in map(RunDirectory, folders)}
    all_stored = [settings.check(config) for config in configs.values()]
    typed = set[str]().union(*(targets.own_targets(one.settings) for one in jobs))
    opened = user_code.open_code(configs, again, typed=typed)
    require_same_files([*configs], again)
    overrides = redact.words(words.overrides)
    if not directory.is_sweep(path):
        changed = as_composed(all_stored[0], jobs[0])
        return go_on(RunDirectory(path), all_stored[0], changed, jobs[0].choices, command, overrides, force=False)
    from trainer.launch import sweep

    described = sweep.described(path, words, again)
    for folder, stored, one in zip(folders, all_stored, jobs, strict=True):
        for change in differences(stored, as_composed(stored, one)):
            raise refusal(
                f"{change.key}={show(change.new)}",
                f"job {folder.name} has {show(change.old)}",
                f"the same command, or trainer resume {path} {change.key}={show(change.new)}",
            )
    secrets = {
        folder.name: dict(redact.secrets(one.settings.to_dict())) for folder, one in zip(folders, jobs, strict=True)
    }
    return sweep.launch(path, described, command, overrides, opened.digests, secrets=secrets)
