"""Why a run failed: the step that it failed at is taken again and looked at, what would have helped is tried out."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import torch
import yaml
from torch.nn.utils import get_total_norm

from trainer import checkpoint, durable, generators, job, manifest
from trainer.build import Built
from trainer.checkpoint import Checkpoint
from trainer.data import Batch
from trainer.errors import RunFailed, TrainerError
from trainer.inspection import largest_gradients, layers, undone
from trainer.log import log
from trainer.loop import Diverged, NonFinite, Row, Run, dense, fit, gradients, take_step, training
from trainer.options import Catalog
from trainer.progress import number
from trainer.rundir import RunDir
from trainer.saver import put_back, snapshot, start_from
from trainer.values import show

ROWS = "failed_rows"  # in the checkpoint: the batches of the step
_SECONDS = 10.0  # for all of it
_REMEMBERED = 5  # steps whose gradients are told of
_TRIED = 50  # steps of a remedy that is tried, at least
_FEWEST = 5  # of these that must fit the time
_WEAKEST = 8  # the smallest rate that is tried is the rate times 10 to minus this
_CLIP = 1.0


class Remedy(NamedTuple):
    """A change of settings that was tried, and the loss at the beginning and at the end of so many steps."""

    words: dict[str, str]
    before: float
    after: float
    steps: int

    def __str__(self) -> str:
        """Say what came of it."""
        change = " ".join(f"{key}={value}" for key, value in self.words.items())
        return f"{change} takes the loss from {number(self.before)} to {number(self.after)} in {self.steps} steps"


def diagnose(error: RunFailed, rundir: RunDir, failed: Built) -> dict[str, Any] | None:
    """Find out why a run failed; the step that it failed at is kept in its directory.

    The run is built anew, goes on from its newest checkpoint as it did, and stops before that step.

    Args:
        error: What ended it.
        rundir: Its directory, whose lock is held.
        failed: The run.

    Returns:
        What status.json says of it: where it began, the gradients of the last steps, and what would have helped; None
        where training did not run away.
    """
    if not isinstance(error, NonFinite | Diverged):
        return None
    facts: dict[str, Any] = {"step": failed.run.state.step + isinstance(error, NonFinite)}
    if failed.objects:  # only the caller of `fit` can build them anew
        return facts
    try:
        with generators.isolated(failed.run.seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {**facts, **_diagnosis(error, rundir, failed, facts["step"])}
    except Exception as problem:  # that must not hide what the run failed for
        log.warning("why it failed could not be found out: %s", problem)
        return facts


def kept(rundir: RunDir) -> Checkpoint | None:
    """Return the run as it was before the step that it failed at, None if nothing was kept of that.

    Raises:
        BadCheckpoint: It is damaged.
    """
    saved = manifest.steps(rundir.failure)
    return checkpoint.load(rundir.failure / manifest.name_of(saved[-1])) if saved else None


def rows(found: Checkpoint, built: Built) -> list[Batch] | None:
    """Return the batches of the step that a run failed at, None if they were not kept."""
    batches = found.training.get(ROWS) or ()
    device = built.device
    try:
        kept_rows = [
            Batch(
                tuple(tensor.to(device) for tensor in one["inputs"]),
                one["targets"].to(device),
                float(one["share"]),
                one["rows"],
            )
            for one in batches
        ]
        return kept_rows or None
    except (TypeError, KeyError, AttributeError, ValueError):
        return None


def _diagnosis(error: RunFailed, rundir: RunDir, failed: Built, step: int) -> dict[str, Any]:
    end = time.monotonic() + _SECONDS
    built = _again(rundir, failed, step - 1)
    start = _Point(built.run)
    history = _go_on(built.run, step - 1, end)
    if history is None:
        return {}
    batches = built.run.batches.at(step - 1)
    _keep(rundir, built.run, batches)
    where, norm, loss = _look(built.run, batches)
    history.append({"step": step, "loss": loss, "norm": norm})
    found: dict[str, Any] = {"where": where, "history": history}
    no_minimum = isinstance(error, Diverged) and (failed.run.state.loss or 0.0) < 0
    if math.isfinite(sum(one["loss"] or 0.0 for one in history[:1])) and not no_minimum:
        remedies = list(_remedies(built, start, step, end))
        if not remedies and start.step > 0:  # it may have been too late there
            built = _again(rundir, failed, 0)
            start = _Point(built.run)
            remedies = list(_remedies(built, start, step, end))
        found["from_step"] = start.step
        found["helps"] = [{"words": one.words, "text": str(one)} for one in remedies]
    return found


def _again(rundir: RunDir, failed: Built, most: int) -> Built:
    """Build a failed run anew, set to its newest good checkpoint or to its beginning."""
    built = job.rebuild(rundir, failed.settings, failed.choices)
    found, _ = checkpoint.newest(rundir.checkpoints)
    if found is not None and found.step <= most:
        put_back(built, found, lambda remark: None)
    elif failed.settings.init_from is not None:
        start_from(built.run.model, failed.settings.init_from)
    return built


class _Point:
    """Where a run stands, to be set back to again and again."""

    def __init__(self, run: Run) -> None:
        self.step, self._random = run.state.step, generators.state_dict()
        self._parts = [copy.deepcopy(part.state_dict()) for part in _parts(run)]
        self._settings = [{k: v for k, v in group.items() if k != "params"} for group in run.optimizer.param_groups]

    def put_back(self, run: Run, factor: float) -> None:
        """Set a run back, with its learning rates multiplied."""
        generators.load_state_dict(self._random)
        for part, state in zip(_parts(run), self._parts, strict=True):
            part.load_state_dict(copy.deepcopy(state))
        for group, settings in zip(run.optimizer.param_groups, self._settings, strict=True):
            group.update(settings)
            group.update({key: settings[key] * factor for key in ("lr", "initial_lr") if key in settings})


def _parts(run: Run) -> tuple[Any, ...]:
    return run.model, run.loss, run.optimizer, run.schedule, run.state


def _go_on(run: Run, until: int, end: float) -> list[dict[str, Any]] | None:
    """Train as the run did; return loss and norm of the gradients of the last steps, None if that takes too long."""
    history: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED - 1)
    rows: list[Row] = []
    loop = training(run, [rows.append], lambda due: None, lambda: time.monotonic() > end)
    if run.state.step >= until:
        return []
    next(loop)
    while run.state.step < until:
        rows.clear()
        taken = take_step(run)
        norm = float(get_total_norm(dense(run.weights)))
        try:
            loop.send(taken)
        except StopIteration:
            return None
        history.append({"step": run.state.step, "loss": rows[0]["loss"], "norm": norm})
    return list(history)


def _keep(rundir: RunDir, run: Run, batches: Sequence[Batch]) -> None:
    """Write weights, optimizer, generators and rows of a step into the run's directory, as a checkpoint."""
    held: dict[str, Any] = dict(snapshot(dataclasses.replace(run, random=generators.state_dict), 0))
    held[ROWS] = [{**batch._asdict(), "inputs": list(batch.inputs)} for batch in batches]
    try:
        packed = checkpoint.pack(run.state.step, run.model.state_dict(), held)
    except RunFailed:  # not even the weights are finite
        return
    durable.make_folders(rundir.failure)
    checkpoint.write(rundir.failure, packed)


def _look(run: Run, batches: Sequence[Batch]) -> tuple[str, float | None, float | None]:
    """Say where in a step the trouble is, with the norm of its gradients and its loss."""
    unclipped = dataclasses.replace(run, clip_norm=math.inf)
    wrong = [name for name, w in run.model.named_parameters() if not bool(torch.isfinite(w).all())]
    if wrong:
        return f"the step before has made {wrong[0]} not finite", None, None
    if any(not bool(torch.isfinite(t).all()) for batch in batches for t in (*batch.inputs, batch.targets)):
        return "the rows themselves are not finite", None, None
    with undone(run), torch.no_grad(), run.autocast:
        for batch in batches:
            with layers(run.model) as seen:
                run.model(*batch.inputs)
            broken = next((one for one in seen if one.get("finite") is False), None)
            if broken is not None:
                called = f"{broken['name']} ({broken['class']})" if broken["name"] else f"the model ({broken['class']})"
                return f"{called} is the first layer whose output is not finite", None, None
    with undone(run):
        try:
            loss = gradients(unclipped, batches)
        except NonFinite:
            endless = [one["name"] for one in reversed(largest_gradients(run)) if not one["finite"]]
            if endless:
                return f"the gradient of {endless[0]} is the first that is not finite, from the loss back", None, None
            return "the output of every layer is finite, the loss of it is not", None, None
        norm = float(get_total_norm(dense(run.weights)))
        steepest = max(largest_gradients(run), key=lambda one: one["largest"] or 0.0)
    inner = [one for one in seen if one["name"]] or seen
    most = max(inner, key=lambda one: one.get("largest") or 0.0)
    called = most["name"] or "the model"
    text = f"{called} has the largest output, {most.get('largest', math.nan):.3g}"
    return f"{text}; {steepest['name']} the largest gradient, {steepest['largest']:.3g}", norm, loss


def _remedies(built: Built, start: _Point, step: int, end: float) -> Iterator[Remedy]:
    """Try what usually helps, from where the run started or was last saved; yield what does, the best first."""
    settings, steps = built.settings, max(_TRIED, step - start.step + _REMEMBERED)
    lr = settings.optim.get("lr")
    if isinstance(lr, int | float) and lr > 0:
        for name, rate in _experiments(built):
            if rate < lr and (tried := _tried(built, start, steps, end, rate / lr, math.inf)):
                yield Remedy({"experiment": name}, *tried)
                break
        for power in range(1, _WEAKEST + 1):
            if tried := _tried(built, start, steps, end, 10.0**-power, built.run.clip_norm):
                yield Remedy({"optim.lr": f"{lr / 10**power:.6g}"}, *tried)
                break
    if built.run.clip_norm > _CLIP and (tried := _tried(built, start, steps, end, 1.0, _CLIP)):
        yield Remedy({"clip_norm": show(int(_CLIP))}, *tried)


def _tried(
    built: Built, start: _Point, steps: int, end: float, factor: float, clip_norm: float
) -> tuple[float, float, int] | None:
    """Take steps with other rates; return the loss before and after and how many, None if it does not fall."""
    run, losses = built.run, []
    start.put_back(run, factor)
    trial = dataclasses.replace(
        run, clip_norm=clip_norm, steps=start.step + steps, validation=None, patience=math.inf, update=take_step
    )

    def note(row: Row) -> None:
        losses.append(row["loss"])

    try:
        fit(trial, [note], stopping=lambda: time.monotonic() > end)
    except TrainerError:
        return None
    part = 1 if run.batches.steps_per_epoch == 1 else max(len(losses) // 5, 1)  # other rows have other losses
    before, after = fmean(losses[:part]), fmean(losses[-part:])
    return (before, after, len(losses)) if len(losses) >= min(_FEWEST, steps) and after < before else None


def _experiments(built: Built) -> Iterator[tuple[str, float]]:
    """Yield the experiments that train this model as it is here, and their rates."""
    settings, choices = built.settings, built.choices
    for name, file in Catalog().options("experiment").items():
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            chosen = {k: v for line in content["defaults"] for k, v in line.items()}
            rate = content["optim"]["lr"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
            continue
        # One that says nothing of the model but its name is known by its rate alone.
        same = content.get("model") and all(
            chosen.get(f"override /{group}") in (None, choices[group]) for group in ("data", "loss", "optim")
        )
        alike = same and all(settings.model.get(key) == value for key, value in content["model"].items())
        if alike and chosen.get("override /model") == choices["model"] and isinstance(rate, int | float):
            yield name, float(rate)
