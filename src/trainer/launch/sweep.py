"""Starts and continues sweeps: every job is written before the first one starts."""

from __future__ import annotations

import json
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hydra.plugins.launcher import Launcher as HydraLauncher

from trainer.analysis import failure
from trainer.config import secrets as redact
from trainer.config.arguments import Choice, CommandLine
from trainer.config.compose import JobConfig
from trainer.config.settings import check
from trainer.errors import RunFailed, UsageError, refusal
from trainer.files import safe_start, writing
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
from trainer.session.logger_repair import repair
from trainer.session.prepare import Plan
from trainer.session.stopping import Stopping
from trainer.terminal import run_tables, screen
from trainer.terminal.sweep_overview import Overview
from trainer.text import count, typed

WHY_SECONDS = 30.0  # for finding out why jobs failed
T = TypeVar("T")
R = TypeVar("R")


def start(path: Path, jobs: Sequence[JobConfig], choices: Sequence[Choice], words: CommandLine, command: str) -> int:
    """Check and write all jobs of a sweep, run them, and return the exit code.

    Args:
        path: Directory to create.
        jobs: The composed jobs.
        choices: Their words, in the same order.
        words: The whole command line.
        command: The same as it was typed.

    Raises:
        UsageError: A job or the launcher is wrong; nothing has been created.
    """
    require_no_secrets(words.launcher)
    launcher = asked_launcher(words, path)
    name = launcher_name(words.launcher)

    def plan(index: int) -> Plan:
        status = {"choices": jobs[index].choices, "swept": redact.tree(choices[index].swept)}
        try:
            threads = None if name in IN_PROCESS else 1
            return prepare.plan(jobs[index].settings, status, threads, jobs[index].asked)
        except UsageError as error:
            raise error.within(f"job {index} ({typed(status['swept'])})") from error

    for one in jobs if name == "vectorized" else ():
        if "optim.fused" in one.asked and one.settings.optim.get("fused"):
            what = f"optim.fused=true hydra/launcher={name}"
            raise refusal(what, "jobs that are trained together have an update of their own", "one of them")
    plans = checked(launcher, plan, range(len(jobs)))
    all_secrets = [dict(redact.secrets(one.settings.to_dict())) for one in jobs]
    require_no_secrets_in_files(name, all_secrets)
    for note in dict.fromkeys(note for one in jobs for note in one.notes):
        screen.note(note)
    digests = {f"{index:03d}": own.digest for index, one in enumerate(plans) if (own := one.own_code) is not None}
    names = [f"{index:03d}" for index in range(len(plans))]
    sweep: Sweep = {
        "format": sweep_file.FORMAT,
        "name": jobs[0].settings.name,
        "command": command,
        "launcher": {"name": name, "overrides": words.launcher, "config_dirs": _absolute(words.config_dirs)},
        "swept": list(choices[0].swept),
        "jobs": names,
    }
    content = _as_json(sweep)
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
    secrets = dict(zip(names, all_secrets, strict=True))
    return launch(path, sweep, command, redact.words(words.overrides), digests, secrets=secrets)


def checked(launcher: HydraLauncher, check: Callable[[T], R], jobs: Sequence[T]) -> list[R]:
    """Return what a check returns for each job; it is done where the launcher would do the job, if it is one of ours.

    Raises:
        UsageError: A job is wrong.
    """
    each = launcher.each if isinstance(launcher, EachLauncher) else Local().each
    results, found = each(check, jobs), {}  # processes are forked before a display has a thread
    for one, result in screen.track(results, "checking the jobs", len(jobs)):
        if isinstance(result, RunFailed):
            raise UsageError(f"job {one}: {result}")
        found[one] = result
    return [found[one] for one in jobs]


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """Yield a new folder that gets its name after the block: what it holds is there whole or not at all.

    Nothing of the user's is in its way, for the name it has until then is new.
    """
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
    command: str,
    overrides: list[str],
    digests: Mapping[str, str],
    force: bool = False,
    secrets: Mapping[str, Mapping[str, Any]] | None = None,
) -> int:
    """Run the jobs of a sweep that are not done, with its own launcher, and return the exit code.

    Args:
        path: Its directory.
        sweep: What its sweep.json says, with a launcher that may be used.
        command: What the user typed, for the record.
        overrides: The settings that the user typed, for the record.
        digests: Those of the jobs' own code, as it was checked, by job.
        force: Let a job start over if it should have a good checkpoint and has none, and take modules as they are now.
        secrets: What the jobs' directories do not hold, by job and dotted key.

    Raises:
        UsageError: Another process trains it or one of its jobs.
        RunFailed: The launcher failed.
    """
    require_no_secrets_in_files(sweep["launcher"]["name"], (secrets or {}).values())
    task = Task(path.absolute(), command, tuple(overrides), force, dict(digests), dict(secrets or {}), Owner.me())
    require_free(path, sweep)
    problem = None
    screen.note(f"{count(len(sweep['jobs']), 'job')} in {path}")
    with RunDirectory(path).lock(command), Stopping(on_signal=task.marker.touch) as stopping, launching(sweep):
        task.marker.unlink(missing_ok=True)
        todo = waiting(path, sweep, command)
        finished = [RunDirectory(path / name) for name in sweep["jobs"] if name not in todo]
        launcher = make_launcher(words_of(sweep), path, task.compose)
        try:
            train(launcher, task, todo, Overview(path, sweep["jobs"]))
        except KeyboardInterrupt:
            pass  # a job has been stopped; its status says so
        except Exception as error:  # a launcher may raise anything when a worker dies
            problem = f"the launcher failed: {type(error).__name__}: {' '.join(str(error).split())}"
        task.marker.unlink(missing_ok=True)
    task.marker.unlink(missing_ok=True)
    if stopping.signal is None:
        repair_loggers(finished, command, task)
        find_out([RunDirectory(path / name) for name in sweep["jobs"]], command, task)
    ended = [entries.entry(path / name) for name in sweep["jobs"]]
    if stopping.signal is not None:
        done = sum(one.state == "done" for one in ended)
        screen.note(
            f"stopped by {signal.Signals(stopping.signal).name} with {done:,} of {count(len(ended), 'job')} done"
        )
    run_tables.print_results(path, ended, sweep["swept"])
    if stopping.signal is not None:
        return 128 + stopping.signal
    if problem is not None:
        raise RunFailed(problem)
    return 0 if all(one.state == "done" for one in ended) else 1


def train(launcher: HydraLauncher, task: Task, names: Sequence[str], overview: Overview) -> None:
    """Hand the jobs of these names to a launcher, and show how they stand until all have ended."""
    if isinstance(launcher, EachLauncher):
        results = launcher.each(task, names, overview)
        with overview:
            for name, result in results:
                if isinstance(result, RunFailed):
                    task.note_death(name, result)
    else:
        with overview, launchers.calling(overview), safe_start.safe_path():
            launcher.launch([[f"run_dir='{name}'"] for name in names], initial_job_idx=0)


def repair_loggers(rundirs: Sequence[RunDirectory], command: str, task: Task) -> None:
    """Give the loggers of finished jobs what a kill has kept from them."""
    for rundir in rundirs:
        if rundir.read_status().get("config", {}).get("logger"):
            with suppress(UsageError):
                told = partial(_note_of_job, rundir.path.name)
                repair(rundir, check(task.opened(rundir.path.name)), command, told)


def _note_of_job(name: str, text: str) -> None:
    screen.note(f"{name}: {text}")


def find_out(rundirs: Sequence[RunDirectory], command: str, task: Task) -> None:
    """Find out why jobs failed whose numbers ran away, until that has taken a while; an interrupt ends it."""
    end = time.monotonic() + WHY_SECONDS
    failed = [one for one in rundirs if failure.is_open(one.read_status())]
    with suppress(KeyboardInterrupt):
        for rundir in screen.track(failed, "finding out why jobs failed", len(failed)) if failed else ():
            status = rundir.read_status()
            if time.monotonic() > end:
                return
            with suppress(UsageError):
                config = redact.filled(task.opened(rundir.path.name), task.secrets.get(rundir.path.name) or {})
                failure.find_out(rundir, check(config), status.get("choices") or {}, command)


def require_free(path: Path, sweep: Sweep) -> None:
    """Refuse a sweep that another process trains, or a job of; nothing is changed.

    Raises:
        InUse: Names what is in use, and by whom.
    """
    for rundir in (RunDirectory(path), *(RunDirectory(path / name) for name in sweep["jobs"])):
        rundir.require_free()


def waiting(path: Path, sweep: Sweep, command: str) -> list[str]:
    """Return the jobs that are not done, marked as waiting."""
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


def described(path: Path, words: CommandLine, command: str) -> Sweep:
    """Return what sweep.json says of a sweep, which may be somebody else's, with a launcher that may be used.

    Args:
        path: Its directory.
        words: What the user types now; a launcher among it takes the place of the sweep's.
        command: The whole command, to be typed again with one.

    Raises:
        UsageError: The launcher could run anything; the message says what to type.
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
    """Write sweep.json anew if a sweep has another launcher, which the user has typed and so trusts."""
    if sweep != sweep_file.read(path):
        if (own := launcher_code(sweep)) is not None:
            trust_list.add([own.digest])
        writing.replace(path / "sweep.json", _as_json(sweep))


def _absolute(folders: Sequence[str]) -> list[str]:
    return [str(Path(folder).absolute()) for folder in folders]


def _as_json(sweep: Sweep) -> bytes:
    return (json.dumps(sweep, indent=1) + "\n").encode()


def require_no_secrets(launcher: list[str]) -> None:
    """Refuse words that set up a launcher and hold a secret.

    Raises:
        UsageError: One does.
    """
    if redact.words(launcher) != launcher:
        raise refusal("hydra.launcher", "sweep.json keeps its settings, and one of them is a secret")
