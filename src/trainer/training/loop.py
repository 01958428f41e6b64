"""The training loop: every model, loss, optimizer, schedule and device goes through `fit`."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from operator import mul
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from trainer import randomness
from trainer.data import Batch, Batches
from trainer.errors import RunFailed
from trainer.schedules import Schedule
from trainer.training import fused
from trainer.training.state import Counters
from trainer.training.torch_private import has_non_finite

Row = dict[str, Any]
Reader = Callable[[Row], None]
T = TypeVar("T")


class NonFinite(RunFailed):
    """The loss or a gradient is infinite or not a number; the weights have not been touched."""


class Diverged(RunFailed):
    """The loss has left the neighbourhood of the first one for good."""


Taken = list[float] | NonFinite  # the losses of finished steps, mostly of one, or why the next one could not be taken


@dataclass
class Learner:
    """The parts of a run, built and ready for the loop."""

    model: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    batches: Batches
    validation: Batches | None
    autocast: AbstractContextManager[object]
    steps: int
    eval_every: int | None = None
    save_every: int | None = None
    clip_norm: float = math.inf
    monitor: str | None = None
    mode: str = "min"
    patience: float = math.inf
    max_skips: int = 0
    max_divergence: float = 1e6
    seed: int = 0
    classes: int = 0
    state: Counters = field(default_factory=Counters)
    update: Callable[[Learner], Taken] = lambda run: take_step(run)
    random: Callable[[], dict[str, Any]] = randomness.state_dict  # where the generators stand, for a checkpoint

    @cached_property
    def weights(self) -> list[Tensor]:
        """What is trained."""
        return [w for w in self.model.parameters() if w.requires_grad]

    @property
    def epoch(self) -> int:
        """Epoch, counted from 0, that the last finished step belongs to."""
        return max(self.state.step - 1, 0) // self.batches.steps_per_epoch


def fit(
    run: Learner,
    readers: Iterable[Reader] = (),
    save: Callable[[bool], None] = lambda due: None,
    stopping: Callable[[], bool] = lambda: False,
) -> str:
    """Train from where the run stands until its end.

    Args:
        run: The parts; their state changes.
        readers: Called with a row after every step and every evaluation.
        save: Called after every step and at the end, with whether a checkpoint is due.
        stopping: Says whether someone asked to stop.

    Returns:
        Why it ended: complete, patience or stopped.

    Raises:
        RunFailed: The numbers are not finite or run away.
    """
    return driven(training(run, readers, save, stopping))


def driven(loop: Generator[Learner, Taken | None, T]) -> T:
    """Take the steps that a loop asks for, and return what it returns."""
    try:
        run = next(loop)
        while True:
            try:
                taken = run.update(run)
            except BaseException as error:
                loop.throw(error)
                raise
            run = loop.send(taken)
    except StopIteration as end:
        value: T = end.value
        return value


def training(
    run: Learner, readers: Iterable[Reader], save: Callable[[bool], None], stopping: Callable[[], bool]
) -> Generator[Learner, Taken | None, str]:
    """Train as `fit` does; whoever drives this loop takes the next step when it yields, and sends what came of it."""
    schedule, state = run.schedule, run.state
    run.model.train()
    while state.step < run.steps and state.stale < run.patience and not stopping():
        taken = yield run
        assert taken is not None
        if isinstance(taken, NonFinite):
            if state.skipped_in_a_row >= run.max_skips:
                raise taken
            taken = [math.nan]
        for loss in taken:
            lr = schedule.lr(run.optimizer, state.step)
            state.note_loss(loss)
            tell(readers, {"step": state.step, "epoch": run.epoch, "loss": loss, "lr": lr})
            require_bounded(run)

        if run.validation is not None and due(state.step, run.eval_every):
            metrics = evaluate(run, run.validation)
            state.note_evaluation(metrics, run.monitor, run.mode)
            schedule.observe(monitored(run, metrics))
            tell(readers, {"step": state.step, "epoch": run.epoch, **metrics})
        save(due(state.step, run.save_every))
    save(True)
    return "complete" if state.step >= run.steps else "stopped" if stopping() else "patience"


def take_step(run: Learner) -> Taken:
    """Take the next step and return its loss, or why the weights are as they were."""
    batches = run.batches.at(run.state.step)
    run.schedule.apply(run.optimizer, run.state.step)
    try:
        return [fused.step(run.optimizer, partial(gradients, run, batches))]
    except NonFinite as problem:
        return problem


def gradients(run: Learner, batches: Sequence[Batch]) -> float:
    """Compute the gradients of a step's batches, clipped, and return the loss.

    Args:
        run: The parts.
        batches: The rows of the step; their shares weigh losses and gradients.

    Raises:
        NonFinite: The loss or a gradient is not finite.
    """
    for w in run.weights:
        w.grad = None
    losses = []
    for batch in batches:
        with run.autocast:
            loss = run.loss(run.model(*batch.inputs), batch.targets)
        loss.backward(None if batch.share == 1 else loss.new_full((), batch.share))
        losses.append(loss.detach())
    grads = dense(run.weights)
    values = [loss.item() for loss in losses]
    if not all(map(math.isfinite, values)) or has_non_finite(grads):
        raise non_finite(run, batches, values)
    if run.clip_norm < math.inf:
        norm = get_total_norm(grads)
        if not math.isfinite(norm):
            raise non_finite(run, batches, values)
        clip_grads_with_norm_(run.weights, run.clip_norm, norm)
    return math.fsum(map(mul, [batch.share for batch in batches], values))


def dense(weights: Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients of weights as plain tensors: the values of sparse ones, the parts of complex ones."""
    grads = [grad for w in weights if (grad := w.grad) is not None]
    if any(grad.is_sparse or grad.is_complex() for grad in grads):
        grads = [grad.coalesce().values() if grad.is_sparse else grad for grad in grads]
        grads = [torch.view_as_real(grad) if grad.is_complex() else grad for grad in grads]
    return grads


def due(step: int, every: int | None) -> bool:
    """Say whether something that happens every so many steps happens after this one."""
    return every is not None and step % every == 0


def tell(readers: Iterable[Reader], row: Row) -> None:
    """Hand a row to everyone who reads along."""
    for reader in readers:
        reader(row)


@torch.no_grad()
def evaluate(
    run: Learner, batches: Batches, look: Callable[[Tensor, Tensor], None] = lambda prediction, targets: None
) -> dict[str, float]:
    """Return the loss, and for classes the accuracy, over held-out rows; no generator moves on.

    Args:
        run: The parts; the model is back in training mode afterwards.
        batches: The rows.
        look: Called with the predictions and the targets of each batch.
    """
    loss, correct = torch.zeros((), dtype=torch.float64), 0
    run.model.eval()
    with randomness.isolated(randomness.derived(run.seed, randomness.EVALUATION, run.state.step)):
        for batch in batches.in_order():
            with run.autocast:
                prediction = run.model(*batch.inputs)
                loss += batch.share * run.loss(prediction, batch.targets).cpu()
            look(prediction, batch.targets)
            if run.classes:
                labels = batch.targets if batch.targets.ndim == 1 else batch.targets.argmax(1)
                correct += int((prediction.argmax(1) == labels).sum())
    run.model.train()
    metrics = {"validation_loss": float(loss)}
    if run.classes:
        metrics["validation_accuracy"] = correct / batches.rows
    return metrics


def monitored(run: Learner, metrics: dict[str, float]) -> float:
    """Return the monitored metric with a sign that makes less better."""
    value = metrics[run.monitor or "validation_loss"]
    return value if run.mode == "min" else -value


def non_finite(run: Learner, batches: Sequence[Batch], losses: Sequence[float]) -> NonFinite:
    """Return the error that names step, epoch and rows where losses or gradients are not finite."""
    wrong = [b for b, loss in zip(batches, losses, strict=True) if not math.isfinite(loss)]
    what = (
        f"the loss is {next(loss for loss in losses if not math.isfinite(loss))}"
        if wrong
        else "the gradients are not finite"
    )
    step = run.state.step
    where = f"step {step + 1}, epoch {step // run.batches.steps_per_epoch}, {row_numbers(wrong or batches)}"
    first = ". Nothing has been trained yet: look at the data" if step == 0 else ""
    return NonFinite(f"{what} at {where}; the weights are as before that step{first}")


def require_bounded(run: Learner) -> None:
    """Raise Diverged when the loss has left the neighbourhood of the first one for good."""
    loss, first = run.state.loss, run.state.first_loss
    if loss is None or first is None or not abs(loss) > run.max_divergence * max(1.0, abs(first)):
        return
    direction = "falls without bound: this loss has no minimum" if loss < 0 else "grows without bound"
    raise Diverged(
        f"the loss {direction}. It is {loss:.4g} at step {run.state.step}, after {first:.4g} at the first"
        f" (max_divergence={run.max_divergence:g})"
    )


def row_numbers(batches: Sequence[Batch]) -> str:
    """Name the first of the training rows that batches are made of."""
    if any(batch.rows is None for batch in batches):
        return "all rows"
    rows: list[int] = [row for batch in batches if isinstance(batch.rows, Tensor) for row in batch.rows.tolist()]
    shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    return f"rows {shown}"
