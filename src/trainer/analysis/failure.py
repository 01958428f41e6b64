"""Diagnoses failed runs: repeats the failing step, locates the problem, and tries fixes."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from trainer import randomness
from trainer.analysis.inspection import check, first_not_finite, largest_gradients, layers, unclipped, undone
from trainer.analysis.weights import norm_of
from trainer.checkpoints import manifest, store
from trainer.checkpoints.store import Checkpoint
from trainer.config.catalog import Catalog
from trainer.config.settings import Settings
from trainer.data import Batch
from trainer.errors import TrainerError
from trainer.files import writing
from trainer.files.plain_json import finite
from trainer.runs import vouching
from trainer.runs.directory import RunDirectory
from trainer.session import prepare
from trainer.session.restore import start_from
from trainer.session.run_state import put_back, snapshot
from trainer.text import number, show, typed
from trainer.training import devices
from trainer.training.build import Built
from trainer.training.instantiate import reason_of
from trainer.training.loop import Learner, NonFinite, Row, fit, gradients, take_step, training

ROWS = "failed_rows"  # in the checkpoint: the batches of the step
_SECONDS = 10.0  # the time for repeating steps, and for trying fixes
_REMEMBERED = 5  # steps whose gradient norms are reported
_TRIED = 50  # a trial has at least this many steps
_FEWEST = 5  # a trial counts if it finishes this many steps in time
_WEAKEST = 8  # the smallest rate that is tried is min(rate, 1) / 10**_WEAKEST
_CLIP = 1.0
_HUGE = 1e6  # inputs and targets beyond this are reported as outliers


class Fix(NamedTuple):
    """A change of settings that worked in a trial, with the loss before and after so many steps."""

    words: dict[str, str]
    note: str
    before: float
    after: float
    steps: int

    def __str__(self) -> str:
        """Return the change and its effect in words."""
        losses = f"the loss falls from {number(self.before)} to {number(self.after)}"
        return f"{typed(self.words)}{self.note}: {losses} in a trial of {self.steps} steps"


def is_open(status: Mapping[str, Any]) -> bool:
    """Return whether a run diverged and has not been diagnosed yet."""
    return status.get("state") == "failed" and list(status.get("diagnosis") or ()) == ["step"]


def find_out(
    rundir: RunDirectory, settings: Settings, choices: dict[str, str], command: str, failed: Built | None = None
) -> None:
    """Diagnose a run that diverged, and save the diagnosis in its status.json; do nothing for other runs.

    The run is rebuilt and trained from its newest checkpoint to the step before the failing one, which is saved in its
    directory. Global state, such as random generators, is restored at the end.

    Args:
        rundir: The run's directory.
        settings: The run's configuration, including secrets.
        choices: The selected options, by group.
        command: The typed command, shown to others while the run is locked.
        failed: The failed run, if it is in memory; needed for a run made from objects, which can't be rebuilt.
    """
    status = rundir.read_status()
    if not is_open(status):
        return
    facts = dict(status["diagnosis"])
    with suppress(TrainerError), rundir.lock(command), devices.put_back(), randomness.isolated(settings.seed):
        phases = _of_memory(rundir, failed, facts["step"]) if failed and failed.objects else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for found in phases or _phases(rundir, settings, choices, facts["step"], status):
                    facts.update(found)
        except Exception as problem:  # earlier facts are kept
            facts["problem"] = reason_of(problem)
        finally:
            with suppress(OSError):
                rundir.write_status({**rundir.read_status(), "diagnosis": finite(facts)})


def kept(rundir: RunDirectory) -> Checkpoint | None:
    """Return the state saved before the failing step, None if there is none.

    Raises:
        BadCheckpoint: It is damaged.
    """
    saved = manifest.steps(rundir.failure)
    return store.load(rundir.failure / manifest.name_of(saved[-1])) if saved else None


def rows(found: Checkpoint, built: Built) -> list[Batch] | None:
    """Return the saved batches of the failing step, None if there are none."""
    try:
        return [
            Batch(
                tuple(tensor.to(built.device) for tensor in one["inputs"]),
                one["targets"].to(built.device),
                float(one["share"]),
                one["rows"],
            )
            for one in found.training[ROWS]
        ]
    except (TypeError, KeyError, AttributeError, ValueError):
        return None


def _of_memory(rundir: RunDirectory, failed: Built, step: int) -> Iterator[dict[str, Any]]:
    """Yield the facts about a run that can't be rebuilt; its weights are still those before the failing step."""
    run = failed.run
    if run.state.step == step - 1:
        batches = run.batches.at(step - 1)
        yield {"where": _look(run, batches)[0]}
        _keep(rundir, run, batches)


def _phases(
    rundir: RunDirectory, settings: Settings, choices: dict[str, str], step: int, status: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the facts of the diagnosis, one part at a time."""
    end = time.monotonic() + _SECONDS
    built, broken = _rebuilt(rundir, settings, choices, step - 1), None
    run, start = built.run, _Point(built.run)
    history = _train(run, step - 1, end)
    if step > 1 and history and (broken := _not_finite(run)):
        step -= 1
        start.put_back(run, 1.0)
        history = _train(run, step - 1, end)
    if history is None:
        yield {"problem": f"repeating the steps since the last checkpoint takes more than {_SECONDS:.0f} s"}
        return
    batches = run.batches.at(step - 1)
    where, norm, loss = _look(run, batches)
    if broken:
        where = f"the update makes {broken} not finite; {where}"
    yield {"step": step, "where": where, "history": [*history, {"step": step, "loss": loss, "norm": norm}]}
    _keep(rundir, run, batches)
    if not broken and not _fails(run):
        writing.remove_tree(rundir.failure)
        reason = "the step does not fail when repeated: the run depends on randomness outside the seed"
        yield {"where": reason, "helps": []}
        return
    start.put_back(run, 1.0)
    if wrong := check(built, run.batches.at(start.step)).get("wrong"):
        reason = f"the gradient of {', '.join(wrong)} is not the gradient of the loss: check your backward pass"
        yield {"where": f"{reason}; {where}", "helps": []}
        return
    is_unbounded = (status.get("metrics", {}).get("loss") or 0.0) < 0
    fixes = [] if is_unbounded else list(_fixes(built, start, step, end))
    if not fixes and not is_unbounded and start.step > 0:  # a fix at this checkpoint may come too late
        del run, start
        built = _rebuilt(rundir, settings, choices, 0)
        start = _Point(built.run)
        fixes = list(_fixes(built, start, step, end))
    yield {"from_step": start.step, "helps": [{"words": one.words, "text": str(one)} for one in fixes]}


def _rebuilt(rundir: RunDirectory, settings: Settings, choices: dict[str, str], most: int) -> Built:
    """Rebuild a run and set it to its newest good checkpoint up to a step, or to its start."""
    built = prepare.rebuild(rundir, settings, choices)
    found, _ = store.newest(rundir.checkpoints)
    if found is not None and found.step <= most:
        put_back(built, found, lambda remark: None)
    elif settings.init_from is not None:
        start_from(built.run.model, settings.init_from)
    return built


class _Point:
    """A copy of a run's state, to restore it any number of times."""

    def __init__(self, run: Learner) -> None:
        self.step, self._random = run.state.step, randomness.state_dict()
        self._parts = [copy.deepcopy(part.state_dict()) for part in _parts(run)]
        self._settings = [{k: v for k, v in group.items() if k != "params"} for group in run.optimizer.param_groups]

    def put_back(self, run: Learner, factor: float) -> None:
        """Restore the state, with the learning rates multiplied by a factor."""
        randomness.load_state_dict(self._random)
        for part, state in zip(_parts(run), self._parts, strict=True):
            part.load_state_dict(copy.deepcopy(state))
        for group, settings in zip(run.optimizer.param_groups, self._settings, strict=True):
            group.update(settings)
            group.update({key: settings[key] * factor for key in ("lr", "initial_lr") if key in settings})


def _parts(run: Learner) -> tuple[Any, ...]:
    return run.model, run.loss, run.optimizer, run.schedule, run.state


def _train(run: Learner, until: int, end: float) -> list[dict[str, Any]] | None:
    """Train to a step; return the losses and gradient norms of the last steps, None if it takes too long."""
    history: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED - 1)
    records: list[Row] = []
    loop = training(run, [records.append], lambda due: None, lambda: time.monotonic() > end)
    if run.state.step >= until:
        return []
    if next(loop, None) is None:
        return None
    while run.state.step < until:
        records.clear()
        norm = _norm(run) if until - run.state.step < _REMEMBERED else None
        try:
            loop.send(take_step(run))
        except StopIteration:
            return None
        history.append({"step": run.state.step, "loss": records[0]["loss"], "norm": norm})
    return list(history)


def _norm(run: Learner) -> float | None:
    """Return the norm of the gradients of the next step before clipping, None if they are not finite."""
    with undone(run):
        try:
            gradients(unclipped(run), run.batches.at(run.state.step))
        except NonFinite:
            return None
        return norm_of(run)


def _not_finite(run: Learner) -> str | None:
    """Return the name of the first weight or buffer that is not finite."""
    held = [(name, t) for name, t in run.model.state_dict().items() if isinstance(t, Tensor)]
    return next((name for name, t in held if not bool(torch.isfinite(t).all())), None)


def _keep(rundir: RunDirectory, run: Learner, batches: Sequence[Batch]) -> None:
    """Save the run and the batches of its next step in the run's directory, as a checkpoint."""
    rundir.require_own_files()
    writing.remove_tree(rundir.failure)
    held: dict[str, Any] = dict(snapshot(dataclasses.replace(run, random=randomness.state_dict), 0))
    held[ROWS] = [{**batch._asdict(), "inputs": list(batch.inputs)} for batch in batches]
    packed = store.pack(run.state.step, run.model.state_dict(), held, run=vouching.Kept(rundir).sums)
    writing.make_folders(rundir.failure)
    store.write(rundir.failure, packed)


def _fails(run: Learner) -> bool:
    """Take the next step and return whether it diverges."""
    taken = take_step(run)
    if isinstance(taken, NonFinite):
        return True
    first = run.state.first_loss if run.state.first_loss is not None else taken[0]
    return abs(taken[0]) > run.max_divergence * max(1.0, abs(first))


def _look(run: Learner, batches: Sequence[Batch]) -> tuple[str, float | None, float | None]:
    """Return where in a step the problem is, the norm of its gradients and its loss."""
    run.model.train()
    outlier = _outlier(batches)
    seen: list[dict[str, Any]] = []
    with undone(run), torch.no_grad(), run.autocast:
        for batch in batches:
            with layers(run.model) as called:
                run.model(*batch.inputs)
            seen += called
    with undone(run):
        try:
            loss = gradients(unclipped(run), batches)
        except NonFinite:
            first = first_not_finite(seen, largest_gradients(run))
            return f"{first or 'every layer output is finite, but the loss is not'}{outlier}", None, None
        norm = norm_of(run)
        steepest = max(largest_gradients(run), key=lambda one: one["largest"] or 0.0)
    inner = [one for one in seen if one["name"]] or seen
    most = max(inner, key=lambda one: one.get("largest") or 0.0)
    text = f"{most['name'] or 'the model'} has the largest output, {most.get('largest', math.nan):.3g}"
    return f"{text}; {steepest['name']} the largest gradient, {steepest['largest']:.3g}{outlier}", norm, loss


def _outlier(batches: Sequence[Batch]) -> str:
    """Return in words the largest input or target and its place if it is huge, else ""."""
    for batch in batches:
        for name, tensor in (*(("input", x) for x in batch.inputs), ("target", batch.targets)):
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            sizes = tensor.detach().abs().double().reshape(len(tensor) if tensor.ndim else 1, -1)
            sizes = torch.where(torch.isfinite(sizes), sizes, torch.inf)
            largest = float(sizes.max())
            if largest <= _HUGE:
                continue
            row, column = divmod(int(sizes.argmax()), sizes.shape[1])
            row = row if batch.rows is None else int(batch.rows[row])
            return f"; {name} {column + 1} of training row {row} is {largest:.3g}"
    return ""


def _fixes(built: Built, start: _Point, step: int, end: float) -> Iterator[Fix]:
    """Try the usual fixes from a point of the run; yield those that work, the best first."""
    settings, steps = built.settings, max(_TRIED, step - start.step + _REMEMBERED)
    lr = settings.optim.get("lr")
    if isinstance(lr, int | float) and lr > 0:
        for name, rate in _experiments(built):
            if rate < lr and (trial := _tried(built, start, steps, end, rate / lr, built.run.clip_norm)):
                yield Fix({"optim.lr": f"{rate:g}"}, f" (as in experiment={name})", *trial)
                break
        for power in range(1, _WEAKEST + max(math.ceil(math.log10(lr)), 0) + 1):
            if trial := _tried(built, start, steps, end, 10.0**-power, built.run.clip_norm):
                yield Fix({"optim.lr": f"{lr / 10**power:.6g}"}, "", *trial)
                break
    if built.run.clip_norm > _CLIP and (trial := _tried(built, start, steps, end, 1.0, _CLIP)):
        yield Fix({"clip_norm": show(int(_CLIP))}, "", *trial)


def _tried(
    built: Built, start: _Point, steps: int, end: float, factor: float, clip_norm: float
) -> tuple[float, float, int] | None:
    """Train with other rates; return the loss before and after and the steps, None if the loss does not fall."""
    run = built.run
    losses: list[float] = []
    start.put_back(run, factor)
    trial = dataclasses.replace(
        run, clip_norm=clip_norm, steps=start.step + steps, validation=None, patience=math.inf, update=take_step
    )
    try:
        fit(trial, [lambda row: losses.append(row["loss"])], stopping=lambda: time.monotonic() > end)
    except TrainerError:
        return None
    if len(losses) < min(_FEWEST, steps):
        return None
    part = 1 if run.batches.steps_per_epoch == 1 else max(len(losses) // 5, 1)  # averages over different batches
    before, after = fmean(losses[:part]), fmean(losses[-part:])
    return (before, after, len(losses)) if after < before else None


def _experiments(built: Built) -> Iterator[tuple[str, float]]:
    """Yield the experiments with this model and its settings, and their learning rates."""
    settings, choices = built.settings, built.choices
    for name, file in Catalog().options("experiment").items():
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            chosen = {k: v for line in content["defaults"] for k, v in line.items()}
            rate = content["optim"]["lr"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
            continue
        # If an experiment has no model settings, its rate may be for another model.
        same = content.get("model") and all(
            chosen.get(f"override /{group}") in (None, choices[group]) for group in ("data", "loss", "optim")
        )
        alike = same and all(settings.model.get(key) == value for key, value in content["model"].items())
        if alike and chosen.get("override /model") == choices["model"] and isinstance(rate, int | float):
            yield name, float(rate)
