"""`trainer run -m` and `trainer resume SWEEP`: every job is written before the first one starts."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher as HydraLauncher
from hydra.types import HydraContext
from omegaconf import DictConfig

from trainer.commands import runs as leaderboard
from trainer.config import secrets as redact
from trainer.config.annotations import typed
from trainer.config.arguments import Choice, Words
from trainer.config.catalog import LAUNCHERS, Catalog
from trainer.config.compose import Job, hydra_setup
from trainer.config.hydra_errors import explained
from trainer.config.settings import check
from trainer.errors import RunFailed, TrainerError, UsageError, refusal, unknown
from trainer.files import safe_start, writing
from trainer.launch import groups, launchers
from trainer.launch.launcher_words import DEFAULT, is_harmless, launcher_code, launcher_name, launcher_words, words_of
from trainer.launch.launchers import EachLauncher, Local
from trainer.launch.owner import Owner
from trainer.runs import find, sweep_file, trust_list
from trainer.runs.directory import RunDir
from trainer.runs.sweep_file import Sweep
from trainer.session import bounds
from trainer.session import train as job
from trainer.session.stopping import Stopping
from trainer.session.train import Plan
from trainer.terminal import screen
from trainer.terminal.progress import count
from trainer.terminal.sweep_overview import Overview
from trainer.training.stacked import stack

WHY_SECONDS = 30.0  # for finding out why jobs failed
STOP = "stop"  # while a file of this name is in the sweep's directory, no further job starts
IN_PROCESS = ("basic", "local", "vectorized")  # launchers whose jobs run in this process, and not at the same time
T = TypeVar("T")
R = TypeVar("R")


def start(path: Path, jobs: Sequence[Job], choices: Sequence[Choice], words: Words, command: str) -> int:
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
            return job.plan(jobs[index].settings, status, threads=None if name in IN_PROCESS else 1)
        except UsageError as error:
            raise error.within(f"job {index} ({typed(status['swept'])})") from error

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
    with RunDir(path).lock(command), Stopping(on_signal=task.marker.touch) as stopping, launching(sweep):
        task.marker.unlink(missing_ok=True)
        todo = waiting(path, sweep, command)
        finished = [RunDir(path / name) for name in sweep["jobs"] if name not in todo]
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
        find_out([RunDir(path / name) for name in sweep["jobs"]], command, task)
    ended = [find.entry(path / name) for name in sweep["jobs"]]
    if stopping.signal is not None:
        done = sum(one.state == "done" for one in ended)
        screen.note(
            f"stopped by {signal.Signals(stopping.signal).name} with {done:,} of {count(len(ended), 'job')} done"
        )
    leaderboard.print_results(path, ended, sweep["swept"])
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


def repair_loggers(rundirs: Sequence[RunDir], command: str, task: Task) -> None:
    """Give the loggers of finished jobs what a kill has kept from them."""
    for rundir in rundirs:
        if rundir.read_status().get("config", {}).get("logger"):
            from trainer.session.logger_repair import repair

            with suppress(UsageError):
                told = partial(_note_of_job, rundir.path.name)
                repair(rundir, check(task.opened(rundir.path.name)), command, told)


def _note_of_job(name: str, text: str) -> None:
    screen.note(f"{name}: {text}")


def find_out(rundirs: Sequence[RunDir], command: str, task: Task) -> None:
    """Find out why jobs failed whose numbers ran away, until that has taken a while; an interrupt ends it."""
    from trainer.analysis import failure  # most sweeps go well

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


@contextmanager
def launching(sweep: Sweep) -> Iterator[None]:
    """Let Hydra find what a sweep's launcher is set up with, for the duration of a block."""
    with hydra_setup(_launcher_catalog(words_of(sweep), sweep["launcher"]["config_dirs"])), explained():
        yield


def _launcher_catalog(words: Sequence[str], config_dirs: Sequence[str]) -> Catalog:
    """Return where the configuration of a launcher comes from: of a harmless one from no file but the shipped ones."""
    harmless = all(map(is_harmless, words))
    return Catalog(shipped_only=True) if harmless else Catalog(tuple(map(Path, config_dirs)))


def require_free(path: Path, sweep: Sweep) -> None:
    """Refuse a sweep that another process trains, or a job of; nothing is changed.

    Raises:
        InUse: Names what is in use, and by whom.
    """
    for rundir in (RunDir(path), *(RunDir(path / name) for name in sweep["jobs"])):
        rundir.require_free()


def waiting(path: Path, sweep: Sweep, command: str) -> list[str]:
    """Return the jobs that are not done, marked as waiting."""
    names = []
    for name in sweep["jobs"]:
        rundir = RunDir(path / name)
        state = rundir.read_status().get("state")
        if state != "done":
            names.append(name)
        if state not in ("done", "waiting"):
            with rundir.lock(command):
                rundir.write_status({**rundir.read_status(), "state": "waiting", "error": None})
    return names


@dataclass(frozen=True)
class Task:
    """Trains the job of a name: what is called for each, here or in a worker process."""

    path: Path
    command: str
    overrides: tuple[str, ...]
    force: bool
    digests: Mapping[str, str]
    secrets: Mapping[str, Mapping[str, Any]]
    owner: Owner

    @property
    def marker(self) -> Path:
        """The file that keeps further jobs from starting."""
        return self.path / STOP

    def __call__(self, name: str) -> None:
        """Train a job; how it ends stands in its status.json."""
        with safe_start.lifted(), self.owner.working():
            if not self.marker.exists() and not self.owner.is_gone:
                self._train(name)

    def opened(self, name: str) -> dict[str, Any]:
        """Return the configuration of a job, whose own code may be imported from then on.

        Raises:
            UsageError: The code is not what was checked.
        """
        rundir = RunDir(self.path / name)
        return job.opened(rundir, self.command, self.force, self.digests.get(name))

    def _train(self, name: str) -> None:
        rundir, digest, secrets = RunDir(self.path / name), self.digests.get(name), self.secrets.get(name)
        job.execute(rundir, self.command, list(self.overrides), self.force, self._stopping(), secrets, digest)

    def together(self, names: Sequence[str]) -> Iterator[tuple[str, None]]:
        """Train jobs that differ only in numbers as one, and the others singly; yield their names as they end."""
        for group in groups.groups([RunDir(self.path / name) for name in names]):
            if self.marker.exists():
                return
            size, how = self._size_of(group)
            screen.note(f"{groups.named(group)} {how}")
            for part in groups.parts(group, size):
                if len(part) == 1:
                    self(part[0].path.name)
                    yield part[0].path.name, None
                elif not self.marker.exists():
                    yield from self._at_once(part)

    def _size_of(self, group: Sequence[RunDir]) -> tuple[int, str]:
        name = group[0].path.name
        try:
            self.opened(name)
        except UsageError:
            return 1, "singly: the first one can't be opened"  # which it says itself when it is its turn
        return groups.size_of(group, self.secrets.get(name, {}))

    def _at_once(self, rundirs: Sequence[RunDir]) -> Iterator[tuple[str, None]]:
        seconds = groups.seconds_between_writes(len(rundirs))
        with self._stopping() as stopping:
            loops = [
                job.executing(
                    rundir,
                    self.command,
                    list(self.overrides),
                    self.force,
                    stopping,
                    self.secrets.get(rundir.path.name),
                    self.digests.get(rundir.path.name),
                    seconds,
                )
                for rundir in rundirs
            ]
            for number in stack.train(loops):
                yield rundirs[number].path.name, None

    def compose(self, config: DictConfig) -> None:
        """Train the job that a configuration of Hydra's names."""
        self(config.run_dir)
        if self.marker.exists() and self.owner.is_me:
            raise KeyboardInterrupt

    def note_death(self, name: str, problem: RunFailed) -> None:
        """Let the status of a job say that its process has died over it."""
        rundir = RunDir(self.path / name)
        with suppress(OSError, TrainerError), rundir.lock(self.command):
            if rundir.read_status().get("state") in ("waiting", "running"):
                rundir.write_status({**rundir.read_status(), "state": "failed", "error": str(problem)})

    def _stopping(self) -> Stopping:
        if self.owner.is_me:
            return Stopping(asked=self.marker.exists)

        def asked() -> bool:
            return self.marker.exists() or self.owner.is_gone

        return Stopping(asked=asked, leave=lambda: os._exit(128 + signal.SIGINT))


def described(path: Path, words: Words, command: str) -> Sweep:
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
        trust = f"`trainer trust {shlex.quote(RunDir(path).short)}`, which shows it and adds it to your list"
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


def require_no_secrets_in_files(launcher: str, secrets: Iterable[Mapping[str, Any]]) -> None:
    """Refuse jobs that hold a secret for a launcher that hands them on in files.

    Raises:
        UsageError: One does; names the key.
    """
    key = next((key for values in secrets for key in values), None)
    if key is not None and launcher not in LAUNCHERS:
        what = f"hydra/launcher={launcher}"
        raise refusal(what, f"writes its jobs to files, and {key} is a secret", " or ".join(LAUNCHERS))


def asked_launcher(words: Words, path: Path) -> HydraLauncher:
    """Build the launcher that a command asks for.

    Args:
        words: The command line.
        path: Directory of the sweep.

    Raises:
        UsageError: There is no such launcher, or it lacks a setting.
    """
    typed = launcher_words(words.launcher)
    with hydra_setup(_launcher_catalog(typed, words.config_dirs)), explained():
        if words.launcher:
            launchers.register()
            choice = f"hydra/launcher={launcher_name(typed)}"
            of_it = compose("config", [choice], return_hydra_config=True).hydra.launcher
            known = [f"hydra.launcher.{name}" for name in of_it if not name.startswith("_")]
            for word in typed:
                key = word.partition("=")[0]
                if word != choice and ".".join(key.split(".")[:3]) not in known:
                    raise unknown(word, f"{choice} has no such setting", key, known)
        return make_launcher(typed, path)


def make_launcher(
    words: Sequence[str], path: Path, task: Callable[[DictConfig], None] = lambda config: None
) -> HydraLauncher:
    """Build a launcher, which is told where the jobs are, and to write no files of Hydra's own."""
    launchers.register()
    folder = str(path.absolute()).replace("\\", "\\\\").replace("'", "\\'")
    fixed = [
        f"hydra.sweep.dir='{folder}'",
        "hydra.sweep.subdir=${run_dir}",
        "hydra.output_subdir=null",
        "hydra.mode=MULTIRUN",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    config = compose("config", [*words, *fixed], return_hydra_config=True)
    context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks())
    return Plugins.instance().instantiate_launcher(context, task, config)
