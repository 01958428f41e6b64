"""One job from its configuration to its end: built, written, trained, and gone on with after a stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer import bounds, checkpoint, durable, logger_feed, loop, manifest, modules, redact, runs
from trainer.build import Built, build, resolved
from trainer.components import reason_of
from trainer.data import Preprocess
from trainer.errors import RunFailed, TrainerError, UsageError
from trainer.log import log, log_evaluation, logging_to
from trainer.logger_feed import LoggerFeed
from trainer.loop import Diverged, NonFinite, Reader, Run, Taken, driven, evaluate
from trainer.metrics import MetricsFile, cut_back, few_parameters, finite
from trainer.progress import Display, NoDisplay, Standing
from trainer.record import SECONDS, Record, first_status, standing
from trainer.rundir import InUse, RunDir
from trainer.saver import Saver, restore, start_from
from trainer.settings import Settings, check
from trainer.signals import BrokenOff, Stopping
from trainer.trial import try_out


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


@dataclass(frozen=True)
class Plan:
    """A job that has been checked: what its directory starts with."""

    config: dict[str, Any]
    status: dict[str, Any]
    code: dict[str, bytes]
    preprocess: dict[str, Any] | None

    def write(self, path: Path) -> RunDir:
        """Create the directory of the run, waiting to be trained."""
        rundir = RunDir(path)
        rundir.create(*self._content(path))
        return rundir

    def fill(self, path: Path) -> None:
        """Write the same into a directory that no other process knows of."""
        RunDir(path).fill(*self._content(path))

    def _content(self, path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes], dict[str, Any] | None]:
        return self.config, {"id": path.name, **self.status}, self.code, self.preprocess


def prepare(settings: Settings, choices: dict[str, str], objects: Mapping[str, Any] | None = None) -> Built:
    """Build a new job and try a step on a copy: whatever can be known to be wrong is refused here.

    Args:
        settings: The job's configuration.
        choices: What the groups select.
        objects: Parts that are there already, by group.
    """
    redact.require_given(settings.to_dict())
    built = build(settings, choices, objects=objects)
    try_out(built)
    if settings.init_from is not None:
        # By its path: `last` means another run as soon as this one is written.
        source = str(runs.find(settings.init_from))
        built.settings = dataclasses.replace(built.settings, init_from=source)
        start_from(built.run.model, source)
    return built


def rebuild(
    rundir: RunDir,
    settings: Settings,
    choices: dict[str, str] | None = None,
    objects: Mapping[str, Any] | None = None,
) -> Built:
    """Build the parts of an existing run, whose data are prepared as they were unless they are to be others.

    Args:
        rundir: The run's directory.
        settings: Its configuration, or what it is changed to.
        choices: What the groups select.
        objects: Parts that are there already, by group.
    """
    redact.require_given(settings.to_dict())
    same = rundir.read_config().get("data") == redact.tree(settings.to_dict())["data"]  # secrets are not kept
    return build(settings, choices, kept_preprocess(rundir) if same else None, objects)


def kept_preprocess(rundir: RunDir) -> Preprocess | None:
    """Return how a run's data are prepared, None where nothing was kept.

    Raises:
        UsageError: The file of it can't be read.
    """
    kept = rundir.read_preprocess()
    try:
        return None if kept is None else Preprocess.from_json(kept)
    except ValueError as error:
        raise UsageError(f"{rundir.path / 'preprocess.json'} {error}") from error


def plan(settings: Settings, status: dict[str, Any], threads: int | None = None) -> Plan:
    """Check a job by building it, and keep what its directory will hold.

    Args:
        settings: The job's configuration.
        status: Further fields of status.json, `choices` among them.
        threads: CPU threads unless the settings name them; None is torch's own choice.
    """
    return plan_of(prepare(settings, status["choices"]), status, threads)


def plan_of(built: Built, status: dict[str, Any], threads: int | None = None) -> Plan:
    """Return the plan of a job that has been built already."""
    config, code = redact.tree(resolved(built, threads).to_dict()), modules.used(built.settings)
    bounds.require_code(code)
    choices = {**status.get("choices", {}), **built.choices}
    first = {**first_status(built), "config": config, "code": modules.sums(code), **status, "choices": choices}
    preprocess = preprocess_of(built)
    bounds.require_files(config, first, preprocess)
    return Plan(config, first, code, preprocess)


def preprocess_of(built: Built) -> dict[str, Any] | None:
    """Return what preprocess.json holds of a run, None if the data have no inputs."""
    preprocess = built.data.preprocess
    return None if preprocess is None else preprocess.to_json()


def execute(
    rundir: RunDir,
    command: str,
    overrides: list[str],
    force: bool = False,
    stopping: Stopping | None = None,
    secrets: Mapping[str, Any] | None = None,
) -> None:
    """Train a written job without a display; how it ends stands in its status.json.

    Args:
        rundir: The job's directory.
        command: What the user typed, for the record.
        overrides: The settings that the user typed, for the record.
        force: Start over if there should be a good checkpoint and is none.
        stopping: What asks it to stop; by default a signal.
        secrets: What is not kept in the directory, by dotted key.
    """
    with stopping or Stopping() as entered:
        driven(executing(rundir, command, overrides, force, entered, secrets))


def executing(
    rundir: RunDir,
    command: str,
    overrides: list[str],
    force: bool,
    stopping: Stopping,
    secrets: Mapping[str, Any] | None = None,
    seconds: float = SECONDS,
) -> Generator[Run, Taken | None, None]:
    """Train as `execute` does; whoever drives this loop takes the steps, and has entered `stopping`.

    Args:
        seconds: Between two writings of status.json.
    """
    try:
        with stopping.breaking_off():
            config = redact.filled(rundir.read_config(), secrets or {})
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
    rundir: RunDir,
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
    rundir: RunDir,
    built: Built,
    command: str,
    overrides: list[str],
    show: Callable[[Standing], Display],
    announce: Callable[[str], None],
    force: bool,
    stopping: Stopping,
    seconds: float = SECONDS,
) -> Generator[Run, Taken | None, Outcome]:
    """Train as `train` does; whoever drives this loop takes the steps, and has entered `stopping`.

    Args:
        seconds: Between two writings of status.json.
    """
    run = built.run
    loggers = logger_feed.chosen(built.settings, run.steps)
    feed = LoggerFeed(rundir.metrics, loggers, announce, seconds)
    with rundir.lock(command), logging_to(rundir.log), feed:
        bounds.require_files(redact.tree(resolved(built).to_dict()), rundir.read_status(), preprocess_of(built))
        checkpoint.tidy(rundir.checkpoints)
        rundir.tidy()
        length = restore(built, rundir, announce, force)
        durable.remove_tree(rundir.failure)  # what it went wrong with may go right now
        config = redact.tree(resolved(built).to_dict())
        if config != rundir.read_config():
            rundir.write_config(config)
        if rundir.read_preprocess() != (preprocess := preprocess_of(built)):
            rundir.write_preprocess(preprocess)
        sources = modules.used(built.settings)
        used = modules.sums(sources) or modules.kept(rundir)  # what is installed by now is not kept anew
        if used != modules.kept(rundir):
            for name in modules.kept(rundir).keys() - sources.keys():
                (rundir.code / name).unlink(missing_ok=True)
            rundir.write_code(sources)
        if not cut_back(rundir.metrics, length):
            announce(f"warning: {rundir.metrics} is shorter than at that step: its last rows are lost")
        first_step = run.state.step
        record = Record(rundir, built, command, overrides, announce, used, seconds)
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


def compile_step(built: Built, announce: Callable[[str], None]) -> None:
    """Let a run that is ready to train take compiled steps if its settings ask for that."""
    if built.settings.compile == "step":
        from trainer import compiled  # it imports torch's compiler

        compiled.install(built, announce)


def failed_step(failure: RunFailed, built: Built) -> dict[str, Any] | None:
    """Return what status.json says at first of a run whose numbers ran away: at which step. None of other failures."""
    if not isinstance(failure, NonFinite | Diverged):
        return None
    return {"step": built.run.state.step + isinstance(failure, NonFinite)}


def failure_of(error: Exception, built: Built, rundir: RunDir) -> RunFailed:
    """Return what ended a run as one line, with advice where there is some."""
    return error if isinstance(error, RunFailed) else RunFailed(_crash(error, built, rundir))


def _crash(error: Exception, built: Built, rundir: RunDir) -> str:
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
