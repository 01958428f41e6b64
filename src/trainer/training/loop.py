"""The training loop: `fit` trains every combination of model, loss, optimizer, schedule and device."""

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
    """The loss or a gradient is infinite or NaN; the weights are unchanged."""


class Diverged(RunFailed):
    """The loss exceeds its limit, a multiple of the first loss."""


Taken = list[float] | NonFinite  # losses of the finished steps, usually one, or why the next step failed


@dataclass
class Learner:
    """The state of the loop: model, optimizer, batches and the other components of a run.

    Args:
        model: The model, on its device.
        loss: The loss of predictions and targets.
        optimizer: The optimizer of the model's weights.
        schedule: The schedule of the learning rate.
        batches: The batches of the training rows.
        validation: The batches of the held-out rows; None without them.
        autocast: Context of every forward pass.
        steps: Number of steps of the run.
        eval_every: Steps between evaluations; None never evaluates.
        save_every: Steps between checkpoints; None saves only at the end.
        clip_norm: Largest L2 norm of all gradients together; larger gradients are scaled down.
        monitor: Name of the monitored metric; None without held-out rows.
        mode: Whether min or max of the monitored metric is better.
        patience: Evaluations without improvement that end the run.
        max_skips: Consecutive steps with non-finite numbers to skip before the run fails.
        max_divergence: Largest |loss|, as a multiple of the first loss or of 1.
        seed: Seed of the run.
        classes: Number of classes; 0 for numeric targets.
        state: The counters.
        at_end: The evaluation after the last step where none was due. It competes for best only, and no checkpoint
            holds it: a longer run goes on as if it had not been.
        update: Takes the next step or steps.
        random: Returns the states of the random generators, for a checkpoint.
    """

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
    at_end: dict[str, float] | None = None
    update: Callable[[Learner], Taken] = lambda run: take_step(run)
    random: Callable[[], dict[str, Any]] = randomness.state_dict

    @cached_property
    def weights(self) -> list[Tensor]:
        """The trainable parameters."""
        return [w for w in self.model.parameters() if w.requires_grad]

    @property
    def best(self) -> tuple[int | None, float | None]:
        """Step and monitored metric of the best evaluation, including the one at the end."""
        state = self.state
        if self.at_end is not None and self.monitor is not None:
            value = self.at_end[self.monitor]
            if state.is_better(value, self.mode):
                return state.step, value
        return state.best_step, state.best_value

    @property
    def epoch(self) -> int:
        """Epoch of the last finished step, counted from 0."""
        return max(self.state.step - 1, 0) // self.batches.steps_per_epoch


def fit(
    run: Learner,
    readers: Iterable[Reader] = (),
    save: Callable[[bool], None] = lambda due: None,
    stopping: Callable[[], bool] = lambda: False,
) -> str:
    """Train from the current step to the end of the run.

    Args:
        run: The run, modified in place.
        readers: Called with a row after every step and every evaluation.
        save: Called after every step and at the end, with whether a checkpoint is due.
        stopping: Returns whether the run was asked to stop.

    Returns:
        Why the run ended: complete, patience or stopped.

    Raises:
        RunFailed: The loss or a gradient is not finite, or the loss diverges.
    """
    return driven(training(run, readers, save, stopping))


def driven(loop: Generator[Learner, Taken | None, T]) -> T:
    """Run a loop to its end, taking each step that it requests, and return its result."""
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
    """Train as `fit` does, but let the caller take the steps: yield the run, receive the outcome of its next step."""
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
    """Take the next step and return its loss, or the error that left the weights unchanged."""
    batches = run.batches.at(run.state.step)
    run.schedule.apply(run.optimizer, run.state.step)
    try:
        return [fused.step(run.optimizer, partial(gradients, run, batches))]
    except NonFinite as problem:
        return problem


def gradients(run: Learner, batches: Sequence[Batch]) -> float:
    """Compute the clipped gradients of a step and return its loss.

    Args:
        run: The run.
        batches: The batches of the step; their shares weight losses and gradients.

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
    return total(batches, values)


def total(batches: Sequence[Batch], losses: Sequence[float]) -> float:
    """Return the loss of a step: the sum of the losses of its batches, weighted by their shares."""
    return math.fsum(map(mul, [batch.share for batch in batches], losses))


def dense(weights: Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients as dense real tensors: the values of sparse gradients, complex numbers as pairs."""
    grads = [grad for w in weights if (grad := w.grad) is not None]
    if any(grad.is_sparse or grad.is_complex() for grad in grads):
        grads = [grad.coalesce().values() if grad.is_sparse else grad for grad in grads]
        grads = [torch.view_as_real(grad) if grad.is_complex() else grad for grad in grads]
    return grads


def due(step: int, every: int | None) -> bool:
    """Return whether an event that occurs every `every` steps is due after this step; None is never."""
    return every is not None and step % every == 0


def tell(readers: Iterable[Reader], row: Row) -> None:
    """Pass a row to every reader."""
    for reader in readers:
        reader(row)


@torch.no_grad()
def evaluate(
    run: Learner, batches: Batches, look: Callable[[Tensor, Tensor], None] = lambda prediction, targets: None
) -> dict[str, float]:
    """Return the loss, and for classes the accuracy, over held-out rows; random generators are left unchanged.

    Args:
        run: The run; its model is in training mode afterwards.
        batches: The rows to evaluate.
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
    """Return the monitored metric with a sign that makes smaller better."""
    value = metrics[run.monitor or "validation_loss"]
    return value if run.mode == "min" else -value


def non_finite(run: Learner, batches: Sequence[Batch], losses: Sequence[float]) -> NonFinite:
    """Return an error that names the step, epoch and rows with a non-finite loss or gradient.

    Args:
        run: The run, before the step.
        batches: The batches of the step.
        losses: The losses of these batches.
    """
    wrong = [b for b, loss in zip(batches, losses, strict=True) if not math.isfinite(loss)]
    what = (
        f"the loss is {next(loss for loss in losses if not math.isfinite(loss))}"
        if wrong
        else "the gradients are not finite"
    )
    step = run.state.step
    where = f"step {step + 1}, epoch {step // run.batches.steps_per_epoch}, {row_numbers(wrong or batches)}"
    first = ". Nothing has been trained yet: check the data" if step == 0 else ""
    return NonFinite(f"{what} at {where}; the weights are those before that step{first}")


def require_bounded(run: Learner) -> None:
    """Raise Diverged if |loss| exceeds max_divergence times the first loss, or times 1 if that is larger."""
    loss, first = run.state.loss, run.state.first_loss
    if loss is None or first is None or not abs(loss) > run.max_divergence * max(1.0, abs(first)):
        return
    direction = "falls without bound: this loss has no minimum" if loss < 0 else "grows without bound"
    raise Diverged(
        f"the loss {direction}. It is {loss:.4g} at step {run.state.step}, after {first:.4g} at the first step"
        f" (max_divergence={run.max_divergence:g})"
    )


def row_numbers(batches: Sequence[Batch]) -> str:
    """Return the numbers of the first training rows of some batches, as text."""
    if any(batch.rows is None for batch in batches):
        return "all rows"
    rows: list[int] = [row for batch in batches if isinstance(batch.rows, Tensor) for row in batch.rows.tolist()]
    shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    return f"rows {shown}"
