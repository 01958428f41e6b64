"""Why a run failed: the step that it failed at is taken again and looked at, what would have helped is tried out."""

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
from trainer.analysis.inspection import check, first_not_finite, largest_gradients, layers, norm_of, undone
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
from trainer.text import number, show
from trainer.training import devices
from trainer.training.build import Built
from trainer.training.instantiate import reason_of
from trainer.training.loop import Learner, NonFinite, Row, fit, gradients, take_step, training

ROWS = "failed_rows"  # in the checkpoint: the batches of the step
_SECONDS = 10.0  # for taking steps again and trying others
_REMEMBERED = 5  # steps whose gradients are told of
_TRIED = 50  # steps of a remedy that is tried, at least
_FEWEST = 5  # of these that must fit the time
_WEAKEST = 8  # the smallest rate that is tried is the rate, or 1 if that is less, times 10 to minus this
_CLIP = 1.0
_HUGE = 1e6  # a number that is told of where training runs away


class Remedy(NamedTuple):
    """A change of settings that was tried, and the loss at the beginning and at the end of so many steps."""

    words: dict[str, str]
    note: str
    before: float
    after: float
    steps: int

    def __str__(self) -> str:
        """Say what came of it."""
        change = " ".join(f"{key}={value}" for key, value in self.words.items())
        losses = f"the loss from {number(self.before)} to {number(self.after)}"
        return f"{change}{self.note} takes {losses} in {self.steps} steps"


def is_open(status: Mapping[str, Any]) -> bool:
    """Say whether a run failed whose numbers ran away, and it has not been found out why."""
    return status.get("state") == "failed" and list(status.get("diagnosis") or ()) == ["step"]


def find_out(
    rundir: RunDirectory, settings: Settings, choices: dict[str, str], command: str, failed: Built | None = None
) -> None:
    """Find out why a run failed whose numbers ran away, and say so in its status.json; of others do nothing.

    The run is built anew, goes on from its newest checkpoint as it did, and stops before the step that it failed at;
    this is kept in its directory. What it takes from memory and generators is put back.

    Args:
        rundir: Its directory.
        settings: Its configuration, secrets included.
        choices: What the groups select.
        command: What the user typed, for whoever finds the run in use.
        failed: The run as it failed, if it is in memory: what is of objects can't be built anew.
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
        except Exception as problem:  # what was found before stays
            facts["problem"] = reason_of(problem)
        finally:
            with suppress(OSError):
                rundir.write_status({**rundir.read_status(), "diagnosis": finite(facts)})


def kept(rundir: RunDirectory) -> Checkpoint | None:
    """Return the run as it was before the step that it failed at, None if nothing was kept of that.

    Raises:
        BadCheckpoint: It is damaged.
    """
    saved = manifest.steps(rundir.failure)
    return store.load(rundir.failure / manifest.name_of(saved[-1])) if saved else None


def rows(found: Checkpoint, built: Built) -> list[Batch] | None:
    """Return the batches of the step that a run failed at, None if they were not kept."""
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
    """Yield what can be seen of a run that can't be built anew; its weights are those before a step not taken."""
    run = failed.run
    if run.state.step == step - 1:
        batches = run.batches.at(step - 1)
        yield {"where": _look(run, batches)[0]}
        _keep(rundir, run, batches)


def _phases(
    rundir: RunDirectory, settings: Settings, choices: dict[str, str], step: int, status: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield what is found out, a part at a time."""
    end = time.monotonic() + _SECONDS
    built, broken = _again(rundir, settings, choices, step - 1), None
    run, start = built.run, _Point(built.run)
    history = _go_on(run, step - 1, end)
    if step > 1 and history and (broken := _not_finite(run)):
        step -= 1
        start.put_back(run, 1.0)
        history = _go_on(run, step - 1, end)
    if history is None:
        yield {"problem": f"taking the steps since the last checkpoint again takes more than {_SECONDS:.0f} s"}
        return
    batches = run.batches.at(step - 1)
    where, norm, loss = _look(run, batches)
    if broken:
        where = f"its update makes {broken} not finite; {where}"
    yield {"step": step, "where": where, "history": [*history, {"step": step, "loss": loss, "norm": norm}]}
    _keep(rundir, run, batches)
    if not broken and not _fails(run):
        writing.remove_tree(rundir.failure)
        yield {"where": "taken again, the step does not fail: something in it is not drawn from the seed", "helps": []}
        return
    start.put_back(run, 1.0)
    if wrong := check(built, run.batches.at(start.step)).get("wrong"):
        blamed = f"the gradient of {', '.join(wrong)} is not that of the loss: look at your backward pass"
        yield {"where": f"{blamed}; {where}", "helps": []}
        return
    is_endless = (status.get("metrics", {}).get("loss") or 0.0) < 0
    remedies = [] if is_endless else list(_remedies(built, start, step, end))
    if not remedies and not is_endless and start.step > 0:  # it may have been too late there
        del run, start
        built = _again(rundir, settings, choices, 0)
        start = _Point(built.run)
        remedies = list(_remedies(built, start, step, end))
    yield {"from_step": start.step, "helps": [{"words": one.words, "text": str(one)} for one in remedies]}


def _again(rundir: RunDirectory, settings: Settings, choices: dict[str, str], most: int) -> Built:
    """Build a run anew, set to its newest good checkpoint of at most a step, or to its beginning."""
    built = prepare.rebuild(rundir, settings, choices)
    found, _ = store.newest(rundir.checkpoints)
    if found is not None and found.step <= most:
        put_back(built, found, lambda remark: None)
    elif settings.init_from is not None:
        start_from(built.run.model, settings.init_from)
    return built


class _Point:
    """Where a run stands, to be set back to again and again."""

    def __init__(self, run: Learner) -> None:
        self.step, self._random = run.state.step, randomness.state_dict()
        self._parts = [copy.deepcopy(part.state_dict()) for part in _parts(run)]
        self._settings = [{k: v for k, v in group.items() if k != "params"} for group in run.optimizer.param_groups]

    def put_back(self, run: Learner, factor: float) -> None:
        """Set a run back, with its learning rates multiplied."""
        randomness.load_state_dict(self._random)
        for part, state in zip(_parts(run), self._parts, strict=True):
            part.load_state_dict(copy.deepcopy(state))
        for group, settings in zip(run.optimizer.param_groups, self._settings, strict=True):
            group.update(settings)
            group.update({key: settings[key] * factor for key in ("lr", "initial_lr") if key in settings})


def _parts(run: Learner) -> tuple[Any, ...]:
    return run.model, run.loss, run.optimizer, run.schedule, run.state


def _go_on(run: Learner, until: int, end: float) -> list[dict[str, Any]] | None:
    """Train as the run did; return loss and norm of the gradients of the last steps, None if that takes too long."""
    history: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED - 1)
    told: list[Row] = []
    loop = training(run, [told.append], lambda due: None, lambda: time.monotonic() > end)
    if run.state.step >= until:
        return []
    if next(loop, None) is None:
        return None
    while run.state.step < until:
        told.clear()
        norm = _norm(run) if until - run.state.step < _REMEMBERED else None
        try:
            loop.send(take_step(run))
        except StopIteration:
            return None
        history.append({"step": run.state.step, "loss": told[0]["loss"], "norm": norm})
    return list(history)


def _norm(run: Learner) -> float | None:
    """Return the norm of the gradients of the next step, before they are clipped."""
    with undone(run):
        try:
            gradients(dataclasses.replace(run, clip_norm=math.inf), run.batches.at(run.state.step))
        except NonFinite:
            return None
        return norm_of(run)


def _not_finite(run: Learner) -> str | None:
    """Return the first weight or buffer that holds a number that is not finite."""
    held = [(name, t) for name, t in run.model.state_dict().items() if isinstance(t, Tensor)]
    return next((name for name, t in held if not bool(torch.isfinite(t).all())), None)


def _keep(rundir: RunDirectory, run: Learner, batches: Sequence[Batch]) -> None:
    """Write weights, optimizer, generators and rows of a step into the run's directory, as a checkpoint."""
    rundir.require_own_files()
    writing.remove_tree(rundir.failure)
    held: dict[str, Any] = dict(snapshot(dataclasses.replace(run, random=randomness.state_dict), 0))
    held[ROWS] = [{**batch._asdict(), "inputs": list(batch.inputs)} for batch in batches]
    packed = store.pack(run.state.step, run.model.state_dict(), held, run=vouching.Kept(rundir).sums)
    writing.make_folders(rundir.failure)
    store.write(rundir.failure, packed)


def _fails(run: Learner) -> bool:
    """Take the next step; say whether its numbers run away, as they did."""
    taken = take_step(run)
    if isinstance(taken, NonFinite):
        return True
    first = run.state.first_loss if run.state.first_loss is not None else taken[0]
    return abs(taken[0]) > run.max_divergence * max(1.0, abs(first))


def _look(run: Learner, batches: Sequence[Batch]) -> tuple[str, float | None, float | None]:
    """Say where in a step the trouble is, with the norm of its gradients and its loss."""
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
            loss = gradients(dataclasses.replace(run, clip_norm=math.inf), batches)
        except NonFinite:
            first = first_not_finite(seen, largest_gradients(run))
            return f"{first or 'the output of every layer is finite, the loss of it is not'}{outlier}", None, None
        norm = norm_of(run)
        steepest = max(largest_gradients(run), key=lambda one: one["largest"] or 0.0)
    inner = [one for one in seen if one["name"]] or seen
    most = max(inner, key=lambda one: one.get("largest") or 0.0)
    text = f"{most['name'] or 'the model'} has the largest output, {most.get('largest', math.nan):.3g}"
    return f"{text}; {steepest['name']} the largest gradient, {steepest['largest']:.3g}{outlier}", norm, loss


def _outlier(batches: Sequence[Batch]) -> str:
    """Name the largest number among inputs and targets if it is beyond all measure, and say where it stands."""
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


def _remedies(built: Built, start: _Point, step: int, end: float) -> Iterator[Remedy]:
    """Try what usually helps, from where the run started or was last saved; yield what does, the best first."""
    settings, steps = built.settings, max(_TRIED, step - start.step + _REMEMBERED)
    lr = settings.optim.get("lr")
    if isinstance(lr, int | float) and lr > 0:
        for name, rate in _experiments(built):
            if rate < lr and (tried := _tried(built, start, steps, end, rate / lr, built.run.clip_norm)):
                yield Remedy({"optim.lr": f"{rate:g}"}, f", the rate of experiment={name},", *tried)
                break
        for power in range(1, _WEAKEST + max(math.ceil(math.log10(lr)), 0) + 1):
            if tried := _tried(built, start, steps, end, 10.0**-power, built.run.clip_norm):
                yield Remedy({"optim.lr": f"{lr / 10**power:.6g}"}, "", *tried)
                break
    if built.run.clip_norm > _CLIP and (tried := _tried(built, start, steps, end, 1.0, _CLIP)):
        yield Remedy({"clip_norm": show(int(_CLIP))}, "", *tried)


def _tried(
    built: Built, start: _Point, steps: int, end: float, factor: float, clip_norm: float
) -> tuple[float, float, int] | None:
    """Take steps with other rates; return the loss before and after and how many, None if it does not fall."""
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
    part = 1 if run.batches.steps_per_epoch == 1 else max(len(losses) // 5, 1)  # other rows have other losses
    before, after = fmean(losses[:part]), fmean(losses[-part:])
    return (before, after, len(losses)) if after < before else None


def _experiments(built: Built) -> Iterator[tuple[str, float]]:
    """Yield the experiments that are about this model as it is here, and their rates."""
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
