"""Trains a job in its run directory, from its newest checkpoint to its end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from trainer.checkpoints import manifest, store
from trainer.config import secrets as redact
from trainer.config.settings import check
from trainer.errors import RunFailed, TrainerError
from trainer.files import safe_start, writing
from trainer.files.plain_json import finite
from trainer.files.sums import sum_of
from trainer.runs import own_modules, user_code, vouching
from trainer.runs.directory import InUse, RunDirectory
from trainer.session import bounds, logger_feed
from trainer.session.display import Display, NoDisplay, Standing
from trainer.session.log_file import log, log_evaluation, logging_to
from trainer.session.logger_feed import LoggerFeed
from trainer.session.metrics_writer import MetricsFile, cut_back
from trainer.session.prepare import rebuild
from trainer.session.restore import restore
from trainer.session.saver import Saver
from trainer.session.status_writer import SECONDS, StatusWriter, preprocess_of, standing, superseded
from trainer.session.stopping import BrokenOff, Stopping
from trainer.training import compiled, loop
from trainer.training.build import Built, resolved
from trainer.training.instantiate import reason_of
from trainer.training.loop import Diverged, Learner, NonFinite, Reader, Taken, driven, evaluate
from trainer.training.parameters import few_parameters


@dataclass(frozen=True)
class Outcome:
    """How a job ended: done, stopped or failed, why, and where it stands."""

    state: str
    reason: str
    step: int
    first_step: int
    metrics: dict[str, float | None]
    seconds: float
    first_loss: float | None
    numbers: dict[str, Any] | None
    status: dict[str, Any]
    exit_code: int = 0


def execute(
    rundir: RunDirectory,
    command: str,
    overrides: list[str],
    force: bool = False,
    stopping: Stopping | None = None,
    secrets: Mapping[str, Any] | None = None,
    digest: str | None = None,
) -> None:
    """Train a written job without a display; how it ends stands in its status.json.

    Args:
        rundir: The job's directory.
        command: What the user typed, for the record.
        overrides: The settings that the user typed, for the record.
        force: Start over if there should be a good checkpoint and is none.
        stopping: What asks it to stop; by default a signal.
        secrets: What is not kept in the directory, by dotted key.
        digest: That of its own code, as it was checked.
    """
    with stopping or Stopping() as entered:
        driven(executing(rundir, command, overrides, force, entered, secrets, digest))


def opened(rundir: RunDirectory, command: str, force: bool, digest: str | None) -> dict[str, Any]:
    """Return the configuration of a job, whose own code may be imported from then on.

    Args:
        rundir: The job's directory.
        command: What the user typed.
        force: Whether to take modules as they are now, where they have changed.
        digest: That of its own code, as it was checked.

    Raises:
        UsageError: The code is not what was checked.
    """
    own_modules.begin()
    config = rundir.read_config()
    if (own := user_code.require_unchanged(rundir, config, digest)) is not None:
        user_code.admit({rundir: own}, command, trust=not force, force=force)
    return config


def executing(
    rundir: RunDirectory,
    command: str,
    overrides: list[str],
    force: bool,
    stopping: Stopping,
    secrets: Mapping[str, Any] | None = None,
    digest: str | None = None,
    seconds: float = SECONDS,
) -> Generator[Learner, Taken | None, None]:
    """Train as `execute` does; whoever drives this loop takes the steps, and has entered `stopping`.

    Args:
        seconds: Between two writings of status.json.
    """
    try:
        with stopping.breaking_off():
            config = redact.filled(opened(rundir, command, force, digest), secrets or {})
            built = rebuild(rundir, check(config), rundir.read_status().get("choices"))
        yield from training(
            rundir, built, command, overrides, lambda standing: NoDisplay(), log.info, force, stopping, seconds
        )
    except BrokenOff:
        pass  # it still waits to be trained
    except InUse:
        pass  # what happens to it is for the process that trains it to write
    except Exception as error:
        reason = redact.hide(str(error) if isinstance(error, TrainerError) else f"{type(error).__name__}: {error}")
        status = rundir.read_status()
        if status.get("state") != "failed":
            with suppress(OSError):  # its directory may be what is gone
                rundir.write_status({**status, "state": "failed", "error": reason})


def train(
    rundir: RunDirectory,
    built: Built,
    command: str,
    overrides: list[str],
    show: Callable[[Standing], Display],
    announce: Callable[[str], None],
    force: bool = False,
    stopping: Stopping | None = None,
) -> Outcome:
    """Train a created run from its newest good checkpoint, or from the start, until it ends.

    Args:
        rundir: The run's directory.
        built: Its parts, as built from its configuration.
        command: What the user typed, for the record.
        overrides: The settings that the user typed, for the record.
        show: Makes the display.
        announce: Tells the user something in one line before training starts.
        force: Start over if there should be a good checkpoint and is none.
        stopping: What asks it to stop; by default a signal.

    Raises:
        UsageError: Another process trains it, or no checkpoint fits; nothing has been changed.
        RunFailed: Training met something it can't go on from.
    """
    with stopping or Stopping() as entered:
        return driven(training(rundir, built, command, overrides, show, announce, force, entered))


def training(
    rundir: RunDirectory,
    built: Built,
    command: str,
    overrides: list[str],
    show: Callable[[Standing], Display],
    announce: Callable[[str], None],
    force: bool,
    stopping: Stopping,
    seconds: float = SECONDS,
) -> Generator[Learner, Taken | None, Outcome]:
    """Train as `train` does; whoever drives this loop takes the steps, and has entered `stopping`.

    Args:
        seconds: Between two writings of status.json.
    """
    run = built.run
    loggers = logger_feed.chosen(built.settings, run.steps)
    feed = LoggerFeed(rundir.metrics, loggers, announce, seconds)
    with rundir.lock(command), logging_to(rundir.log), feed:
        bounds.require_files(redact.tree(resolved(built).to_dict()), rundir.read_status(), preprocess_of(built))
        store.tidy(rundir.checkpoints)
        rundir.tidy()
        length = restore(built, rundir, announce, force)
        writing.remove_tree(rundir.failure)  # what it went wrong with may go right now
        if (problem := vouching.edited_status(rundir)) is not None:
            announce(f"warning: {problem}; it is written anew")
        used = _keep_code(rundir, built, announce)
        record = StatusWriter(rundir, built, command, overrides, announce, used, seconds)
        rewrite(rundir, record, built)
        record.forget_before()
        if not cut_back(rundir.metrics, length):
            announce(f"warning: {rundir.metrics} is shorter than at that step: its last rows are lost")
        first_step = run.state.step
        metrics = MetricsFile(rundir.metrics, built.settings.log_every, run.model)
        saver = Saver(rundir, built, metrics)
        shown = Standing(
            run.steps,
            first_step,
            run.batches.steps_per_epoch,
            lambda: (run.state.best_step, run.state.best_value),
            lambda: few_parameters(run.model),
            stopping,
        )
        try:
            record.write()
            log.info("%s from step %d of %d", "starts" if first_step == 0 else "goes on", first_step, run.steps)
            screen = show(shown)
            compile_step(built, announce)
            feed.open(first_step)
            record.start()
            with screen, saver:
                if run.state.step == 0 and (built.settings.init_from is not None or built.objects):
                    saver(True)  # what it begins with may be something else, or gone, when it is resumed
                readers: list[Reader] = [metrics, screen, record, log_evaluation, *feed.readers]
                reason = yield from loop.training(run, readers, saver, stopping)
                if run.validation is not None and run.state.validation_step != run.state.step and not stopping():
                    run.state.validation = evaluate(run, run.validation)
            metrics.close()
            feed.finish()  # whoever reads "done" finds all of it
            state = "stopped" if reason == "stopped" else "done"
            record.write(state)
        except (KeyboardInterrupt, GeneratorExit):  # a second interrupt, where that does not end the process
            metrics.close()
            raise
        except Exception as error:
            with suppress(OSError):  # a full disk may be what it failed for
                saver.keep_best()
            failure = failure_of(error, built, rundir)
            diagnosis = failed_step(failure, built)
            cause = None if failure is error else error
            log.error("failed: %s", failure, exc_info=cause)
            for last in (metrics.close, lambda: record.write("failed", redact.hide(str(failure)), diagnosis)):
                with suppress(OSError):
                    last()
            raise failure from cause
        log.info("%s at step %d: %s", state, run.state.step, reason)
    code = 128 + stopping.signal if state == "stopped" and stopping.signal else 0
    return Outcome(
        state,
        reason,
        run.state.step,
        first_step,
        finite(standing(run)["metrics"]),
        record.seconds,
        run.state.first_loss,
        few_parameters(run.model),
        record.status,
        code,
    )


def _keep_code(rundir: RunDirectory, built: Built, announce: Callable[[str], None]) -> dict[str, str]:
    """Keep the user's modules with a run that goes on, and return the SHA-256 of each by its path."""
    own, status, config = user_code.of_run(rundir), rundir.read_status(), redact.tree(resolved(built).to_dict())
    sources = user_code.to_keep(user_code.used(built.settings), own)
    segments = superseded(status.get("segments", []), rundir.read_config(), config)
    for remark in user_code.trust_next(rundir, own, {"config": config, "segments": segments}, sources):
        announce(remark)
    return user_code.keep(rundir, sources, own)


def rewrite(rundir: RunDirectory, record: StatusWriter, built: Built) -> None:
    """Let config.yaml and preprocess.json hold what a run goes on with.

    status.json comes first, as it vouches for them; and never are there a configuration and the preprocessing of
    other data: the old one goes before, and whoever is killed between makes it anew from the data.
    """
    config, preprocess = redact.tree(resolved(built).to_dict()), preprocess_of(built)
    is_other = preprocess is not None and rundir.read_preprocess() != preprocess
    is_changed = sum_of(config) != sum_of(rundir.read_config())
    if is_other or is_changed:
        record.write()
    if is_other:
        rundir.remove_preprocess()
    if is_changed:
        rundir.write_config(config)
    if is_other:
        rundir.write_preprocess(preprocess)


def compile_step(built: Built, announce: Callable[[str], None]) -> None:
    """Let a run that is ready to train take compiled steps if its settings ask for that."""
    if built.settings.compile == "step":
        with safe_start.safe_path():  # torch asks processes of Python what this machine can do
            compiled.install(built, announce)


def failed_step(failure: RunFailed, built: Built) -> dict[str, Any] | None:
    """Return what status.json says at first of a run whose numbers ran away: at which step. None of other failures."""
    if not isinstance(failure, NonFinite | Diverged):
        return None
    return {"step": built.run.state.step + isinstance(failure, NonFinite)}


def failure_of(error: Exception, built: Built, rundir: RunDirectory) -> RunFailed:
    """Return what ended a run as one line, with advice where there is some."""
    return error if isinstance(error, RunFailed) else RunFailed(_crash(error, built, rundir))


def _crash(error: Exception, built: Built, rundir: RunDirectory) -> str:
    if isinstance(error, OSError) and not rundir.exists:
        return f"{rundir.path} is gone: something has deleted or moved it while it was trained"
    if isinstance(error, OSError) and error.strerror:
        saved = manifest.steps(rundir.checkpoints)
        kept = f"the checkpoint of step {saved[-1]:,} is intact" if saved else "no checkpoint had been saved yet"
        return f"{error.strerror}: {error.filename or rundir.path}; {kept}"
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        size = built.run.batches.batch_size
        smaller = f"batch_size={max(size // 2, 1)} accumulate={built.settings.accumulate * 2}"
        return f"out of memory with batch_size={size}; a run with {smaller} needs less"
    return f"{reason_of(error)}; trainer.log has the traceback"
