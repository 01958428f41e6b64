"""One job from its configuration to its end: built, written, trained, and gone on with after a stop."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer import checkpoint, environment
from trainer.build import Built, build
from trainer.errors import RunFailed, TrainerError
from trainer.loop import Row, Run, evaluate, fit
from trainer.metrics import MetricsFile, cut_back, few_parameters, finite
from trainer.progress import Display, NoDisplay, Standing
from trainer.rundir import RunDir
from trainer.saver import Saver, restore, start_from
from trainer.settings import Settings, check
from trainer.signals import Stopping
from trainer.trial import try_out

log = logging.getLogger("trainer")
_STATUS_SECONDS = 1.0


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
    exit_code: int = 0


@dataclass(frozen=True)
class Plan:
    """A job that has been checked: what its directory starts with."""

    config: dict[str, Any]
    status: dict[str, Any]

    def write(self, path: Path) -> RunDir:
        """Create the directory of the run, waiting to be trained."""
        rundir = RunDir(path)
        rundir.create(self.config, {"id": path.name, **self.status})
        return rundir


def prepare(settings: Settings, choices: dict[str, str], new: bool = True) -> Built:
    """Build a job and try a step on a copy: whatever can be known to be wrong is refused here.

    Args:
        settings: The job's configuration.
        choices: What the groups select.
        new: Whether it is about to be created; one that goes on may do without the run that it started from.
    """
    built = build(settings, choices)
    try_out(built)
    if new and settings.init_from is not None:
        start_from(built.run.model, settings.init_from)
    return built


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
    return Plan(resolved(built, threads).to_dict(), {**first_status(built), **status})


def first_status(built: Built) -> dict[str, Any]:
    """Return what status.json says of a run that has not begun."""
    run = built.run
    return {
        "name": built.settings.name,
        "state": "waiting",
        "step": 0,
        "steps": run.steps,
        "epoch": 0,
        "metrics": {},
        "best": None,
        "parameters": num_parameters(run),
        "rows": {"training": run.batches.rows, "validation": run.validation and run.validation.rows},
        "error": None,
        "segments": [],
    }


def resolved(built: Built, threads: int | None = None) -> Settings:
    """Return the settings with the numbers that null stood for."""
    asked = built.settings
    return dataclasses.replace(
        asked,
        steps=built.run.steps if asked.epochs is None else None,
        batch_size=built.run.batches.batch_size,
        device=dataclasses.replace(asked.device, threads=asked.device.threads or threads or torch.get_num_threads()),
        resume=False,
        run_dir=None,
    )


def execute(rundir: RunDir, command: str, overrides: list[str]) -> None:
    """Train a written job without a display; how it ends stands in its status.json."""
    try:
        settings = check(rundir.read_config())
        built = build(settings, rundir.read_status().get("choices"))
        train(rundir, built, command, overrides, lambda standing: NoDisplay(), log.warning)
    except TrainerError as error:
        status = rundir.read_status()
        if status.get("state") != "failed":
            rundir.write_status({**status, "state": "failed", "error": str(error)})


def num_parameters(run: Run) -> int:
    """Count the numbers that are trained."""
    return sum(p.numel() for p in run.model.parameters() if p.requires_grad)


def train(
    rundir: RunDir,
    built: Built,
    command: str,
    overrides: list[str],
    show: Callable[[Standing], Display],
    announce: Callable[[str], None],
    force: bool = False,
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

    Raises:
        UsageError: Another process trains it, or no checkpoint fits; nothing has been changed.
        RunFailed: Training met something it can't go on from.
    """
    run, stopping = built.run, Stopping()
    with rundir.lock(command), logging_to(rundir.log), stopping:
        checkpoint.tidy(rundir.checkpoints)
        rundir.tidy()
        length = restore(built, rundir, announce, force)
        config = resolved(built).to_dict()
        if config != rundir.read_config():
            rundir.write_config(config)
        if not cut_back(rundir.metrics, length):
            announce(f"warning: {rundir.metrics} is shorter than at that step: its last rows are lost")
        first_step, started = run.state.step, time.perf_counter()
        status = {**first_status(built), **rundir.read_status()}
        segment = begin_segment(status, built, command, overrides, announce)
        metrics = MetricsFile(rundir.metrics, built.settings.log_every, run.model)
        saver = Saver(rundir, built, metrics)

        def record(**changes: Any) -> None:
            segment["seconds"] = round(time.perf_counter() - started, 3)
            status.update(finite({**standing(run), **changes}))
            rundir.write_status(status)

        reader = StatusReader(record)
        shown = Standing(
            run.steps,
            first_step,
            run.batches.steps_per_epoch,
            lambda: (run.state.best_step, run.state.best_value),
            lambda: few_parameters(run.model),
            stopping,
        )
        try:
            record()
            log.info("%s from step %d of %d", "starts" if first_step == 0 else "goes on", first_step, run.steps)
            if built.settings.init_from is not None:
                saver(run.state.step == 0)  # that run may have changed or be gone when this one is resumed
            with show(shown) as screen:
                reason = fit(run, [metrics, screen, reader, log_evaluation], saver, stopping)
                if run.validation is not None and run.state.validation_step != run.state.step and not stopping():
                    run.state.validation = evaluate(run, run.validation)
            metrics.close()
            state = "stopped" if reason == "stopped" else "done"
            record(state=state)
        except Exception as error:
            failure = error if isinstance(error, RunFailed) else RunFailed(explain_crash(error, built))
            cause = None if failure is error else error
            log.error("failed: %s", failure, exc_info=cause)
            for last in (metrics.close, lambda: record(state="failed", error=str(failure))):
                with suppress(OSError):  # a full disk may be what it failed for
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
        time.perf_counter() - started,
        run.state.first_loss,
        few_parameters(run.model),
        code,
    )


def begin_segment(
    status: dict[str, Any], built: Built, command: str, overrides: list[str], announce: Callable[[str], None]
) -> dict[str, Any]:
    """Add a segment to the status of a run that starts or goes on now, and return it."""
    circumstances = {"versions": environment.versions(), "machine": environment.machine(built.device)}
    if status["segments"] and (changed := differing(status["segments"][-1], circumstances)):
        announce(f"warning: the same bits are not promised: {', '.join(changed)}")
    segment: dict[str, Any] = {
        "from_step": built.run.state.step,
        "command": command,
        "overrides": overrides,
        **circumstances,
        "git": environment.git_commit(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    choices = {group: name.partition("=")[2] for group, name in built.names.items()}
    status.update(
        state="running",
        steps=built.run.steps,
        error=None,
        choices={**status.get("choices", {}), **choices},
        segments=[*status["segments"], segment],
    )
    return segment


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs in versions and machine between two segments of a run, each as `what: old -> new`."""
    changes = []
    for part in ("versions", "machine"):
        old, new = before.get(part, {}), now[part]
        changes += [f"{key}: {old.get(key)} -> {new[key]}" for key in new if old.get(key) != new[key]]
    return changes


def standing(run: Run) -> dict[str, Any]:
    """Return the fields of status.json that change as the run goes on."""
    state = run.state
    best = None
    if state.best_step is not None:
        best = {"step": state.best_step, "metric": run.monitor, "value": state.best_value}
    metrics = {} if state.loss is None else {"loss": state.loss}
    return {"step": state.step, "epoch": run.epoch, "metrics": {**metrics, **state.validation}, "best": best}


class StatusReader:
    """Rewrites status.json about once a second, so that others see how far the run is."""

    def __init__(self, record: Callable[[], None]) -> None:
        self._record = record
        self._next = time.perf_counter() + _STATUS_SECONDS

    def __call__(self, row: Row) -> None:
        """Take a row."""
        if time.perf_counter() >= self._next:
            self._record()
            self._next = time.perf_counter() + _STATUS_SECONDS


def log_evaluation(row: Row) -> None:
    """Write an evaluation into trainer.log."""
    if "loss" not in row:
        log.info(
            "step %d: %s",
            row["step"],
            ", ".join(f"{k} {v:.6g}" for k, v in row.items() if k.startswith("val")),
        )


class LogFile(logging.FileHandler):
    """A log that is best effort: where it can't be written to, training goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record if possible."""
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Pass over what went wrong."""


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write what the package logs to a file for the duration of a block."""
    handler = LogFile(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()


def explain_crash(error: Exception, built: Built) -> str:
    """Say in one line what ended a run, with advice where there is some."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}; the checkpoints saved before are intact"
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        size = built.run.batches.batch_size
        smaller = f"batch_size={max(size // 2, 1)} accumulate={built.settings.accumulate * 2}"
        return f"out of memory with batch_size={size}; try {smaller}"
    return f"{type(error).__name__}: {' '.join(str(error).split())} (trainer.log there shows where)"
