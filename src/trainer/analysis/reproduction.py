"""Repeats a run in memory, and compares each step with the files of the run."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.checkpoints import manifest, store
from trainer.checkpoints.manifest import BadCheckpoint
from trainer.checkpoints.store import Checkpoint
from trainer.config import secrets
from trainer.config.settings import differences, flat
from trainer.data import Preprocess
from trainer.files import fingerprint, plain_json
from trainer.loggers import numbers
from trainer.runs import find, newest, user_code, vouching
from trainer.runs.directory import RunDirectory
from trainer.runs.history import History, Segment
from trainer.session import environment
from trainer.session.display import Display, Standing
from trainer.session.metrics_writer import Lines
from trainer.session.prepare import kept_preprocess
from trainer.session.restore import start_from
from trainer.session.run_state import load_weights, put_back, snapshot
from trainer.session.status_writer import differing, first_status
from trainer.session.stopping import BrokenOff, Stopping
from trainer.session.train import compile_step, failure_of
from trainer.text import show
from trainer.training.build import Built, build
from trainer.training.loop import Row, fit
from trainer.training.parameters import few_parameters


@dataclass(frozen=True)
class Difference:
    """The first difference between a run and its repetition.

    Args:
        step: The number of finished steps.
        what: The name of the metric, the weight or the property.
        then: The value in the run; None if there is none.
        now: The value in the repetition; None if there is none.
        by: The size of the difference, in words.
    """

    step: int
    what: str
    then: Any
    now: Any
    by: str = ""


class Differs(Exception):
    """Ends a repetition at its first difference."""

    def __init__(self, *difference: Any) -> None:
        """Store the difference, given by its fields."""
        super().__init__(*difference)
        self.difference = Difference(*difference)


@dataclass
class Finding:
    """The result of repeating a run.

    Args:
        run: The run's directory.
        step: The number of repeated steps.
        rows: The number of rows of metrics.jsonl that are the same.
        checkpoints: The steps of the checkpoints whose weights are the same.
        difference: The first difference; None if there is none.
        failure: The error of the repetition; None if it did not fail.
        stopped: Whether the repetition was stopped before its end.
        circumstances: Changes since the run was trained: versions, machine, modules.
        seconds: The duration.
    """

    run: str
    step: int = 0
    rows: int = 0
    checkpoints: list[int] = field(default_factory=list)
    difference: Difference | None = None
    failure: str | None = None
    stopped: bool = False
    circumstances: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_identical(self) -> bool:
        """Whether the whole run was reproduced exactly."""
        return self.difference is None and not self.stopped


def reproduce(
    of: History,
    open_screen: Callable[[Built, Standing], Display],
    announce: Callable[[str], None],
    stopping: Stopping,
) -> Finding:
    """Repeat a run to its end or to the first difference; nothing is written.

    Args:
        of: The run.
        open_screen: Prints the header and returns the display.
        announce: Prints a line for the user.
        stopping: Requests a stop.

    Raises:
        UsageError: The run can't be built any more.
    """
    finding, start = Finding(str(of.rundir.path)), time.perf_counter()
    try:
        with stopping.breaking_off():
            built = _begun(of)
    except BrokenOff:
        finding.stopped = True
        return finding
    standing = Standing(
        of.end,
        0,
        built.run.batches.steps_per_epoch,
        lambda: built.run.best,
        lambda: few_parameters(built.run.model),
        stopping,
    )
    comparison = Comparison(of, finding)
    # A failed run failed during the step after its last one, or at the end of its last one.
    ends = [*(leg.first_step for leg in of.legs[1:]), of.end + (of.failure is not None)]
    try:
        with open_screen(built, standing) as display:
            for leg, end in zip(of.legs, ends, strict=True):
                with stopping.breaking_off():
                    if leg is not of.legs[0]:
                        built = _continued(built, leg, of, announce)
                    _note(finding, _circumstances(of, leg, built))
                    compile_step(built, announce)
                comparison.follow(built)
                fit(built.run, [comparison, display], comparison.save, _reached(built, end, stopping))
        finding.stopped = stopping()
        if not finding.stopped:
            comparison.require_end()
    except BrokenOff:
        finding.stopped = True
    except Differs as found:
        finding.difference = found.difference
    except Exception as error:  # the run may have failed with the same error
        finding.failure = secrets.hide(str(failure_of(error, built, of.rundir)))
        if finding.failure != of.failure:
            finding.difference = Difference(built.run.state.step, "failure", of.failure, finding.failure)
    finding.step, finding.seconds = built.run.state.step, time.perf_counter() - start
    return finding


def _begun(of: History) -> Built:
    """Build a run in its state before the first step."""
    settings, checkpoints = of.legs[0].settings, of.rundir.checkpoints
    built = build(settings, of.status.get("choices"), _preprocess(of, of.legs[0]))
    if settings.init_from is not None:
        if 0 in manifest.steps(checkpoints):  # the other run may have changed
            load_weights(built.run.model, store.load(checkpoints / manifest.name_of(0)).weights, "its checkpoint")
        else:
            start_from(built.run.model, settings.init_from)
    return built


def _preprocess(of: History, leg: Segment) -> Preprocess | None:
    """Return the saved preprocessing for a leg; None if its data are not the run's current data."""
    return kept_preprocess(of.rundir) if vouching.same_data(of.rundir, leg.settings) else None


def _continued(built: Built, leg: Segment, of: History, announce: Callable[[str], None]) -> Built:
    """Rebuild a run with changed settings in its current state, as resuming does."""
    run = built.run
    training = copy.deepcopy(dict(snapshot(run, 0)))
    weights = copy.deepcopy(run.model.state_dict())
    changed = build(leg.settings, of.status.get("choices"), _preprocess(of, leg))
    now = flat(secrets.tree(changed.settings.to_dict()))
    changes = [
        f"{key} {show(old)} -> {show(now.get(key))}" for key, old, _ in differences(built.settings, changed.settings)
    ]
    announce(f"at step {run.state.step:,}: {', '.join(changes)}")
    put_back(changed, Checkpoint(of.rundir.path, run.state.step, weights, training), announce)
    return changed


def _reached(built: Built, end: int, stopping: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: built.run.state.step >= end or stopping()


def _note(finding: Finding, circumstances: list[str]) -> None:
    finding.circumstances = list(dict.fromkeys([*finding.circumstances, *circumstances]))


def _circumstances(of: History, leg: Segment, built: Built) -> list[str]:
    """Return the changes since a leg of a run was trained, each as `what: old -> new`."""
    now = {"versions": environment.versions(), "machine": environment.machine(built.device)}
    found = [change for segment in leg.segments for change in differing(segment, now)]
    commit = environment.git_commit()
    found += [f"git: {one.get('git')} -> {commit}" for one in leg.segments if one.get("git") != commit]
    sources, saved = user_code.sums(user_code.used(built.settings)), user_code.kept(of.rundir)
    found += [f"{name}: has changed" for name in sorted({*sources, *saved}) if sources.get(name) != saved.get(name)]
    first, used = first_status(built), {str(path) for path in built.data.files}
    files = {path: sums for path, sums in of.status.get("data", {}).get("files", {}).items() if path in used}
    found += [f"{path}: has changed" for path in fingerprint.changed(files)]
    for key in ("parameters", "rows"):
        if key in of.status and of.status[key] != first[key]:
            found.append(f"{key}: {show(of.status[key])} -> {show(first[key])}")
    if (source := leg.settings.init_from) is not None and _started(find.find(source)) > _started(of.rundir.path):
        found.append(f"init_from: {source} has been trained since")
    return found


def _started(path: Path) -> str:
    segments = RunDirectory(path).read_status().get("segments") or [{}]
    return newest.started(segments[-1])


class Comparison:
    """Compares rows and weights with those of a run, as a reader of the loop.

    Args:
        of: The run.
        finding: Counts the rows and checkpoints that are the same.
    """

    def __init__(self, of: History, finding: Finding) -> None:
        self._of, self._finding = of, finding
        self._rows: Iterator[Any] = plain_json.json_lines(of.rundir.metrics)
        self._saved = set(manifest.steps(of.rundir.checkpoints))

    def follow(self, built: Built) -> None:
        """Start to compare a leg of the repetition.

        Raises:
            Differs: Its initial weights differ.
        """
        self._run = built.run
        self._lines = Lines(built.settings.log_every, built.run.model)
        self.save(False)

    def __call__(self, row: Row) -> None:
        """Compare a row.

        Raises:
            Differs: It differs.
        """
        line = self._lines.line(row)
        if line is None:
            return
        now, then = json.loads(line), self._next(row["step"])
        if then is None and self._of.failure is not None:
            raise Differs(row["step"], "failure", self._of.failure, None)
        if json.dumps(then) + "\n" != line:
            raise _row_difference(row["step"], then, now)
        self._finding.rows += 1

    def save(self, due: bool) -> None:
        """Compare the weights if the run has a checkpoint of this step.

        Raises:
            Differs: They differ, or the checkpoint can't be read.
        """
        step = self._run.state.step
        if step not in self._saved:
            return
        self._saved.remove(step)
        path = self._of.rundir.checkpoints / manifest.name_of(step)
        try:
            then = store.load(path).weights
        except BadCheckpoint as error:
            raise Differs(step, "checkpoint", str(error), None) from error
        _require_same_weights(step, then, self._run.model.state_dict())
        self._finding.checkpoints.append(step)

    def require_end(self) -> None:
        """Compare the end of the run.

        Raises:
            Differs: The run has more steps, or failed.
        """
        step = self._run.state.step
        if self._of.failure is not None:
            raise Differs(step, "failure", self._of.failure, None)
        if step < self._of.end:
            raise Differs(step, "steps", self._of.end, step)
        if self._of.has_ended and (more := self._next(step)) is not None:
            raise _row_difference(step, more, None)

    def _next(self, step: int) -> Any:
        """Return the next row of the run, None after the last one."""
        try:
            return next(self._rows, None)
        except OSError as error:
            raise Differs(step, "metrics.jsonl", error.strerror, None) from error
        except ValueError as error:
            raise Differs(step, "metrics.jsonl", str(error), None) from error


def _row_difference(step: int, then: Any, now: Any) -> Differs:
    """Return the first difference between two rows, one of which may be missing."""
    if not isinstance(then, dict) or not isinstance(now, dict) or then.get("step") != now["step"]:
        return Differs(step, "row", then, now)
    old, new = numbers(then), numbers(now)
    key = next(key for key in [*new, *old] if json.dumps(old.get(key)) != json.dumps(new.get(key)))
    return Differs(step, key, old.get(key), new.get(key), _distance(old.get(key), new.get(key)))


def _distance(then: Any, now: Any) -> str:
    if isinstance(then, int | float) and isinstance(now, int | float):
        return f"by {abs(now - then):.3g}"
    return ""


def _require_same_weights(step: int, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare all tensors bit by bit.

    Raises:
        Differs: One differs.
    """
    for name in [*now, *(name for name in then if name not in now)]:
        old, new = then.get(name), now.get(name)
        if isinstance(old, Tensor) and isinstance(new, Tensor) and (old.dtype, old.shape) == (new.dtype, new.shape):
            new = new.detach().cpu()
            differ = (_bits(old) != _bits(new)).any(dim=1)
            if bool(differ.any()):
                index = int(differ.nonzero()[0])
                values = old.reshape(-1)[index].item(), new.reshape(-1)[index].item()
                largest = float((old.double() - new.double()).abs().max())
                by = f"{int(differ.sum()):,} of {differ.numel():,} numbers differ, by at most {largest:.3g}"
                raise Differs(step, f"weight {name}", *values, by)
        elif isinstance(old, Tensor) or isinstance(new, Tensor) or old != new:
            raise Differs(step, f"weight {name}", _described(old), _described(new))


def _bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor, a row for each number."""
    return tensor.contiguous().reshape(-1, 1).view(torch.uint8)


def _described(value: Any) -> Any:
    if value is None:
        return "missing"
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else value
