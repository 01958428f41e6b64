"""Trains runs that differ only in numbers together: one forward pass, gradient and update is a step of all of them.

Each run keeps its own loop, with its rows, evaluations, checkpoints and end. Only the steps, which `take_step` would
take for one run after another, are taken together by a `Stack`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextvars import Context, copy_context
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from trainer import randomness
from trainer.data import Batch
from trainer.data.batches import Tensors
from trainer.training.loop import Learner, NonFinite, Taken, non_finite, total
from trainer.training.stacked.updates import UPDATES, clip, numbers_of
from trainer.training.torch_private import has_non_finite

Loop = Generator[Learner, Taken | None, None]

_TORCH_OWN = frozenset(vars(nn.Module())) - {"training"}  # attributes that torch gives every module


class Stack:
    """Runs whose weights and optimizer states are slices of shared tensors (runs, ...).

    Each run still sees its slices as its own tensors, in evaluations, checkpoints and after it leaves the stack.

    Args:
        runs: Runs with the same `layout`.
    """

    def __init__(self, runs: Sequence[Learner]) -> None:
        first = runs[0]
        self.runs = list(runs)
        self._update = UPDATES[type(first.optimizer)]
        groups = [numbers_of(run.optimizer.param_groups[0]) for run in runs]
        self._device = first.weights[0].device
        self._numbers = {name: self._column([group[name] for group in groups]) for name in self._update.numbers}
        self._switches = {**groups[0], "decays": any(group.get("weight_decay", 0) for group in groups)}
        self._kept_by = [self._update.kept(group) for group in groups]
        self._rates: list[float] = []
        self._fresh = {k for k, run in enumerate(runs) if not run.optimizer.state}
        self._numbers["is_first"] = self._column([k in self._fresh for k in range(len(runs))])

        self._names = [name for name, w in first.model.named_parameters() if w.requires_grad]
        self._names += [name for name, w in first.model.named_parameters() if not w.requires_grad]
        self._weights = [w.requires_grad_() for w in _stacked([run.weights for run in runs])]
        self._frozen = _stacked([[w for w in run.model.parameters() if not w.requires_grad] for run in runs])
        self._kept = {name: self._kept_under(name) for name in dict.fromkeys(n for ns in self._kept_by for n in ns)}
        for k, run in enumerate(runs):
            for w, stacked in zip(run.weights, self._weights, strict=True):
                w.data = stacked.detach()[k]
            if k not in self._fresh:
                self._hand_over(k)

        self._is_one_feed = all(
            run.batches.source is first.batches.source and (run.seed, run.state.step) == (first.seed, first.state.step)
            for run in runs
        )
        self._batches: list[list[Batch]] = []
        self._fed: list[list[tuple[Tensor, int | None]]] = []

    def step(self) -> list[Taken]:
        """Take the next step of every run and return the outcome of each."""
        first = self.runs[0]
        for run in self.runs:
            run.schedule.apply(run.optimizer, run.state.step)
        rates = [run.optimizer.param_groups[0]["lr"] for run in self.runs]
        if rates != self._rates:
            self._rates, self._numbers["lr"] = rates, self._column(rates)
        if self._is_one_feed:
            batches = [first.batches.at(first.state.step)] * len(self.runs)
        else:
            batches = [run.batches.at(run.state.step) for run in self.runs]
        values, grads = self._gradients(batches)
        norms = torch.zeros(len(self.runs), device=self._device)
        if any(run.clip_norm < math.inf for run in self.runs):
            grads, norms = clip(grads, [run.clip_norm for run in self.runs])
        is_whole = [batch.share for batch in batches[0]] == [1.0]
        losses = values[0] if is_whole else [total(batches[0], column) for column in zip(*values, strict=True)]
        if all(map(math.isfinite, losses)) and not has_non_finite([*grads, norms]):
            self._apply(grads, None)
            return [[loss] for loss in losses]
        return self._apply_finite(values, losses, grads, norms, batches)

    def _gradients(self, batches: list[list[Batch]]) -> tuple[list[list[float]], list[Tensor]]:
        """Return the losses of each batch of a step, one per run, and the stacked gradients of the step."""
        run = self.runs[0]
        losses: list[Tensor] = []
        totals: list[Tensor] = []
        for number, columns in enumerate(self._feed(batches)):
            values, dims = zip(*columns, strict=True)

            def forward(weights: list[Tensor], frozen: list[Tensor], *columns: Tensor) -> Tensor:
                named = dict(zip(self._names, (*weights, *frozen), strict=True))
                loss: Tensor = run.loss(functional_call(run.model, named, columns[:-1]), columns[-1])
                return loss

            loss = vmap(forward, in_dims=(0, 0, *dims))(self._weights, self._frozen, *values)
            share = loss.new_full(loss.shape, batches[0][number].share)
            grads = torch.autograd.grad(loss, self._weights, share)
            totals = [a + b for a, b in zip(totals, grads, strict=True)] if totals else list(grads)
            losses.append(loss.detach())
        return [loss.tolist() for loss in losses], totals

    def _feed(self, batches: list[list[Batch]]) -> list[list[tuple[Tensor, int | None]]]:
        """Return the inputs and targets of each batch of a step, each with its dimension of runs; None if shared."""
        if len(batches) != len(self._batches) or any(a is not b for a, b in zip(batches, self._batches, strict=True)):
            self._fed = [
                [_joined(column) for column in zip(*((*batch.inputs, batch.targets) for batch in row), strict=True)]
                for row in zip(*batches, strict=True)
            ]
            self._batches = batches
        return self._fed

    @torch.no_grad()
    def _apply(self, grads: list[Tensor], rows: list[int] | None) -> None:
        """Update the weights of some runs; None is all of them."""
        if rows is None:
            self._update.apply(self._weights, grads, self._kept, self._numbers, self._switches)
        else:
            index = torch.tensor(rows, device=self._device)
            weights = [w[index] for w in self._weights]
            kept = {name: [one[index] for one in ones] for name, ones in self._kept.items()}
            numbers = {name: one[index] for name, one in self._numbers.items()}
            self._update.apply(weights, [g[index] for g in grads], kept, numbers, self._switches)
            parts = zip(chain(self._weights, *self._kept.values()), chain(weights, *kept.values()), strict=True)
            for stacked, part in parts:
                stacked[index] = part
        for k in self._fresh.intersection(range(len(self.runs)) if rows is None else rows) if self._fresh else ():
            self._hand_over(k)

    def _apply_finite(
        self,
        values: list[list[float]],
        losses: list[float],
        grads: list[Tensor],
        norms: Tensor,
        batches: list[list[Batch]],
    ) -> list[Taken]:
        """Update the weights of the runs whose numbers are finite, and return the outcome of each run."""
        finite = torch.stack([g.reshape(len(g), -1).isfinite().all(1) for g in [*grads, norms]]).all(0)
        good = [k for k, ok in enumerate(finite.tolist()) if ok and math.isfinite(losses[k])]
        if good:
            self._apply(grads, good)
        taken: list[Taken] = [[loss] for loss in losses]
        for k in set(range(len(self.runs))).difference(good):
            taken[k] = non_finite(self.runs[k], batches[k], [column[k] for column in values])
        return taken

    def _hand_over(self, k: int) -> None:
        """Put the slices of a run into the state of its optimizer."""
        run, names = self.runs[k], self._kept_by[k]
        for i, w in enumerate(run.weights if names else ()):
            run.optimizer.state[w] = {name: self._kept[name][i][k] for name in names}
        if k in self._fresh:
            self._fresh.remove(k)
            self._numbers["is_first"][k] = 0

    def _kept_under(self, name: str) -> list[Tensor]:
        """Return an entry of the optimizer states, stacked for each weight; zeros where a state is empty."""
        first = self.runs[0].weights
        zeros = [torch.zeros((), device=w.device) if name == "step" else torch.zeros_like(w) for w in first]
        return _stacked(
            [
                [run.optimizer.state.get(w, {}).get(name, zero) for w, zero in zip(run.weights, zeros, strict=True)]
                for run in self.runs
            ]
        )

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self._device)


def train(loops: Sequence[Loop]) -> Iterator[int]:
    """Train runs together, each in its own loop; yield the index of each run when it ends.

    Args:
        loops: Loops, not started, of runs for which `eligible.why_singly` returns None.
    """
    contexts = [copy_context() for _ in loops]
    runs: dict[int, Learner] = {}
    try:
        for number, loop in enumerate(loops):
            run = _send(contexts[number], loop, None)
            if run is None:
                yield number
            else:
                runs[number] = run
                run.random = _fixed(randomness.state_dict())  # all runs have the same generators
        stacks = [(numbers, Stack([runs[n] for n in numbers])) for numbers in _alike(runs)]
        while stacks:
            going_on = []
            for numbers, stack in stacks:
                ended = []
                for number, taken in zip(numbers, _taken(stack), strict=True):
                    if _send(contexts[number], loops[number], taken) is None:
                        ended.append(number)
                        del runs[number]
                yield from ended
                if ended:
                    numbers = [number for number in numbers if number in runs]
                    stack = Stack([runs[number] for number in numbers]) if numbers else stack
                if numbers:
                    going_on.append((numbers, stack))
            stacks = going_on
    finally:
        for context, loop in zip(contexts, loops, strict=True):
            context.run(loop.close)


def _send(context: Context, loop: Loop, taken: Taken | Exception | None) -> Learner | None:
    """Resume a loop until its next step or its end, in its context, so that it writes to its own log."""
    try:
        if isinstance(taken, Exception) and not isinstance(taken, NonFinite):
            return context.run(loop.throw, taken)
        return context.run(loop.send, taken)
    except StopIteration:
        return None


def _taken(stack: Stack) -> Sequence[Taken | Exception]:
    try:
        return stack.step() if len(stack.runs) > 1 else [run.update(run) for run in stack.runs]
    except Exception as error:
        return [error] * len(stack.runs)


def _fixed(state: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    return lambda: state


def _alike(runs: dict[int, Learner]) -> list[list[int]]:
    """Return groups of runs that can be stacked, as their indices."""
    groups: list[tuple[Any, list[int]]] = []
    for number, run in runs.items():
        form = layout(run)
        same = next((numbers for other, numbers in groups if other == form), None)
        if same is None:
            groups.append((form, [number]))
        else:
            same.append(number)
            _share_rows(run, runs[same[0]])
    return [numbers for _, numbers in groups]


def _share_rows(run: Learner, other: Learner) -> None:
    """Make a run share the rows of another run if they are equal."""
    mine, others = run.batches.source, other.batches.source
    if isinstance(mine, Tensors) and isinstance(others, Tensors) and mine.equals(others):
        run.batches.source = others


def layout(run: Learner) -> tuple[Any, ...]:
    """Return the properties that stacked runs must share: shapes, settings of components, and position in the epoch."""
    batches, numbers = run.batches, UPDATES[type(run.optimizer)].numbers
    source = batches.source
    assert isinstance(source, Tensors)
    rows = [None if t is None else (t.shape, t.dtype) for t in (source.x, source.y)]
    weights = [(name, w.shape, w.dtype, w.requires_grad) for name, w in run.model.named_parameters()]
    modules = [(type(module), own_attributes(module)) for module in (*run.model.modules(), *run.loss.modules())]
    (group,) = run.optimizer.param_groups
    switches = {name: value for name, value in group.items() if isinstance(value, bool) and name not in numbers}
    sizes = batches.batch_size, batches.step_rows
    place = 0 if batches.rows % batches.step_rows == 0 else run.state.step % batches.steps_per_epoch
    return rows, weights, modules, type(run.optimizer), switches, sizes, place


def own_attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module besides its parameters, buffers, submodules and hooks."""
    return {name: value for name, value in vars(module).items() if name not in _TORCH_OWN}


def _joined(column: Sequence[Tensor]) -> tuple[Tensor, int | None]:
    """Return the tensors of all runs, stacked along dimension 0, or the one tensor that all of them share and None."""
    first = column[0]
    if all(t is first or (t.data_ptr() == first.data_ptr() and t.stride() == first.stride()) for t in column):
        return first, None
    return torch.stack(list(column)), 0


def _stacked(tensors: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Stack the first tensors of all runs, the second ones, and so on."""
    return [torch.stack([t.detach() for t in column]) for column in zip(*tensors, strict=True)]
