"""Whether runs like one can be trained as one with others, and how many at a time take the least time."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from trainer import randomness
from trainer.data.batches import Tensors
from trainer.models.handwritten import HandWritten
from trainer.training.build import Built, copied
from trainer.training.instantiate import reason_of
from trainer.training.loop import Learner, NonFinite, gradients
from trainer.training.stacked.stack import Stack, layout, own_attributes
from trainer.training.stacked.updates import UPDATES

MOST = 256  # runs in a stack
_LARGEST = 2**30  # bytes of weights, gradients and data in a stack
_GAIN = 0.95  # of the time of single steps that a stack must take at most, or it is not worth it
_SECONDS = 2.0  # after which no further size is measured; a small model takes a tenth of it
_REPEATS, _ENOUGH = 5, 0.25  # steps that are measured of a size, at most so many and about so many seconds
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device)


def _is_plain(value: Any) -> bool:
    """Say whether == tells that a value is the same in two models: numbers, texts, functions, and what holds such."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN) or inspect.isroutine(value)


def why_singly(built: Built) -> str | None:
    """Say why a run can't be stacked with others of its kind; None if it can."""
    run = built.run
    names, optimizer = built.names, run.optimizer
    group = optimizer.param_groups[0]
    if type(optimizer) not in UPDATES:
        return f"{names['optim']} has no batched update"
    if group.get("differentiable") or group.get("capturable") or isinstance(group["lr"], Tensor):
        return f"{names['optim']} has settings that the batched update lacks"
    if len(optimizer.param_groups) > 1 or [*map(id, group["params"])] != [*map(id, run.weights)]:
        return f"{names['optim']} treats some weights apart"
    if not isinstance(run.batches.source, Tensors):
        return f"{names['data']} is not in memory as tensors"
    if built.settings.compile is not None:
        return f"compile={built.settings.compile} compiles the step of one run"
    if not isinstance(run.autocast, nullcontext):
        return "device.amp=true"
    if any(isinstance(module, HandWritten) for module in run.model.modules()):
        return f"{names['model']} computes its gradients by hand"
    if any(True for _ in run.model.buffers()):
        return f"{names['model']} has buffers, such as running averages"
    if any(True for _ in (*run.loss.parameters(), *run.loss.buffers())):
        return f"{names['loss']} has tensors of its own"
    for part, whole in (("model", run.model), ("loss", run.loss)):
        own = [item for module in whole.modules() for item in own_attributes(module).items()]
        if (name := next((name for name, value in own if not _is_plain(value)), None)) is not None:
            return f"{names[part]} has an attribute, {name}, that may be another in each job"
    try:
        with randomness.isolated(randomness.derived(run.seed, randomness.TRIAL, 0)):
            return _difference(built)
    except NonFinite:
        return None  # training says so too
    except Exception as error:
        return f"{names['model']} can't be batched: {reason_of(error)}"


def _difference(built: Built) -> str | None:
    """Say how the gradients of a stack of two differ from those of a single run, if they do."""
    name = built.names["model"]
    one, (first, second) = copied(built), (copied(built), copied(built))
    batches = one.batches.at(0)
    for run in (one, first, second):
        run.model.train()
    before = randomness.position()
    gradients(dataclasses.replace(one, clip_norm=math.inf), batches)  # a stack clips later
    if randomness.position() != before:
        return f"{name} draws random numbers"
    single = [w.grad for w in one.weights]
    if any(grad is None for grad in single):
        return f"{name} has weights that the loss does not depend on"
    _, grads = Stack([first, second])._gradients([batches, batches])
    if layout(first) != layout(one):
        return f"{name} changes as it is used"
    for grad, pair in zip(single, grads, strict=True):
        assert grad is not None
        if not torch.allclose(pair, grad.expand_as(pair), rtol=1e-2, atol=1e-3 * float(grad.abs().max())):
            return f"{name} has other gradients when it is batched"
    return None


def best_size(built: Built, count: int, same_rows: bool) -> tuple[int, float]:
    """Measure how many of `count` runs to stack for the least time a run; 1 where single steps are as fast.

    Returns the size, and the time that a run takes in the best stack beside the time it takes alone.

    Args:
        built: One of the runs; it stays as it is.
        count: How many there are.
        same_rows: Whether all of them learn from the same rows in the same order.
    """
    run = built.run
    source = run.batches.source
    assert isinstance(source, Tensors)
    one = sum(w.nbytes for w in run.weights) * 4 + sum(t.nbytes for t in (source.x, source.y) if t is not None)
    most = min(count, MOST, max(_LARGEST // one, 1))
    sizes = [size for size in (4, 16, 64) if size < most] + [most]
    with randomness.isolated(randomness.derived(run.seed, randomness.TRIAL, 0)):
        single = copied(built)
        single.model.train()
        end = time.perf_counter() + _SECONDS
        alone, best, least = _seconds(lambda: single.update(single)), 1, math.inf
        for size in sizes:
            trial = copied(built)
            trial.model.train()
            try:
                stack = Stack([trial if same_rows else _with_own_rows(trial) for _ in range(size)])
                took = _seconds(stack.step) / size
            except Exception:  # so many need more memory than there is
                break
            if took < least:
                best, least = size, took
            if took > 1.2 * least or time.perf_counter() > end:
                break
    return best if least < _GAIN * alone else 1, least / alone


def _with_own_rows(run: Learner) -> Learner:
    batches = copy.copy(run.batches)
    x, y = batches.source.all()
    batches.source = Tensors(None if x is None else x.clone(), y.clone())
    return dataclasses.replace(run, batches=batches)


def _seconds(step: Callable[[], object]) -> float:
    """Return the time that a step takes once it has been taken before: the least of a few, for others disturb."""
    step()
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _ENOUGH:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)
