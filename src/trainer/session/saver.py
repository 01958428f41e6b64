"""Decides when to save a checkpoint, and which ones to keep."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from trainer.checkpoints import manifest, store
from trainer.checkpoints.store import PackedCheckpoint
from trainer.runs import vouching
from trainer.runs.directory import RunDirectory
from trainer.session.log_file import log
from trainer.session.metrics_writer import MetricsFile
from trainer.session.run_state import snapshot
from trainer.training.build import Built


class Saver:
    """Saves a checkpoint when one is due, and keeps the newest few and the best.

    A save copies the state while training waits; a thread writes it while training continues. Each save waits for the
    previous one. Leaving the context waits for the last one.

    The best checkpoint stays in memory until the next one is due, because evaluations may be too frequent for the disk.
    A run that is killed before then resumes from an older checkpoint and reaches the same best one again.

    Args:
        rundir: The run's directory.
        built: The run.
        metrics: The rows; they are on the disk before the checkpoint that records their length.
    """

    def __init__(self, rundir: RunDirectory, built: Built, metrics: MetricsFile) -> None:
        self._folder, self._built, self._metrics = rundir.checkpoints, built, metrics
        self._settings, self._sums = built.settings.checkpoint, vouching.Kept(rundir).sums
        self._best: PackedCheckpoint | None = None
        self._last = time.monotonic()
        self._thread = ThreadPoolExecutor(1)
        self._write: Future[None] | None = None
        self._written: list[PackedCheckpoint] = []  # the checkpoints of `_write`
        self._spent: list[PackedCheckpoint] = []  # memory to reuse

    def __enter__(self) -> Self:
        """Return the saver."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Wait for the last save; raise its error unless another error is being raised."""
        self._thread.shutdown()
        if kind is None:
            self._wait()
        elif self._write is not None and (failure := self._write.exception()) is not None:
            log.error("the last save failed as well: %s", failure)

    def __call__(self, due: bool) -> None:
        """Save if `due` or if the last save is long enough ago.

        Raises:
            RunFailed: A weight is not finite.
            OSError: This save or the one before failed.
        """
        state, seconds = self._built.run.state, self._settings.seconds
        if self._write is not None and self._write.done():
            self._wait()  # a failed save ends the run now, not at the next save
        if due or (seconds is not None and time.monotonic() - self._last >= seconds):
            self._save()
        elif self._settings.best and state.best_step == state.step:
            self._best = self._pack(self._best)

    def keep_best(self) -> None:
        """Save the best checkpoint if it is only in memory; call this after the context of a run that failed."""
        saved = manifest.steps(self._folder)
        for best in filter(None, (self._best, *self._written)):
            if best.step not in saved and best.step == self._built.run.state.best_step:
                self._metrics.sync()
                store.write(self._folder, best)

    def _save(self) -> None:
        self._wait()
        state, packed = self._built.run.state, []
        if state.step not in manifest.steps(self._folder):
            is_kept = self._best is not None and self._best.step == state.best_step != state.step
            packed = [self._pack(None if is_kept else self._best)]
            if self._best is not None and is_kept:
                packed.insert(0, self._best)
        best_step = state.best_step if self._settings.best else None
        self._best, self._last = None, time.monotonic()
        self._written, self._write = packed, self._thread.submit(self._to_disk, packed, best_step)

    def _to_disk(self, packed: list[PackedCheckpoint], best_step: int | None) -> None:
        """Write checkpoints and delete those that are no longer kept; runs in the thread."""
        if packed:
            self._metrics.sync()
        for one in packed:
            store.write(self._folder, one)
        store.prune(self._folder, self._settings.keep, best_step)

    def _wait(self) -> None:
        """Wait for the current write."""
        write, self._write = self._write, None
        if write is not None:
            write.result()
            self._spent += self._written
            self._written = []

    def _pack(self, spent: PackedCheckpoint | None) -> PackedCheckpoint:
        """Copy the state of the run, reusing memory of earlier checkpoints where possible."""
        run = self._built.run
        if spent is None and not self._spent and len(self._written) > 1:
            self._wait()  # a third copy may not fit in memory
        if spent is None and self._spent:
            spent = self._spent.pop()
        length = self._metrics.flush()
        recorded: vouching.Recorded = {**self._sums, "metrics": {"size": length, "sha256": self._metrics.sum}}
        return store.pack(run.state.step, run.model.state_dict(), dict(snapshot(run, length)), spent, recorded)
