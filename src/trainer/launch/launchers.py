"""The launchers that trainer adds to Hydra's: `local`, `processes` and `vectorized`.

Hydra's launchers compose the configuration of a job when it starts, which takes longer than many jobs. So do these when
Hydra calls them. But trainer writes all jobs before the first one starts, and runs them through `each`, which composes
nothing.
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

IDLE_SECONDS = 0.25  # seconds between two calls of `idle`
_LEAVE_SECONDS = 30.0  # the time that a process has to save its job before it must end
T = TypeVar("T")
R = TypeVar("R")
Idle = Callable[[], None]


class EachLauncher(Launcher):
    """A launcher that can also call a function for each item of a sequence, without composing configurations."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the arguments that Hydra passes to every launcher."""
        self._context, self._task, self._config = hydra_context, task_function, config

    @abstractmethod
    def each(
        self, function: Callable[[T], R], items: Sequence[T], idle: Idle | None = None
    ) -> Iterator[tuple[T, R | RunFailed]]:
        """Call a function for each item, starting in order; its exceptions are raised here.

        Args:
            function: The function.
            items: Its arguments, one for each call.
            idle: Called about four times a second meanwhile.

        Yields:
            Each item and its result when it ends; the result is RunFailed if the process of the item died.
        """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose and run each job, as Hydra does."""
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
    """Runs one job after another, in this process."""

    def __init__(self) -> None:
        """Take no settings."""

    def each(
        self, function: Callable[[T], R], items: Sequence[T], idle: Idle | None = None
    ) -> Iterator[tuple[T, R | RunFailed]]:
        """Call a function for each item, in this process."""
        with calling(idle):
            for item in items:
                yield item, function(item)


class Vectorized(Local):
    """Trains jobs that differ only in numbers as one program, in this process.

    To do so it passes all items to the method `together` of the function, if there is one.
    """

    def each(
        self, function: Callable[[T], R], items: Sequence[T], idle: Idle | None = None
    ) -> Iterator[tuple[T, R | RunFailed]]:
        """Call a function for each item, or its method `together` for all of them."""
        together = getattr(function, "together", None)
        if together is None:
            yield from super().each(function, items, idle)
            return
        with calling(idle):
            yield from together(items)


class Processes(EachLauncher):
    """Runs several jobs at once, in processes that are forked from this one and have one thread each.

    A fork inherits imported modules but no threads and no GPU context, so this process must have no other thread and
    use no GPU. Therefore everything that computes, including the check of the jobs, happens in the forks.

    Args:
        n_jobs: Number of processes; None means one for each core that this process may use.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        self._num_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the arguments that Hydra passes to every launcher.

        Raises:
            UsageError: `n_jobs` is below 1, or the system can't fork.
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
        """Call a function for each item in forked processes, which exist when this returns."""
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
    """A forked process that calls a function for one item at a time."""

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
        """Objects to wait for: they become ready when there is a result or the process has died."""
        return [self._connection, self._process.sentinel]

    @property
    def has_ended(self) -> bool:
        """Whether the item or the process has ended."""
        return self._connection.poll() or not self._process.is_alive()

    def give(self, index: int) -> None:
        """Start an item; if the process has died meanwhile, `take` notices."""
        self.index = index
        with suppress(BrokenPipeError):
            self._connection.send(index)

    def take(self) -> tuple[int, R | RunFailed]:
        """Return the index of the item and the result, RunFailed if the process died."""
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
        """Let the process save its job and end."""
        with suppress(OSError):
            self._connection.send(None)  # closing is not enough: processes forked later hold copies of this end
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
    """Call a function for the items whose indices arrive, until the other end is closed."""
    not_mine.close()
    sys.stdout = getattr(sys.stdout, "rich_proxied_file", sys.stdout)  # only the owner draws on a live display
    if "torch" in sys.modules:
        from trainer.training import devices  # not at the top: other Hydra applications may not have torch

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
    """Return a value that can be pickled, or an exception that describes the value."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(value))
        return value
    except Exception as error:
        what = value if isinstance(value, Exception) else error
        return RuntimeError(f"{type(what).__name__}: {what}")


def _death(code: int) -> str:
    """Return a description of how a process died."""
    if code >= 0:
        return f"its process ended with exit code {code} before the job was done"
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
    """Call a function about four times a second, in a thread, for the duration of a block."""
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
