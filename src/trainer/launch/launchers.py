"""Launchers of our own beside Hydra's: `local`, one job after the other, and `processes`, as many as there are cores.

Hydra's launchers compose the configuration of a job when it starts, which takes longer than many a job. Ours do that
too when they are called as Hydra calls them; but jobs that have been written before the first one starts need none of
it, and for these there is `each`.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Generic, TypeVar

from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from trainer.errors import RunFailed, refusal
from trainer.launch.owner import Owner

IDLE_SECONDS = 0.25  # between two calls of what is called while jobs run
_LEAVE_SECONDS = 30.0  # that a process is given to save its job when it is no longer wanted
T = TypeVar("T")
R = TypeVar("R")
Idle = Callable[[], None]


class EachLauncher(Launcher):
    """A launcher that can also call a function for each of several items, with no configuration composed in between."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands to every launcher."""
        self._context, self._task, self._config = hydra_context, task_function, config

    @abstractmethod
    def each(
        self, function: Callable[[T], R], items: Sequence[T], idle: Idle | None = None
    ) -> Iterator[tuple[T, R | RunFailed]]:
        """Call a function for each item, starting them in order; what it raises is raised here.

        Args:
            function: What to call.
            items: What to call it with.
            idle: Called about four times a second meanwhile.

        Yields:
            Item and result in the order in which they end; RunFailed where the process of an item has died.
        """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose and run each job as Hydra asks for it."""
        setup_globals()
        self._configure_log()
        Path(str(self._config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)

        def run(index: int) -> JobReturn:
            return self._run(job_overrides[index], initial_job_idx + index)

        ended = dict(self.each(run, range(len(job_overrides))))
        self._configure_log()
        return [_returned(ended[index], overrides) for index, overrides in enumerate(job_overrides)]

    def _run(self, overrides: Sequence[str], number: int) -> JobReturn:
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return run_job(
            task_function=self._task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=self._context,
        )

    def _configure_log(self) -> None:
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)


class Local(EachLauncher):
    """One job after the other, in this process."""

    def __init__(self) -> None:
        """Take no settings."""

    def each(
        self, function: Callable[[T], R], items: Sequence[T], idle: Idle | None = None
    ) -> Iterator[tuple[T, R | RunFailed]]:
        """Call a function for each item, here."""
        with calling(idle):
            for item in items:
                yield item, function(item)


class Vectorized(Local):
    """Like local, but a function may have a method `together`, which does all items as it sees fit.

    The jobs of a sweep have: those that differ only in numbers are trained as one.
    """

    def each(
        self, function: Callable[[T], R], items: Sequence[T], idle: Idle | None = None
    ) -> Iterator[tuple[T, R | RunFailed]]:
        """Call a function for each item, here, or for all of them together."""
        together = getattr(function, "together", None)
        if together is None:
            yield from super().each(function, items, idle)
            return
        with calling(idle):
            yield from together(items)


class Processes(EachLauncher):
    """As many jobs at once as there are processes, which are forked from this one and have one thread each.

    A fork takes over what has been imported and nothing that runs: there must be no other thread here, and no GPU must
    be in use. That is why whatever computes, the checking of jobs included, is done in the forks.

    Args:
        n_jobs: Processes; None is one for each core that this process may use.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        self._num_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands to every launcher.

        Raises:
            UsageError: There can't be so many processes here.
        """
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if self._num_jobs is not None and self._num_jobs < 1:
            raise refusal(
                f"hydra.launcher.n_jobs={self._num_jobs}", "no job would run", "1 or more, null for all cores"
            )
        if "fork" not in multiprocessing.get_all_start_methods():
            raise refusal("hydra/launcher=processes", "this system can't fork a process", "local, joblib")

    def each(
        self, function: Callable[[T], R], items: Sequence[T], idle: Idle | None = None
    ) -> Iterator[tuple[T, R | RunFailed]]:
        """Call a function for each item in forked processes, which are there when this returns."""
        count = min(self._num_jobs or num_cores(), len(items))
        return _results([_Worker(function, items) for _ in range(count)], function, items, idle)

    def _run(self, overrides: Sequence[str], number: int) -> JobReturn:
        returned = super()._run(overrides, number)
        if returned.status is JobStatus.FAILED:
            returned.return_value = _portable(_error_of(returned))
        elif isinstance(problem := _portable(returned), Exception):
            returned.status, returned.return_value = JobStatus.FAILED, problem
        return returned


def _results(
    workers: list[_Worker[T, R]], function: Callable[[T], R], items: Sequence[T], idle: Idle | None
) -> Iterator[tuple[T, R | RunFailed]]:
    waiting = deque(range(len(items)))
    due = time.monotonic() + IDLE_SECONDS
    try:
        for worker in workers:
            worker.give(waiting.popleft())
        while busy := [worker for worker in workers if worker.index is not None]:
            connection.wait([end for worker in busy for end in worker.ends], IDLE_SECONDS)
            if idle is not None and time.monotonic() >= due:
                idle()
                due = time.monotonic() + IDLE_SECONDS
            for worker in busy:
                if not worker.has_ended:
                    continue
                index, result = worker.take()
                if worker.is_alive and waiting:
                    worker.give(waiting.popleft())
                yield items[index], result
                if not worker.is_alive:
                    workers.remove(worker)
                    worker.end()
                    if waiting:
                        workers.append(_Worker(function, items))
                        workers[-1].give(waiting.popleft())
    finally:
        for worker in workers:
            worker.end()


class _Worker(Generic[T, R]):
    """A forked process that calls a function for items whose numbers it is given, one at a time."""

    def __init__(self, function: Callable[[T], R], items: Sequence[T]) -> None:
        fork = multiprocessing.get_context("fork")
        self._connection, theirs = fork.Pipe()
        self._process = fork.Process(target=_serve, args=(self._connection, theirs, Owner.me(), function, items))
        self._process.start()
        theirs.close()
        self.index: int | None = None
        self.is_alive = True

    @property
    def ends(self) -> list[Any]:
        """What becomes ready when there is a result or the process has died."""
        return [self._connection, self._process.sentinel]

    @property
    def has_ended(self) -> bool:
        """Whether the item is done with, or the process."""
        return self._connection.poll() or not self._process.is_alive()

    def give(self, index: int) -> None:
        """Begin with an item; a process that has died by itself meanwhile is met when the result is taken."""
        self.index = index
        with suppress(BrokenPipeError):
            self._connection.send(index)

    def take(self) -> tuple[int, R | RunFailed]:
        """Return the number of the item and the result, RunFailed if the process has died over it."""
        assert self.index is not None
        index, self.index = self.index, None
        try:
            ok, value = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            self.is_alive = False
            return index, RunFailed(_death(self._process.exitcode or 0))
        if not ok:
            raise value
        return index, value

    def end(self) -> None:
        """Let the process end, which saves the job that it is at."""
        with suppress(OSError):
            self._connection.send(None)  # it would not see this end closed: processes forked later have copies of it
        self._connection.close()
        if self.index is not None:
            self._process.terminate()
        self._process.join(_LEAVE_SECONDS)
        self._process.kill()
        self._process.join()


def _serve(
    not_mine: connection.Connection,
    mine: connection.Connection,
    owner: Owner,
    function: Callable[[T], R],
    items: Sequence[T],
) -> None:
    """Call a function for the items whose numbers come in, until nobody is at the other end."""
    not_mine.close()
    sys.stdout = getattr(sys.stdout, "rich_proxied_file", sys.stdout)  # a live display is its owner's to draw
    if "torch" in sys.modules:
        from trainer.training import (
            devices,  # not at the top: an application of Hydra's may use these launchers without torch
        )

        devices.one_thread()
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while (index := mine.recv()) is not None:
            answer: tuple[bool, Any]
            try:
                with owner.working():
                    answer = True, function(items[index])
            except Exception as error:
                answer = False, _portable(error)
            mine.send(answer)


def _error_of(failed: JobReturn) -> Exception:
    """Return the error of a failed job, which Hydra prints and raises when its value is read."""
    with redirect_stderr(io.StringIO()):
        try:
            return RuntimeError(str(failed.return_value))
        except Exception as error:
            return error


def _portable(value: Any) -> Any:
    """Return a value if it comes through a pipe of multiprocessing, else an exception that says what it is."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(value))
        return value
    except Exception as error:
        what = value if isinstance(value, Exception) else error
        return RuntimeError(f"{type(what).__name__}: {what}")


def _death(code: int) -> str:
    """Say how a process ended that was not to end."""
    if code >= 0:
        return f"its process ended with exit code {code} in the middle of it"
    name = signal.Signals(-code).name
    return f"its process was ended by {name}" + (" (is the memory full?)" if name == "SIGKILL" else "")


def _returned(result: JobReturn | RunFailed, overrides: Sequence[str]) -> JobReturn:
    if isinstance(result, JobReturn):
        return result
    failed = JobReturn(overrides=overrides, status=JobStatus.FAILED)
    failed.return_value = result
    return failed


@contextmanager
def calling(idle: Idle | None) -> Iterator[None]:
    """Call something about four times a second, by a thread, for the duration of a block."""
    if idle is None:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(IDLE_SECONDS):
            idle()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
