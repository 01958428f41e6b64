"""Inspects the parts of a run and its next step: every value between the rows and the new weights."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from trainer import randomness
from trainer.analysis.weights import described, norm_of, step_facts
from trainer.data import Batch
from trainer.files.plain_json import finite
from trainer.training import devices
from trainer.training.build import Built
from trainer.training.loop import Learner, NonFinite, dense, gradients, take_step
from trainer.training.parameters import FEW_NUMBERS

WRONG = 1e-3  # relative difference above which a gradient is wrong
_STEP = 1e-6  # step size of finite differences, in float64
_MOST_CHECKED = 200  # weight tensors whose gradients are checked
_LARGEST_CHECKED = 5e10  # product of numbers and rows; checking more would take minutes


def look(built: Built, batches: Sequence[Batch] | None = None) -> dict[str, Any]:
    """Return the parts of a run and the values of its next step as plain data; the run takes that step.

    Args:
        built: The run.
        batches: The batches of the step; by default the run's own.
    """
    run = built.run
    run.model.train()
    batches = run.batches.at(run.state.step) if batches is None else batches
    kinds = {id(w): "trained" if w.requires_grad else "frozen" for w in run.model.parameters()}
    held = [*run.model.named_parameters(), *run.model.named_buffers()]
    whole = sum(t.numel() for _, t in held) <= FEW_NUMBERS
    group = run.optimizer.param_groups[0]
    passed: list[dict[str, Any]] = []
    with undone(run), layers(run.model) as seen, run.autocast:
        prediction = run.model(*batches[0].inputs)
        passed += seen
        by_prediction = _by_prediction(run, prediction)
    few = prediction.numel() <= FEW_NUMBERS
    return {
        "model": built.choices["model"],
        "numbers": sum(w.numel() for w in run.model.parameters()),
        "bytes": sum(t.nbytes for _, t in held),
        "layers": passed,
        "parameters": [
            {"name": name, "kind": kinds.get(id(t), "buffer"), "bytes": t.nbytes, **described(t, whole)}
            for name, t in held
        ],
        "optimizer": {
            "option": built.choices["optim"],
            "class": type(run.optimizer).__qualname__,
            "settings": finite({key: value for key, value in group.items() if key not in ("params", "initial_lr")}),
        },
        "prediction": described(prediction, few),
        "targets": described(batches[0].targets, few),
        "step": _step(built, batches, by_prediction, whole, passed),
    }


def _by_prediction(run: Learner, prediction: Tensor) -> Sequence[Tensor | None]:
    """Return the gradients of the prediction if it is one number, else None for each weight."""
    if prediction.numel() > 1 or not prediction.requires_grad:
        return [None] * len(run.weights)
    return torch.autograd.grad(prediction.sum(), run.weights, allow_unused=True)


def _step(
    built: Built, batches: Sequence[Batch], by_prediction: Sequence[Tensor | None], whole: bool, seen: Sequence[Any]
) -> dict[str, Any]:
    """Take a step; return its loss, gradients and update."""
    run = built.run
    names = [name for name, w in run.model.named_parameters() if w.requires_grad]
    with undone(run):
        facts = step_facts(unclipped(run), batches)
    if "problem" in facts:
        return {**facts, "first": first_not_finite(seen, largest_gradients(run))}
    grads = [None if w.grad is None else w.grad.detach().clone() for w in run.weights]
    norm = norm_of(run)
    facts["norm"] = finite(norm)
    facts["clipped_to"] = run.clip_norm if norm > run.clip_norm else None
    facts["check"] = check(built, batches)
    before = [w.detach().clone() for w in run.weights]
    whole_step = dataclasses.replace(run, batches=_Given(batches))  # type: ignore[arg-type]
    with undone(run, weights=False):
        taken = take_step(whole_step)
    if isinstance(taken, NonFinite):
        return {**facts, "problem": str(taken), "first": None}
    with undone(run), torch.no_grad():
        losses = []
        for batch in batches:
            with run.autocast:
                losses.append(batch.share * float(run.loss(run.model(*batch.inputs), batch.targets)))
    facts["loss_after"] = finite(math.fsum(losses))
    facts["weights"] = [
        {
            "name": name,
            "before": described(old, whole),
            "gradient": None if grad is None else described(grad, whole),
            "of_the_prediction": None if by is None else described(by, whole),
            "update": described(w.detach() - old, whole),
            "after": described(w, whole),
        }
        for name, old, grad, by, w in zip(names, before, grads, by_prediction, run.weights, strict=True)
    ]
    return facts


def unclipped(run: Learner) -> Learner:
    """Return a run that does not clip its gradients, with the same parts."""
    return dataclasses.replace(run, clip_norm=math.inf)


class _Given:
    """Fixed batches in place of a run's own."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = list(batches)

    def at(self, step: int) -> list[Batch]:
        """Return the batches, the same for every step."""
        return self._batches


@contextmanager
def undone(run: Learner, weights: bool = True) -> Iterator[None]:
    """Undo what a block changes in random generators, buffers, the loss and the weights.

    Args:
        run: The run.
        weights: Whether to undo changes of the weights.
    """
    random = randomness.state_dict()
    model, loss = copy.deepcopy(run.model.state_dict()), copy.deepcopy(run.loss.state_dict())
    try:
        yield
    finally:
        randomness.load_state_dict(random)
        trained = {name for name, _ in run.model.named_parameters()}
        run.model.load_state_dict({k: v for k, v in model.items() if weights or k not in trained}, strict=False)
        run.loss.load_state_dict(loss)


@contextmanager
def layers(model: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """Yield a list that records the inputs and outputs of each layer called in a block."""
    seen: list[dict[str, Any]] = []
    uses: dict[str, int] = {}
    handles = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            uses[name] = uses.get(name, 0) + 1
            facts = {
                "name": name,
                "class": type(module).__name__,
                "use": uses[name],
                "inputs": [list(t.shape) for t in inputs if isinstance(t, Tensor)],
                "outputs": list(output.shape) if isinstance(output, Tensor) else None,
                "numbers": sum(w.numel() for w in module.parameters()),
            }
            if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
                facts["largest"] = finite(float(output.detach().abs().max()))
                facts["finite"] = bool(torch.isfinite(output).all())
            seen.append(facts)

        return hook

    for name, module in model.named_modules():
        if name == "" or not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(note(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def first_not_finite(seen: Sequence[Mapping[str, Any]], gradients: Sequence[Mapping[str, Any]]) -> str | None:
    """Return in words the first layer, else the gradients, that are not finite; None if all are finite.

    Args:
        seen: The layers recorded by `layers`.
        gradients: The result of `largest_gradients`.
    """
    first = next((one for one in seen if one.get("finite") is False), None)
    if first is not None:
        called = f"{first['name']} ({first['class']})" if first["name"] else f"the model ({first['class']})"
        return f"{called} is the first layer whose output is not finite"
    wrong = [one["name"] for one in gradients if not one["finite"]]
    return f"the gradient of {', '.join(wrong)} is not finite" if wrong else None


def largest_gradients(run: Learner) -> list[dict[str, Any]]:
    """Return for each trained weight its largest gradient, and whether all its gradients are finite."""
    found = []
    for name, w in run.model.named_parameters():
        if w.requires_grad and w.grad is not None:
            (grad,) = dense([w])
            finite_ones = grad[torch.isfinite(grad)]
            largest = float(finite_ones.abs().max()) if finite_ones.numel() else None
            found.append({"name": name, "largest": largest, "finite": len(finite_ones) == grad.numel()})
    return found


def check(built: Built, batches: Sequence[Batch]) -> dict[str, Any]:
    """Compare the gradients with finite differences of the loss, on a copy of the run in float64.

    Each weight tensor w is moved along a direction d of random signs: (L(w + hd) - L(w - hd)) / 2h is compared with
    the sum of gradient times d.

    Returns:
        The difference for each weight, relative to its gradient, or the reason why they can't be compared.
    """
    run = built.run
    sizes = [w.numel() for w in run.weights]
    rows = sum(len(batch.targets) if batch.targets.ndim else 1 for batch in batches)
    if len(sizes) > _MOST_CHECKED or 2 * len(sizes) * sum(sizes) * rows > _LARGEST_CHECKED:
        return {"problem": "the model is too large"}
    try:
        with devices.default_dtype("float64"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _compared(run, batches)
    except Exception as error:  # some models work only in their own dtype
        return {"problem": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _compared(run: Learner, batches: Sequence[Batch]) -> dict[str, Any]:
    model, loss = copy.deepcopy(run.model).double(), copy.deepcopy(run.loss).double()
    exact = dataclasses.replace(
        run, model=model, loss=loss, autocast=nullcontext(), clip_norm=math.inf, batches=copy.copy(run.batches)
    )
    doubled = [
        batch._replace(inputs=tuple(map(_double, batch.inputs)), targets=_double(batch.targets)) for batch in batches
    ]
    random = randomness.state_dict()

    def value() -> float:
        randomness.load_state_dict(random)
        with torch.no_grad():
            return math.fsum(batch.share * float(loss(model(*batch.inputs), batch.targets)) for batch in doubled)

    try:
        gradients(exact, doubled)
        found: list[dict[str, Any]] = []
        signs = torch.Generator().manual_seed(0)
        trained = [(name, w) for name, w in model.named_parameters() if w.requires_grad]
        for name, w in trained:
            direction = (torch.randint(0, 2, w.shape, generator=signs) * 2.0 - 1.0).to(w.device)
            step = _STEP * max(1.0, float(w.detach().abs().mean()))
            sides = []
            for side in (step, -step):
                with torch.no_grad():
                    w.add_(direction, alpha=side)
                sides.append(value())
                with torch.no_grad():
                    w.add_(direction, alpha=-side)
            measured = (sides[0] - sides[1]) / (2 * step)
            grad = torch.zeros_like(w) if w.grad is None else w.grad
            expected = float((grad * direction).sum())
            scale = max(float(grad.norm()), abs(measured), abs(value()) * 1e-9 / step, 1e-12)
            found.append({"name": name, "difference": abs(measured - expected) / scale})
    finally:
        randomness.load_state_dict(random)
    wrong = [one["name"] for one in found if one["difference"] > WRONG]
    return {"differences": found, "wrong": wrong}


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
