"""Resumes a sweep, and runs `trainer run ... run_dir=PATH resume=true`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config import secrets as redact
from trainer.config import targets
from trainer.config.arguments import CommandLine
from trainer.config.changes import changed_by
from trainer.config.settings import differences
from trainer.errors import UsageError, refusal
from trainer.launch.launcher_words import words_of
from trainer.launch.resume import ChangedJob, as_composed, changed_job, go_on
from trainer.runs import directory, user_code
from trainer.runs.directory import RunDirectory
from trainer.runs.open import open_runs, require_same_files
from trainer.text import show

if TYPE_CHECKING:
    from trainer.config.compose import JobConfig
    from trainer.session.session import Request


def go_on_with_sweep(path: Path, words: CommandLine, request: Request, trust: bool) -> int:
    """Change the settings of all jobs of a sweep, train those that are not done, and return the exit code.

    Args:
        path: The sweep's directory.
        words: The words of the command.
        request: What the user typed.
        trust: Whether to import code that came with the sweep.

    Raises:
        UsageError: The changes are wrong for a job, or a job is in use; nothing has been changed.
    """
    folders = directory.jobs(path)
    settings, opened = open_runs(map(RunDirectory, folders), request.command, trust, request.force)
    all_stored = dict(zip(folders, settings, strict=True))
    from trainer.launch import hydra_launchers, sweep
    from trainer.terminal import run_screen, screen

    content = sweep.open_sweep(path, words, request.command)
    words.overrides = [word for word in words.overrides if word.lstrip("+") not in words.launcher]
    for module in opened.changed:
        screen.note(f"warning: {module} has changed since the sweep started: bit-identical results are not guaranteed")
    require_not_swept(path, content["swept"], words)

    def change(folder: Path) -> tuple[ChangedJob | None, dict[str, Any]]:
        try:
            stored = all_stored[folder]
            changed, chosen = changed_by(words, stored)
            if RunDirectory(folder).read_status().get("state") != "done":
                redact.require_given(changed.to_dict())
            job = changed_job(RunDirectory(folder), stored, changed, chosen, request.force)
            return job, dict(redact.secrets(changed.to_dict()))
        except UsageError as error:
            raise error.within(f"job {folder.name}") from error

    _require_free([path, *folders])  # the files of a job change while it is being trained, so they can't be checked
    with RunDirectory(path).lock(request.command):
        with hydra_launchers.launching(content):
            launcher = hydra_launchers.make_launcher(words_of(content), path)
        found = sweep.checked(launcher, change, folders)
        secrets = {folder.name: given for folder, (_, given) in zip(folders, found, strict=True)}
        jobs = [job for job, _ in found if job is not None]
        _require_free(folders)  # again after the check, which takes time: all jobs are changed or none
        run_screen.changes(job.changes for job in jobs)
        remarks = [remark for job in jobs for remark in job.trust(opened.code.get(job.rundir.path))]
        for remark in dict.fromkeys(remarks):
            screen.note(remark)
        for job in jobs:
            with job.rundir.lock(request.command):
                job.write(opened.code.get(job.rundir.path))
        sweep.keep_launcher(path, content)
    code = {**opened.code, **{job.rundir.path: user_code.of_run(job.rundir, job.status["config"]) for job in jobs}}
    digests = {folder.name: own.digest for folder, own in code.items() if own is not None}
    return sweep.launch(path, content, request, digests, secrets)


def _require_free(folders: Iterable[Path]) -> None:
    """Refuse if another process trains one of these runs or sweeps."""
    for folder in folders:
        RunDirectory(folder).require_free()


def require_not_swept(path: Path, swept: Sequence[str], words: CommandLine) -> None:
    """Refuse to give all jobs of a sweep the same value of a swept setting.

    Raises:
        UsageError: A word sets what the sweep varies.
    """
    for word in redact.words(words.overrides):
        if (key := word.lstrip("+").partition("=")[0]) in swept:
            one = f"`trainer resume {shlex.quote(RunDirectory(path).short)}/000 {word}` for one of its jobs"
            raise refusal(word, f"the sweep varies {key}", one)


def go_on_as(path: Path, jobs: Sequence[JobConfig], request: Request, words: CommandLine) -> int:
    """Continue the run or sweep that `trainer run ... resume=true` names, and return the exit code.

    Args:
        path: Its directory.
        jobs: The jobs composed from the command.
        request: What the user typed.
        words: The words of the command.

    Raises:
        UsageError: The directory holds other jobs than those of the command.
    """
    folders = directory.jobs(path) if directory.is_sweep(path) else [path]
    if len(folders) != len(jobs):
        raise refusal(
            f"run_dir={path} resume=true", f"has {len(folders)} jobs, the command {len(jobs)}", "the same command"
        )
    again = f"trainer resume {shlex.quote(RunDirectory(path).short)}"
    rundirs = [RunDirectory(folder) for folder in folders]
    typed = set[str]().union(*(targets.own_targets(one.settings) for one in jobs))
    all_stored, opened = open_runs(rundirs, again, typed=typed)
    require_same_files(rundirs, again)
    if not directory.is_sweep(path):
        changed = as_composed(all_stored[0], jobs[0].settings)
        return go_on(RunDirectory(path), all_stored[0], changed, jobs[0].choices, request)
    from trainer.launch import sweep

    content = sweep.open_sweep(path, words, again)
    for folder, stored, one in zip(folders, all_stored, jobs, strict=True):
        for change in differences(stored, as_composed(stored, one.settings)):
            raise refusal(
                f"{change.key}={show(change.new)}",
                f"job {folder.name} has {show(change.old)}",
                f"the same command, or trainer resume {path} {change.key}={show(change.new)}",
            )
    secrets = {
        folder.name: dict(redact.secrets(one.settings.to_dict())) for folder, one in zip(folders, jobs, strict=True)
    }
    _require_free([path, *folders])
    return sweep.launch(path, content, request, opened.digests, secrets)
