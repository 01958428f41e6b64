"""`trainer run -m` and `trainer resume SWEEP`: every job is written before the first one starts."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher as HydraLauncher
from hydra.types import HydraContext
from omegaconf import DictConfig

from trainer import (
    bounds,
    durable,
    grouping,
    job,
    launchers,
    leaderboard,
    modules,
    redact,
    runs,
    screen,
    sweep_file,
    vectorized,
)
from trainer.config import Job, hydra_setup
from trainer.errors import RunFailed, TrainerError, UsageError, refusal, unknown
from trainer.hydra_errors import explained
from trainer.job import Plan
from trainer.launchers import EachLauncher, Local
from trainer.options import Catalog
from trainer.overview import Overview
from trainer.progress import count
from trainer.rundir import RunDir
from trainer.settings import check
from trainer.signals import Stopping
from trainer.sweep_file import Sweep
from trainer.values import typed
from trainer.words import Choice, Words

WHY_SECONDS = 30.0  # for finding out why jobs failed
STOP = "stop"  # while a file of this name is in the sweep's directory, no further job starts
DEFAULT = "local"
IN_MEMORY = ("basic", "joblib", "local", "processes", "vectorized")  # launchers that write no job into a file
IN_PROCESS = ("basic", "local", "vectorized")  # launchers whose jobs run in this process, and not at the same time
_CHOICE = re.compile(r"hydra/launcher=")
_HARMLESS = re.compile(rf"hydra/launcher=({'|'.join(IN_MEMORY)})|hydra\.launcher\.\w+=-?[0-9]+")
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
    if redact.words(words.launcher) != words.launcher:
        raise refusal("hydra.launcher", "sweep.json keeps its settings, and one of them is a secret")
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
    names = [f"{index:03d}" for index in range(len(plans))]
    sweep: Sweep = {
        "format": sweep_file.FORMAT,
        "name": jobs[0].settings.name,
        "command": command,
        "launcher": {"name": name, "overrides": words.launcher, "config_dirs": words.config_dirs},
        "swept": list(choices[0].swept),
        "jobs": names,
    }
    content = (json.dumps(sweep, indent=1) + "\n").encode()
    bounds.require_json("sweep.json", content)
    try:
        with staging(path) as staged:
            for planned, folder in zip(plans, names, strict=True):
                planned.fill(staged / folder)
            durable.replace(staged / "sweep.json", content)
    except OSError as error:
        raise refusal(f"run_dir={path}", f"can't be created: {error.strerror}") from error
    secrets = dict(zip(names, all_secrets, strict=True))
    return launch(path, command, redact.words(words.overrides), secrets=secrets)


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
    durable.make_folders(path.parent)
    staged = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with durable.together(staged):
            yield staged
        staged.chmod(0o777 & ~_umask())
        durable.rename(staged, path)
    except BaseException:
        durable.remove_tree(staged)
        raise


def launch(
    path: Path,
    command: str,
    overrides: list[str],
    force: bool = False,
    trust: bool = False,
    secrets: Mapping[str, Mapping[str, Any]] | None = None,
) -> int:
    """Run the jobs of a sweep that are not done, with its own launcher, and return the exit code.

    Args:
        path: Its directory.
        command: What the user typed, for the record.
        overrides: The settings that the user typed, for the record.
        force: Let a job start over if it should have a good checkpoint and has none.
        trust: Let a job import the copies of modules that came with it.
        secrets: What the jobs' directories do not hold, by job and dotted key.

    Raises:
        UsageError: Another process trains it or one of its jobs.
        RunFailed: The launcher failed.
    """
    sweep = sweep_file.read(path)
    require_no_secrets_in_files(sweep["launcher"]["name"], (secrets or {}).values())
    task = Task(path.absolute(), command, tuple(overrides), force, trust, dict(secrets or {}), os.getpid())
    problem = None
    screen.note(f"{count(len(sweep['jobs']), 'job')} in {path}")
    with RunDir(path).lock(command), Stopping(on_signal=task.marker.touch) as stopping, launching(sweep):
        task.marker.unlink(missing_ok=True)
        todo = waiting(path, sweep, command)
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
        find_out([RunDir(path / name) for name in sweep["jobs"]], command, secrets or {})
    ended = [runs.entry(path / name) for name in sweep["jobs"]]
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
        with overview, launchers.calling(overview):
            launcher.launch([[f"run_dir='{name}'"] for name in names], initial_job_idx=0)


def find_out(rundirs: Sequence[RunDir], command: str, secrets: Mapping[str, Mapping[str, Any]]) -> None:
    """Find out why jobs failed whose numbers ran away, until that has taken a while; an interrupt ends it."""
    from trainer import failure  # most sweeps go well

    end = time.monotonic() + WHY_SECONDS
    failed = [one for one in rundirs if failure.is_open(one.read_status())]
    with suppress(KeyboardInterrupt):
        for rundir in screen.track(failed, "finding out why jobs failed", len(failed)) if failed else ():
            status = rundir.read_status()
            if time.monotonic() < end:
                config = redact.filled(rundir.read_config(), secrets.get(rundir.path.name) or {})
                failure.find_out(rundir, check(config), status.get("choices") or {}, command)


@contextmanager
def launching(sweep: Sweep) -> Iterator[None]:
    """Let Hydra find what a sweep's launcher is set up with, for the duration of a block."""
    harmless = all(map(_HARMLESS.fullmatch, words_of(sweep)))
    with hydra_setup(Catalog(() if harmless else tuple(map(Path, sweep["launcher"]["config_dirs"])))), explained():
        yield


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
    trust: bool
    secrets: Mapping[str, Mapping[str, Any]]
    owner: int

    @property
    def marker(self) -> Path:
        """The file that keeps further jobs from starting."""
        return self.path / STOP

    def __call__(self, name: str) -> None:
        """Train a job; how it ends stands in its status.json."""
        if self.marker.exists():
            return
        rundir = RunDir(self.path / name)
        if self.trust:
            modules.trust([rundir])
        stopping = self._stopping()
        job.execute(rundir, self.command, list(self.overrides), self.force, stopping, self.secrets.get(name))

    def together(self, names: Sequence[str]) -> Iterator[tuple[str, None]]:
        """Train jobs that differ only in numbers as one, and the others singly; yield their names as they end."""
        for group in grouping.groups([RunDir(self.path / name) for name in names]):
            if self.marker.exists():
                return
            size, how = grouping.size_of(group, self.secrets.get(group[0].path.name, {}))
            screen.note(f"{grouping.named(group)} {how}")
            for part in grouping.parts(group, size):
                if len(part) == 1:
                    self(part[0].path.name)
                    yield part[0].path.name, None
                elif not self.marker.exists():
                    yield from self._at_once(part)

    def _at_once(self, rundirs: Sequence[RunDir]) -> Iterator[tuple[str, None]]:
        if self.trust:
            modules.trust(list(rundirs))
        seconds = grouping.seconds_between_writes(len(rundirs))
        with self._stopping() as stopping:
            loops = [
                job.executing(
                    rundir,
                    self.command,
                    list(self.overrides),
                    self.force,
                    stopping,
                    self.secrets.get(rundir.path.name),
                    seconds,
                )
                for rundir in rundirs
            ]
            for number in vectorized.train(loops):
                yield rundirs[number].path.name, None

    def compose(self, config: DictConfig) -> None:
        """Train the job that a configuration of Hydra's names."""
        self(config.run_dir)
        if self.marker.exists() and os.getpid() == self.owner:
            raise KeyboardInterrupt

    def note_death(self, name: str, problem: RunFailed) -> None:
        """Let the status of a job say that its process has died over it."""
        rundir = RunDir(self.path / name)
        with suppress(OSError, TrainerError), rundir.lock(self.command):
            if rundir.read_status().get("state") in ("waiting", "running"):
                rundir.write_status({**rundir.read_status(), "state": "failed", "error": str(problem)})

    def _stopping(self) -> Stopping:
        if os.getpid() == self.owner:
            return Stopping(asked=self.marker.exists)
        parent = os.getppid()  # another one, once that has died

        def asked() -> bool:
            return self.marker.exists() or os.getppid() != parent

        return Stopping(asked=asked, leave=lambda: os._exit(128 + signal.SIGINT))


def require_harmless_launcher(path: Path, command: str, typed_now: Sequence[str] = ()) -> None:
    """Refuse a sweep, which may be somebody else's, whose launcher could run commands.

    Args:
        path: Its directory.
        command: What the user typed, to be typed again with a flag.
        typed_now: Words of the launcher that the user has just typed, and that are no one else's.

    Raises:
        UsageError: It could; the message has the whole command to type.
    """
    for word in words_of(sweep_file.read(path)):
        if word not in typed_now and not _HARMLESS.fullmatch(word):
            raise refusal(
                f"{path / 'sweep.json'}: {word}", "could run anything", f"`{command} --trust-code` if it is yours"
            )


def require_no_secrets_in_files(launcher: str, secrets: Iterable[Mapping[str, Any]]) -> None:
    """Refuse jobs that hold a secret for a launcher that hands them on in files.

    Raises:
        UsageError: One does; names the key.
    """
    key = next((key for values in secrets for key in values), None)
    if key is not None and launcher not in IN_MEMORY:
        what = f"hydra/launcher={launcher}"
        raise refusal(what, f"writes its jobs to files, and {key} is a secret", " or ".join(IN_MEMORY))


def asked_launcher(words: Words, path: Path) -> HydraLauncher:
    """Build the launcher that a command asks for.

    Args:
        words: The command line.
        path: Directory of the sweep.

    Raises:
        UsageError: There is no such launcher, or it lacks a setting.
    """
    typed = launcher_words(words.launcher)
    with hydra_setup(words.catalog()), explained():
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def words_of(sweep: Sweep) -> list[str]:
    """Return the words that choose and set up the launcher of a sweep."""
    return launcher_words(sweep["launcher"]["overrides"], sweep["launcher"]["name"])


def launcher_words(typed: Sequence[str], otherwise: str = DEFAULT) -> list[str]:
    """Return words that choose and set up a launcher, with the choice among them."""
    return [*typed] if any(map(_CHOICE.match, typed)) else [f"hydra/launcher={otherwise}", *typed]


def launcher_name(typed: Sequence[str]) -> str:
    """Return the launcher that words choose."""
    return next(word for word in launcher_words(typed) if _CHOICE.match(word)).partition("=")[2]
