"""compile=step: compiles forward pass, loss, gradients, clipping and update of several steps into one program."""

from __future__ import annotations

import copy
import inspect
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from trainer import randomness
from trainer.data import Batch
from trainer.training import fused, torch_private
from trainer.training.build import Built, copied
from trainer.training.instantiate import reason_of
from trainer.training.loop import Learner, Taken, dense, gradients, take_step
from trainer.training.parameters import few_parameters

UNROLLED = 10  # steps per call: the step of a small model takes less time than a call
LARGE = 1_000_000  # from this many parameters on, one step per call is enough
_AGREEMENT = 0.05  # relative tolerance for a loss and a change of weights: compiled code rounds differently


class NotCompilable(Exception):
    """The step of a run can't be compiled; the message gives the reason."""


def install(built: Built, announce: Callable[[str], None]) -> None:
    """Make a run take compiled steps; if its step can't be compiled, warn and leave the run unchanged.

    Args:
        built: The run, with the state from which it starts or resumes.
        announce: Shows the user one line.
    """
    announce("compiling the step: about a minute the first time; Ctrl-C takes effect afterwards")
    start = time.perf_counter()
    try:
        with randomness.isolated(randomness.derived(built.run.seed, randomness.TRIAL, 0)):
            built.run.update = CompiledStep(built)
    except NotCompilable as reason:
        announce(f"warning: compile=step: {reason}; training without compilation")
    else:
        announce(f"compiled in {time.perf_counter() - start:.1f} s")


class CompiledStep:
    """Takes steps in compiled calls, each a span of UNROLLED steps that begins at a multiple of UNROLLED.

    Steps of an incomplete span run uncompiled: when a run resumes inside the span, an evaluation or checkpoint is due
    before its end, or a batch is smaller. Which steps share a call thus depends only on the settings, and a resumed run
    computes the same numbers as an uninterrupted one.

    Args:
        built: The run.

    Raises:
        NotCompilable: The step can't be compiled, or the compiled step computes something else.
    """

    def __init__(self, built: Built) -> None:
        run = _trial(built)
        if few_parameters(run.model) is not None:
            raise NotCompilable("this small model shows its parameters at every step")
        batches = run.batches.at(0)  # not the last batch of an epoch, which may be smaller
        draws = _require_pure(_trial(built), batches)
        large = sum(w.numel() for w in run.weights) > LARGE
        self._span = 1 if draws or large or _undisturbed(run) < 2 * UNROLLED else UNROLLED
        self._batches, self._shapes, self._kept = batches, _shapes(batches), len(_leaves(run))
        self._is_whole = all(batch.rows is None for batch in batches) and run.batches.source.fixed
        self._rates: list[list[float]] = []
        self._lrs = torch.empty(0)
        try:
            self._program = self._compile(run)
            self._require_agreement(run, _trial(built))
        except NotCompilable:
            raise
        except Exception as error:  # torch may fail on the model, the optimizer or the machine
            raise NotCompilable(f"torch can't compile it: {reason_of(error)}") from error

    def __call__(self, run: Learner) -> Taken:
        """Take the steps of a span, or one uncompiled step, and return the losses."""
        step = run.state.step
        if step % self._span or _until_due(run) < self._span or len(kept := _leaves(run)) != self._kept:
            return take_step(run)
        span = [run.batches.at(number) for number in range(step, step + (1 if self._is_whole else self._span))]
        if not self._is_whole and any(_shapes(batches) != self._shapes for batches in span):
            return take_step(run)
        losses = self._take(run, kept, span)
        if not losses:
            return take_step(run)  # finds and reports the non-finite number
        run.schedule.apply(run.optimizer, step + self._span - 1)
        return losses

    def _take(self, run: Learner, kept: list[Tensor], span: Sequence[Sequence[Batch]]) -> list[float]:
        """Take the steps of a span and return their losses; if a number is not finite, change nothing and return []."""
        factors = [run.schedule.factor(run.state.step + place) for place in range(self._span)]
        rates = [[group["initial_lr"] * factor for group in run.optimizer.param_groups] for factor in factors]
        if rates != self._rates:
            self._rates, self._lrs = rates, torch.tensor(rates, dtype=torch.float64)
        rows = [[(batch.inputs, batch.targets) for batch in batches] for batches in span]
        with torch.no_grad():
            *losses, finite = self._program(run.weights, [*run.model.buffers()], kept, rows, self._lrs).tolist()
        return losses if finite else []

    def _example(self) -> list[list[Batch]]:
        """Return different batches for a span: torch would treat identical tensors as a single input."""
        return [
            [
                batch._replace(inputs=tuple(x.roll(place, 0) for x in batch.inputs), targets=batch.targets.clone())
                for batch in self._batches
            ]
            for place in range(1 if self._is_whole else self._span)
        ]

    def _compile(self, run: Learner) -> Callable[..., Tensor]:
        rows = [[(batch.inputs, batch.targets) for batch in batches] for batches in self._example()]
        lrs = torch.ones(self._span, len(run.optimizer.param_groups), dtype=torch.float64)
        with _as_when_compiling(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about reading .grad of non-leaf tensors
            allowed = torch_private.allowing_constants(make_fx)
            traced = make_fx(self._steps_of(run), tracing_mode="fake", **allowed)
            graph = traced(run.weights, [*run.model.buffers()], _leaves(run), rows, lrs)
        options: dict[str, Any] = {
            "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,  # __call__ compares the shapes
            "fallback_random": True,  # draw the random numbers of the uncompiled step
            "cpp_wrapper": True,  # launch kernels without Python
            "pattern_matcher": False,  # torch 2.13 turns mm(a, b) * -lr + w into an addmm that drops lr
        }
        return torch.compile(graph.forward, fullgraph=True, dynamic=False, options=options)

    def _steps_of(self, run: Learner) -> Callable[..., Tensor]:
        """Return a function of all inputs of a span that takes its steps and then writes the changes in place."""
        names = [name for name, w in run.model.named_parameters() if w.requires_grad]
        buffer_names = [name for name, _ in run.model.named_buffers()]

        def steps(weights: list[Tensor], buffers: list[Tensor], state: list[Tensor], rows: Any, lrs: Tensor) -> Tensor:
            now = [[tensor.detach().clone() for tensor in tensors] for tensors in (weights, buffers, state)]
            losses = []
            for place in range(self._span):
                params = [w.detach().clone().requires_grad_() for w in now[0]]
                held = {**dict(zip(names, params, strict=True)), **dict(zip(buffer_names, now[1], strict=True))}
                losses.append(self._gradients(run, params, held, rows[place % len(rows)]))
                with torch.no_grad():
                    _update(run, params, now[2], lrs[place])
                now[0] = params
            # A non-finite number in one step remains in the weights or in the next loss.
            numbers = [t for t in [*losses, *now[0], *now[2]] if t.is_floating_point()]
            finite = torch.stack([torch.isfinite(t).all() for t in numbers]).all()
            with torch.no_grad():
                for olds, news in zip((weights, buffers, state), now, strict=True):
                    for old, new in zip(olds, news, strict=True):
                        old.copy_(torch.where(finite, new, old))
            return torch.stack([*losses, finite.double()])

        return steps

    def _gradients(self, run: Learner, params: list[Tensor], held: dict[str, Tensor], rows: Any) -> Tensor:
        """Set the clipped gradients of params for a step and return its loss."""
        losses = []
        for batch, (inputs, targets) in zip(self._batches, rows, strict=True):
            with run.autocast:
                loss = run.loss(functional_call(run.model, held, inputs), targets)
            grads = torch.autograd.grad(loss, params, loss.new_full((), batch.share), allow_unused=True)
            for w, grad in zip(params, grads, strict=True):
                if grad is not None:  # two weights may share one gradient tensor
                    w.grad = grad.clone() if w.grad is None else w.grad + grad
            losses.append(batch.share * loss.detach().double())
        if run.clip_norm < math.inf:
            clip_grads_with_norm_(params, run.clip_norm, get_total_norm(dense(params), foreach=False), foreach=False)
        return torch.stack(losses).sum()

    def _require_agreement(self, run: Learner, same: Learner) -> None:
        """Compare compiled and uncompiled steps from the same weights; the first call also compiles.

        Raises:
            NotCompilable: They differ by more than rounding: the model depends on more than its tensors.
        """
        seed, losses, span = randomness.derived(run.seed, randomness.TRIAL, 1), [], self._example()
        start = [t.detach().clone() for t in (*run.weights, *run.model.buffers())]
        with randomness.isolated(seed):
            for place in range(self._span):
                run.schedule.apply(same.optimizer, run.state.step + place)
                losses.append(fused.step(same.optimizer, partial(gradients, same, span[place % len(span)])))
        with randomness.isolated(seed):
            found = self._take(run, _leaves(run), span)
        if not found and not all(map(math.isfinite, losses)):
            raise NotCompilable("the first steps are not finite")
        for here, there in zip(found or [math.nan], losses, strict=False):
            if not math.isclose(here, there, rel_tol=_AGREEMENT, abs_tol=1e-6 * abs(losses[0])):
                raise NotCompilable(f"the loss of a compiled step is {here:.6g} instead of {there:.6g}")
        ours, theirs = ([t.detach() for t in (*one.weights, *one.model.buffers())] for one in (run, same))
        for before, ours_now, theirs_now in zip(start, ours, theirs, strict=True):
            change = (theirs_now - before).double()
            if float((ours_now - before - change).norm()) > _AGREEMENT * float(change.norm()):
                raise NotCompilable("a compiled step changes the weights or buffers differently")


def _trial(built: Built) -> Learner:
    """Return a copy of a run after one step, which creates the optimizer's state."""
    run = copied(built)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not isinstance(take_step(run), list):
            raise NotCompilable("the first step is not finite")
    return run


def _require_pure(run: Learner, batches: Sequence[Batch]) -> bool:
    """Return whether a step draws numbers from torch's generators.

    Raises:
        NotCompilable: It draws from other generators, changes the loss module, or computes gradients more than once.
    """
    calls = 0

    def count() -> float:
        nonlocal calls
        calls += 1
        return gradients(run, batches)

    before, loss = randomness.position(), copy.deepcopy(run.loss.state_dict())
    fused.step(run.optimizer, count)
    after = randomness.position()
    if calls > 1:
        raise NotCompilable(f"{type(run.optimizer).__name__} computes the gradients several times per step")
    if any(not torch.equal(value, loss[name]) for name, value in run.loss.state_dict().items()):
        raise NotCompilable("the loss changes its own tensors")
    if before["python"] != after["python"] or before["numpy"] != after["numpy"]:
        raise NotCompilable("the model draws from Python's or NumPy's generator")
    return bool(before["torch"] != after["torch"])


def _cadences(run: Learner) -> list[int]:
    """Return the intervals of checkpoints and evaluations, in steps."""
    cadences = [run.save_every] if run.validation is None else [run.save_every, run.eval_every]
    return [every for every in cadences if every is not None]


def _until_due(run: Learner) -> int:
    """Return the number of steps until the next checkpoint, evaluation or the end of the run."""
    step = run.state.step
    return min([run.steps - step, *(every - step % every for every in _cadences(run))])


def _undisturbed(run: Learner) -> int:
    """Return the smallest interval of the events that end a span: checkpoint, evaluation, smaller batch of an epoch."""
    uneven = run.batches.rows % run.batches.step_rows != 0
    return min([*_cadences(run), *([run.batches.steps_per_epoch] if uneven else [])], default=run.steps)


def _update(run: Learner, params: list[Tensor], state: list[Tensor], rates: Tensor) -> None:
    """Update params and state in place with the optimizer's own code, run on a copy that holds these tensors."""
    optimizer = run.optimizer
    twin = copy.copy(optimizer)
    by_weight = dict(zip(run.weights, params, strict=True))
    twin.param_groups = [
        {**group, **_traceable(group), "params": [by_weight[w] for w in group["params"]], "lr": rates[index]}
        for index, group in enumerate(optimizer.param_groups)
    ]
    twin.state = defaultdict(dict)
    leaves = iter(state)
    for w in run.weights:
        if optimizer.state.get(w):
            twin.state[by_weight[w]] = {name: next(leaves) for name in sorted(optimizer.state[w])}
    inspect.unwrap(type(optimizer).step)(twin)


def _traceable(group: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a group that stop torch's optimizers from branching on values or calling fused kernels."""
    wanted = {"foreach": False, "fused": False, "capturable": True}
    return {key: value for key, value in wanted.items() if key in group}


def _leaves(run: Learner) -> list[Tensor]:
    """Return the tensors of the optimizer's state, ordered by weight and by name."""
    leaves = []
    for w in run.weights:
        kept = run.optimizer.state.get(w) or {}
        leaves += [kept[name] for name in sorted(kept)]
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise NotCompilable(f"{type(run.optimizer).__name__} keeps state besides tensors")
    return leaves


def _shapes(batches: Sequence[Batch]) -> tuple[Any, ...]:
    """Return the shares, shapes and dtypes that the batches of all steps of a program must share."""
    return tuple((b.share, *((t.shape, t.dtype) for t in (*b.inputs, b.targets))) for b in batches)


@contextmanager
def _as_when_compiling() -> Iterator[None]:
    """Make torch's optimizers take the code paths for torch.compile in a block."""
    own = torch.compiler.is_compiling
    torch.compiler.is_compiling = lambda: True
    try:
        yield
    finally:
        torch.compiler.is_compiling = own
