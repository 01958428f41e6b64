"""Trains a run in its directory, from its newest checkpoint to its end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from trainer.checkpoints import manifest, store
from trainer.config import secrets as redact
from trainer.errors import RunFailed
from trainer.files import safe_start, writing
from trainer.runs import user_code, vouching
from trainer.runs.directory import RunDirectory
from trainer.runs.status import HasStatus
from trainer.session import bounds, logger_feed
from trainer.session.display import Standing
from trainer.session.log_file import log, log_evaluation, logging_to
from trainer.session.logger_feed import LoggerFeed
from trainer.session.metrics_writer import MetricsFile, cut_back
from trainer.session.prepare import replace_settings
from trainer.session.restore import restore
from trainer.session.saver import Saver
from trainer.session.session import Session
from trainer.session.status_writer import StatusWriter, preprocess_of
from trainer.training import compiled, loop
from trainer.training.build import Built, resolved
from trainer.training.instantiate import reason_of
from trainer.training.loop import Diverged, Learner, NonFinite, Reader, Taken, driven, evaluate
from trainer.training.parameters import few_parameters


@dataclass(frozen=True)
class Outcome(HasStatus):
    """How training ended without an error.

    Args:
        reason: complete, patience or stopped.
        first_step: The step that training started from.
        seconds: How long training took.
        first_loss: The loss of the run's first step.
        numbers: The parameters if there are few, else None.
        status: The content of status.json.
        exit_code: The exit code of the command.
    """

    reason: str
    first_step: int
    seconds: float
    first_loss: float | None
    numbers: dict[str, Any] | None
    status: dict[str, Any]
    exit_code: int = 0


def train(session: Session) -> Outcome:
    """Train a run from its newest good checkpoint, or from the start, until it ends.

    Raises:
        UsageError: Another process is training the run, or its checkpoints do not fit; nothing has been changed.
        RunFailed: Training can't continue.
    """
    with session.stopping:
        return driven(training(session))


def training(session: Session) -> Generator[Learner, Taken | None, Outcome]:
    """Train as `train` does, but let the caller, which has entered `session.stopping`, take the steps."""
    rundir, built, run, stopping = session.rundir, session.built, session.built.run, session.stopping
    loggers = logger_feed.build_loggers(built.settings, run.steps)
    feed = LoggerFeed(rundir.metrics, loggers, session.announce, session.seconds)
    with rundir.lock(session.request.command), logging_to(rundir.log), closing(feed):
        status = _open(session)
        first_step = run.state.step
        metrics = MetricsFile(rundir.metrics, built.settings.log_every, run.model)
        saver = Saver(rundir, built, metrics)
        try:
            status.write()
            log.info("%s from step %d of %d", "starts" if first_step == 0 else "resumes", first_step, run.steps)
            display = session.show(_standing(session))
            compile_step(built, session.announce)
            feed.open(first_step)
            status.start()
            with display, saver:
                if first_step == 0 and (built.settings.init_from is not None or built.objects):
                    saver(True)  # the source of these weights may change or disappear before the run is resumed
                readers: list[Reader] = [metrics, display, status, log_evaluation, *feed.readers]
                reason = yield from loop.training(run, readers, saver, stopping)
                if run.validation is not None and run.state.validation_step != run.state.step and not stopping():
                    run.at_end = evaluate(run, run.validation)
            metrics.close()
            feed.close()  # a reader that sees "done" must find every row
            status.write("stopped" if reason == "stopped" else "done")
        except (KeyboardInterrupt, GeneratorExit):  # a second interrupt, where it does not end the process
            metrics.close()
            raise
        except Exception as error:
            _fail(session, error, status, metrics, saver)
        log.info("%s at step %d: %s", status.content["state"], run.state.step, reason)
    signal = stopping.signal if reason == "stopped" else None
    return Outcome(
        reason,
        first_step,
        status.seconds,
        run.state.first_loss,
        few_parameters(run.model),
        status.content,
        128 + signal if signal else 0,
    )


def _open(session: Session) -> StatusWriter:
    """Restore the newest good checkpoint and make the files of the run agree with it and with the settings."""
    rundir, built, announce = session.rundir, session.built, session.announce
    bounds.require_files(redact.tree(resolved(built).to_dict()), rundir.read_status(), preprocess_of(built))
    store.tidy(rundir.checkpoints)
    rundir.tidy()
    length = restore(built, rundir, announce, session.request.force)
    writing.remove_tree(rundir.failure)  # the saved failure is obsolete once training continues
    if (problem := vouching.edited_status(rundir)) is not None:
        announce(f"warning: {problem}; it is rewritten")
    status = StatusWriter(session)
    _keep_code(session, status)
    if vouching.Kept(rundir).sums != status.content["sums"]:
        replace_settings(rundir, status.write, status.content["config"], preprocess_of(built))
    status.forget_before()
    if not cut_back(rundir.metrics, length):
        announce(f"warning: {rundir.metrics} is shorter than the checkpoint recorded: its last rows are lost")
    return status


def _keep_code(session: Session, status: StatusWriter) -> None:
    """Copy the user's modules into the run directory; a run that was trusted stays trusted."""
    rundir, own = session.rundir, user_code.of_run(session.rundir)
    sources = user_code.to_keep(user_code.used(session.built.settings), own)
    for remark in user_code.trust_next(rundir, own, status.content, sources):
        session.announce(remark)
    status.note_code(user_code.keep(rundir, sources, own))


def _standing(session: Session) -> Standing:
    run = session.built.run
    return Standing(
        run.steps,
        run.state.step,
        run.batches.steps_per_epoch,
        lambda: run.best,
        lambda: few_parameters(run.model),
        session.stopping,
    )


def _fail(session: Session, error: Exception, status: StatusWriter, metrics: MetricsFile, saver: Saver) -> NoReturn:
    """Record a failure on disk if possible, and raise it as RunFailed."""
    built = session.built
    with suppress(OSError):  # the disk may be full
        saver.keep_best()
    failure = failure_of(error, built, session.rundir)
    diagnosis = None
    if isinstance(failure, NonFinite | Diverged):  # the step that failed; analysis/failure.py adds to it
        diagnosis = {"step": built.run.state.step + isinstance(failure, NonFinite)}
    cause = None if failure is error else error
    log.error("failed: %s", failure, exc_info=cause)
    for last in (metrics.close, lambda: status.write("failed", redact.hide(str(failure)), diagnosis)):
        with suppress(OSError):
            last()
    raise failure from cause


def compile_step(built: Built, announce: Callable[[str], None]) -> None:
    """Compile the training step if the settings ask for it."""
    if built.settings.compile == "step":
        with safe_start.safe_path():  # torch starts Python processes to find out what the machine supports
            compiled.install(built, announce)


def failure_of(error: Exception, built: Built, rundir: RunDirectory) -> RunFailed:
    """Convert an error to RunFailed, with a message of one line and any advice."""
    return error if isinstance(error, RunFailed) else RunFailed(_reason(error, built, rundir))


def _reason(error: Exception, built: Built, rundir: RunDirectory) -> str:
    if isinstance(error, OSError) and not rundir.exists:
        return f"{rundir.path} no longer exists: it was deleted or moved during training"
    if isinstance(error, OSError) and error.strerror:
        saved = manifest.steps(rundir.checkpoints)
        kept = f"the checkpoint of step {saved[-1]:,} is intact" if saved else "no checkpoint had been saved yet"
        return f"{error.strerror}: {error.filename or rundir.path}; {kept}"
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        size = built.run.batches.batch_size
        smaller = f"batch_size={max(size // 2, 1)} accumulate={built.settings.accumulate * 2}"
        return f"out of memory with batch_size={size}; {smaller} needs less"
    return f"{reason_of(error)}; trainer.log has the traceback"
