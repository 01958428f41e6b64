"""Starts sweeps, and trains their jobs: every job is written before the first one starts."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hydra.plugins.launcher import Launcher as HydraLauncher

from trainer.analysis import failure
from trainer.config import secrets as redact
from trainer.config.arguments import Choice, CommandLine
from trainer.config.compose import JobConfig
from trainer.errors import RunFailed, UsageError, refusal
from trainer.files import safe_start, writing
from trainer.files.plain_json import as_json
from trainer.launch import launchers
from trainer.launch.hydra_launchers import (
    IN_PROCESS,
    asked_launcher,
    launching,
    make_launcher,
    require_no_secrets_in_files,
)
from trainer.launch.launcher_words import DEFAULT, is_harmless, launcher_code, launcher_name, words_of
from trainer.launch.launchers import EachLauncher, Local
from trainer.launch.owner import Owner
from trainer.launch.sweep_task import Task
from trainer.runs import entries, sweep_file, trust_list
from trainer.runs.directory import RunDirectory
from trainer.runs.sweep_file import Sweep
from trainer.session import bounds, prepare
from trainer.session.job import Job
from trainer.session.logger_repair import repair
from trainer.session.prepare import Plan
from trainer.session.session import Request
from trainer.session.stopping import Stopping
from trainer.terminal import run_tables, screen
from trainer.terminal.sweep_overview import Overview
from trainer.text import count, typed

WHY_SECONDS = 30.0  # the time to find out why jobs failed
T = TypeVar("T")
R = TypeVar("R")


def start(
    path: Path, jobs: Sequence[JobConfig], choices: Sequence[Choice], words: CommandLine, request: Request
) -> int:
    """Check and write all jobs of a sweep, train them, and return the exit code.

    Args:
        path: The directory to create.
        jobs: The composed jobs.
        choices: The words of each job, in the same order.
        words: The words of the command.
        request: What the user typed.

    Raises:
        UsageError: A job or the launcher is wrong; nothing has been created.
    """
    require_no_secrets(words.launcher)
    launcher = asked_launcher(words, path)
    name = launcher_name(words.launcher)

    def plan(index: int) -> Plan:
        status = {"choices": jobs[index].choices, "swept": redact.tree(choices[index].swept)}
        try:
            built = prepare.prepare(jobs[index].settings, jobs[index].choices)
            return prepare.plan_of(built, status, threads=None if name in IN_PROCESS else 1)
        except UsageError as error:
            raise error.within(f"job {index} ({typed(status['swept'])})") from error

    plans = checked(launcher, plan, range(len(jobs)))
    all_secrets = [dict(redact.secrets(one.settings.to_dict())) for one in jobs]
    require_no_secrets_in_files(name, all_secrets)
    for note in dict.fromkeys(note for one in jobs for note in one.notes):
        screen.note(note)
    names = [f"{index:03d}" for index in range(len(plans))]
    digests = {job: own.digest for job, one in zip(names, plans, strict=True) if (own := one.own_code) is not None}
    sweep: Sweep = {
        "format": sweep_file.FORMAT,
        "name": jobs[0].settings.name,
        "command": request.command,
        "launcher": {"name": name, "overrides": words.launcher, "config_dirs": _absolute(words.config_dirs)},
        "swept": list(choices[0].swept),
        "jobs": names,
    }
    content = as_json({**sweep})
    bounds.require_json("sweep.json", content)
    own = launcher_code(sweep)
    for note in trust_list.remarks({*digests.values(), *([own.digest] if own else [])}):
        screen.note(note)
    try:
        with staging(path) as staged:
            for planned, folder in zip(plans, names, strict=True):
                planned.fill(staged / folder)
            writing.replace(staged / "sweep.json", content)
    except OSError as error:
        raise refusal(f"run_dir={path}", f"can't be created: {error.strerror}") from error
    return launch(path, sweep, request, digests, dict(zip(names, all_secrets, strict=True)))


def checked(launcher: HydraLauncher, check: Callable[[T], R], jobs: Sequence[T]) -> list[R]:
    """Check each job, in the same processes as the launcher if it is one of ours, and return the results.

    Args:
        launcher: The sweep's launcher.
        check: Called with each job.
        jobs: The jobs.

    Raises:
        UsageError: A job is wrong.
    """
    each = launcher.each if isinstance(launcher, EachLauncher) else Local().each
    results, found = each(check, jobs), {}  # forks processes, so it comes before the display starts a thread
    for one, result in screen.track(results, "checking the jobs", len(jobs)):
        if isinstance(result, RunFailed):
            raise UsageError(f"job {one}: {result}")
        found[one] = result
    return [found[one] for one in jobs]


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """Yield a new folder under a temporary name, and rename it after the block: readers see all of it or nothing."""
    writing.make_folders(path.parent)
    staged = writing.new_folder(path)
    try:
        with writing.together(staged):
            yield staged
        writing.rename(staged, path)
    except BaseException:
        writing.remove_tree(staged)
        raise


def launch(
    path: Path,
    sweep: Sweep,
    request: Request,
    digests: Mapping[str, str],
    secrets: Mapping[str, Mapping[str, Any]],
) -> int:
    """Train the jobs of a sweep that are not done, print their results, and return the exit code.

    Args:
        path: The sweep's directory.
        sweep: The content of its sweep.json, with a launcher that may be used.
        request: What the user typed.
        digests: Digests of the jobs' custom code when it was checked, by job.
        secrets: The secrets in the settings by job and dotted key; the directories do not hold them.

    Raises:
        UsageError: Another process trains the sweep.
        RunFailed: The launcher failed.
    """
    require_no_secrets_in_files(sweep["launcher"]["name"], secrets.values())
    task = Task(path.absolute(), request, dict(digests), dict(secrets), Owner.me())
    problem = None
    screen.note(f"{count(len(sweep['jobs']), 'job')} in {path}")
    with (
        RunDirectory(path).lock(request.command),
        Stopping(on_signal=task.marker.touch) as stopping,
        launching(sweep),
    ):
        task.marker.unlink(missing_ok=True)
        unfinished = waiting(path, sweep, request.command)
        launcher = make_launcher(words_of(sweep), path, task.compose)
        try:
            train(launcher, task, unfinished, Overview(path, sweep["jobs"]))
        except KeyboardInterrupt:
            pass  # a job was stopped; its status says so
        except Exception as error:  # a launcher may raise any exception when a worker dies
            problem = f"the launcher failed: {type(error).__name__}: {' '.join(str(error).split())}"
        task.marker.unlink(missing_ok=True)
    task.marker.unlink(missing_ok=True)
    if stopping.signal is None:
        repair_loggers([task.job(name) for name in sweep["jobs"] if name not in unfinished])
        find_out([task.job(name) for name in sweep["jobs"]])
    ended = [entries.entry(path / name) for name in sweep["jobs"]]
    if stopping.signal is not None:
        done = sum(one.state == "done" for one in ended)
        by = "Ctrl-C" if stopping.signal == signal.SIGINT else stopping.signal.name
        screen.note(f"stopped ({by}): {done:,} of {count(len(ended), 'job')} done")
    run_tables.print_results(path, ended, sweep["swept"])
    if stopping.signal is not None:
        return 128 + stopping.signal
    if problem is not None:
        raise RunFailed(problem)
    return 0 if all(one.state == "done" for one in ended) else 1


def train(launcher: HydraLauncher, task: Task, names: Sequence[str], overview: Overview) -> None:
    """Let a launcher train jobs, and show their progress until all have ended."""
    if isinstance(launcher, EachLauncher):
        results = launcher.each(task, names, overview)
        with overview:
            for name, result in results:
                if isinstance(result, RunFailed):
                    task.note_death(name, result)
    else:
        with overview, launchers.calling(overview), safe_start.safe_path():
            launcher.launch([[f"run_dir='{name}'"] for name in names], initial_job_idx=0)


def repair_loggers(jobs: Iterable[Job]) -> None:
    """Add the rows that loggers of finished jobs lack because of a kill."""
    for job in jobs:
        name = job.rundir.path.name
        if job.rundir.read_status().get("config", {}).get("logger"):
            with suppress(UsageError):
                repair(job.rundir, job.settings(), job.request.command, partial(_note_of_job, name))


def _note_of_job(name: str, text: str) -> None:
    screen.note(f"{name}: {text}")


def find_out(jobs: Iterable[Job]) -> None:
    """Find out why jobs diverged, within a time limit; an interrupt ends it."""
    end = time.monotonic() + WHY_SECONDS
    failed = [job for job in jobs if failure.is_open(job.rundir.read_status())]
    with suppress(KeyboardInterrupt):
        for job in screen.track(failed, "finding out why jobs failed", len(failed)) if failed else ():
            choices = job.rundir.read_status().get("choices") or {}
            if time.monotonic() > end:
                return
            with suppress(UsageError):
                failure.find_out(job.rundir, job.settings(), choices, job.request.command)


def waiting(path: Path, sweep: Sweep, command: str) -> list[str]:
    """Mark the jobs that are not done as waiting, and return their names."""
    names = []
    for name in sweep["jobs"]:
        rundir = RunDirectory(path / name)
        state = rundir.read_status().get("state")
        if state != "done":
            names.append(name)
        if state not in ("done", "waiting"):
            with rundir.lock(command):
                rundir.write_status({**rundir.read_status(), "state": "waiting", "error": None})
    return names


def open_sweep(path: Path, words: CommandLine, command: str) -> Sweep:
    """Return the content of sweep.json, with a launcher that the user trusts.

    Args:
        path: The sweep's directory.
        words: The words of the command; a launcher among them replaces the sweep's.
        command: The whole command, for the message.

    Raises:
        UsageError: The launcher could run any code; the message says what to type.
    """
    sweep = sweep_file.read(path)
    if words.launcher:
        require_no_secrets(words.launcher)
        asked_launcher(words, path)
        name, config_dirs = launcher_name(words.launcher), _absolute(words.config_dirs)
        return {**sweep, "launcher": {"name": name, "overrides": words.launcher, "config_dirs": config_dirs}}
    own = launcher_code(sweep)
    if own is not None and not trust_list.contains(own.digest):
        word = next(word for word in words_of(sweep) if not is_harmless(word))
        trust = f"`trainer trust {shlex.quote(RunDirectory(path).short)}`, which shows it and adds it to your list"
        reason = "is a launcher that could run anything"
        raise refusal(f"{path / 'sweep.json'}: {word}", reason, f"`{command} hydra/launcher={DEFAULT}`, or {trust}")
    return sweep


def keep_launcher(path: Path, sweep: Sweep) -> None:
    """Write sweep.json if the user has typed another launcher, and trust that launcher."""
    if sweep != sweep_file.read(path):
        if (own := launcher_code(sweep)) is not None:
            trust_list.add([own.digest])
        writing.replace(path / "sweep.json", as_json({**sweep}))


def _absolute(folders: Sequence[str]) -> list[str]:
    return [str(Path(folder).absolute()) for folder in folders]


def require_no_secrets(launcher: list[str]) -> None:
    """Refuse a secret in the settings of a launcher.

    Raises:
        UsageError: There is one.
    """
    if redact.words(launcher) != launcher:
        raise refusal("hydra.launcher", "sweep.json keeps its settings, and one of them is a secret")
