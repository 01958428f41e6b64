"""Decides whether runs can be trained as one batched program, and how many at a time."""

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
_GAIN = 0.95  # a stacked step is useful up to this fraction of the time of single steps
_SECONDS = 2.0  # after this much measuring, no larger size is tried; small models take a tenth of it
_REPEATS, _ENOUGH = 5, 0.25  # a size is measured for at most this many steps, and seconds
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device)


def _is_plain(value: Any) -> bool:
    """Return whether == compares a value reliably: numbers, strings, functions, and containers of these."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN) or inspect.isroutine(value)


def why_singly(built: Built) -> str | None:
    """Return why a run can't be stacked with similar runs; None if it can."""
    run = built.run
    names, optimizer = built.names, run.optimizer
    group = optimizer.param_groups[0]
    if type(optimizer) not in UPDATES:
        return f"{names['optim']} has no batched update"
    if group.get("differentiable") or group.get("capturable") or isinstance(group["lr"], Tensor):
        return f"{names['optim']} has settings that the batched update doesn't support"
    if len(optimizer.param_groups) > 1 or [*map(id, group["params"])] != [*map(id, run.weights)]:
        return f"{names['optim']} doesn't treat all weights alike"
    if not isinstance(run.batches.source, Tensors):
        return f"{names['data']} is not held in memory as tensors"
    if built.settings.compile is not None:
        return f"compile={built.settings.compile} compiles the step of one run"
    if not isinstance(run.autocast, nullcontext):
        return "device.amp=true"
    if any(isinstance(module, HandWritten) for module in run.model.modules()):
        return f"{names['model']} computes its gradients by hand"
    if any(True for _ in run.model.buffers()):
        return f"{names['model']} has buffers, such as running averages"
    if any(True for _ in (*run.loss.parameters(), *run.loss.buffers())):
        return f"{names['loss']} has parameters or buffers"
    for part, whole in (("model", run.model), ("loss", run.loss)):
        own = [item for module in whole.modules() for item in own_attributes(module).items()]
        if (name := next((name for name, value in own if not _is_plain(value)), None)) is not None:
            return f"{names[part]} has an attribute, {name}, that may differ between jobs"
    try:
        with randomness.isolated(randomness.derived(run.seed, randomness.TRIAL, 0)):
            return _difference(built)
    except NonFinite:
        return None  # training reports it
    except Exception as error:
        return f"{names['model']} can't be batched: {reason_of(error)}"


def _difference(built: Built) -> str | None:
    """Return how the gradients of a stack of two differ from those of a single run; None if they agree."""
    name = built.names["model"]
    one, (first, second) = copied(built), (copied(built), copied(built))
    batches = one.batches.at(0)
    before = randomness.position()
    gradients(dataclasses.replace(one, clip_norm=math.inf), batches)  # a stack clips later
    if randomness.position() != before:
        return f"{name} draws random numbers"
    single = [w.grad for w in one.weights]
    if any(grad is None for grad in single):
        return f"{name} has weights that don't affect the loss"
    _, grads = Stack([first, second])._gradients([batches, batches])
    if layout(first) != layout(one):
        return f"{name} changes its own attributes"
    for grad, pair in zip(single, grads, strict=True):
        assert grad is not None
        if not torch.allclose(pair, grad.expand_as(pair), rtol=1e-2, atol=1e-3 * float(grad.abs().max())):
            return f"{name} has different gradients when batched"
    return None


def best_size(built: Built, count: int, same_rows: bool) -> tuple[int, float]:
    """Measure the fastest stack size for a number of runs.

    Args:
        built: One of the runs; it is left unchanged.
        count: Number of runs.
        same_rows: Whether all runs learn from the same rows in the same order.

    Returns:
        The size, 1 if single steps are as fast, and the time per run in the best stack as a fraction of that of a
        single run.
    """
    run = built.run
    source = run.batches.source
    assert isinstance(source, Tensors)
    one = sum(w.nbytes for w in run.weights) * 4 + sum(t.nbytes for t in (source.x, source.y) if t is not None)
    most = min(count, MOST, max(_LARGEST // one, 1))
    sizes = [size for size in (4, 16, 64) if size < most] + [most]
    with randomness.isolated(randomness.derived(run.seed, randomness.TRIAL, 0)):
        single = copied(built)
        end = time.perf_counter() + _SECONDS
        alone, best, least = _seconds(lambda: single.update(single)), 1, math.inf
        for size in sizes:
            trial = copied(built)
            try:
                stack = Stack([trial if same_rows else _with_own_rows(trial) for _ in range(size)])
                took = _seconds(stack.step) / size
            except Exception:  # this size needs more memory than available
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
    """Return the seconds of a step after a first one: the minimum of several, since other processes interfere."""
    step()
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _ENOUGH:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)
