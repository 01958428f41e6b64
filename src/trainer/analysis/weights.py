"""Reads model and optimizer from a checkpoint, and computes the gradients of the run's next step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor

from trainer.checkpoints.store import Checkpoint
from trainer.config.settings import Settings
from trainer.data import Batch
from trainer.errors import TrainerError, UsageError
from trainer.files.plain_json import finite, has_shape
from trainer.runs.directory import RunDirectory
from trainer.session.prepare import rebuild
from trainer.session.run_state import RunState, put_back
from trainer.training.build import Built
from trainer.training.loop import Learner, NonFinite, dense, gradients, row_numbers
from trainer.training.parameters import FEW_NUMBERS


class _Optimizer(TypedDict):
    """The state_dict of an optimizer in a checkpoint."""

    state: dict[int, dict[Any, Any]]
    param_groups: list[dict[str, Any]]


def gather(found: Checkpoint, settings: Settings, choices: dict[str, str]) -> dict[str, Any]:
    """Return the parameters, their gradients and the optimizer of a run at a checkpoint, as plain data.

    The run is rebuilt in memory, with the saved random state; no file is changed.

    Args:
        found: The checkpoint.
        settings: The run's configuration.
        choices: The selected options, by group.

    Raises:
        UsageError: The checkpoint has the wrong structure.
    """
    if not has_shape(RunState)(found.training) or not has_shape(_Optimizer)(found.training["optimizer"]):
        raise UsageError(f"{found.path} does not have the structure of a checkpoint")
    tensors = {name: value for name, value in found.weights.items() if isinstance(value, Tensor)}
    small = sum(tensor.numel() for tensor in tensors.values()) <= FEW_NUMBERS
    kinds: dict[str, str] = {}
    try:
        built = built_at(found, settings, choices)
    except TrainerError as error:  # the weights can still be shown
        step: dict[str, Any] = {"problem": f"the run can't be built here: {error}"}
    else:
        kinds, step = _kinds(built), _next_step(built.run, small)
    trained = [name for name, kind in kinds.items() if kind == "parameter"]
    order = {name: place for place, name in enumerate(kinds)}
    return {
        "step": found.step,
        "parameters": [
            {"name": name, "kind": kinds.get(name, "shared" if kinds else None), **described(tensor, small)}
            for name, tensor in sorted(tensors.items(), key=lambda item: order.get(item[0], len(order)))
        ],
        "next_step": step,
        "optimizer": _optimizer(found.training["optimizer"], trained, small),
    }


def described(tensor: Tensor, whole: bool) -> dict[str, Any]:
    """Return the shape of a tensor, and all of its numbers or their statistics, as plain data.

    Args:
        tensor: The tensor.
        whole: Whether to return every number.
    """
    tensor = tensor.detach().to_dense().cpu()
    facts: dict[str, Any] = {"shape": list(tensor.shape), "numbers": tensor.numel(), "dtype": str(tensor.dtype)}
    if whole:
        return {**facts, "values": finite(tensor.tolist())}
    if not tensor.numel():
        return facts
    values = tensor.double()
    smallest, largest = values.aminmax()
    statistics = {"mean": values.mean(), "spread": values.std(correction=0), "smallest": smallest, "largest": largest}
    return {**facts, **{name: finite(float(value)) for name, value in statistics.items()}}


def step_facts(run: Learner, batches: Sequence[Batch]) -> dict[str, Any]:
    """Compute the gradients of the next step as the loop does; return its number, rows, learning rate and loss.

    If the loss or a gradient is not finite, `problem` takes the place of `loss`.
    """
    facts: dict[str, Any] = {"step": run.state.step + 1, "rows": row_numbers(batches)}
    facts["lr"] = run.schedule.lr(run.optimizer, run.state.step)
    try:
        facts["loss"] = gradients(run, batches)
    except NonFinite as error:
        facts["problem"] = str(error)
    return facts


def norm_of(run: Learner) -> float:
    """Return the norm of all gradients in float64, which does not overflow."""
    norms = [torch.linalg.vector_norm(grad, dtype=torch.float64) for grad in dense(run.weights)]
    return math.hypot(*(float(norm) for norm in norms))


def built_at(found: Checkpoint, settings: Settings, choices: dict[str, str]) -> Built:
    """Return a run rebuilt in memory, set to one of its checkpoints and ready for its next step."""
    built = rebuild(RunDirectory(found.path.parents[1]), settings, choices)
    put_back(built, found, lambda remark: None)
    built.run.model.train()
    return built


def _kinds(built: Built) -> dict[str, str]:
    """Return the kind of each name in the model's state_dict, without names that share memory with another."""
    model = built.run.model
    parameters = {name: "parameter" if p.requires_grad else "frozen" for name, p in model.named_parameters()}
    return {**parameters, **{name: "buffer" for name, _ in model.named_buffers()}}


def _next_step(run: Learner, whole: bool) -> dict[str, Any]:
    facts = step_facts(run, run.batches.at(run.state.step))
    if "problem" in facts:
        return facts
    named = ((name, p.grad) for name, p in run.model.named_parameters() if p.requires_grad)
    facts["norm"] = finite(norm_of(run))
    facts["gradients"] = [{"name": n, **({} if grad is None else described(grad, whole))} for n, grad in named]
    return facts


def _optimizer(saved: _Optimizer, names: Sequence[str], whole: bool) -> dict[str, Any]:
    """Return the settings of a saved optimizer for each parameter group, and its state for each weight."""
    groups = [{key: value for key, value in group.items() if key != "params"} for group in saved["param_groups"]]
    state = []
    for index, kept in saved["state"].items():
        weight = names[index] if index < len(names) else str(index)
        state += [{"weight": weight, "name": str(name), **_kept(value, whole)} for name, value in kept.items()]
    return {"settings": finite(groups), "state": state}


def _kept(value: Any, whole: bool) -> dict[str, Any]:
    """Return a value in the state of an optimizer as plain data: a tensor, a list of tensors, or a plain value."""
    if isinstance(value, Tensor):
        return described(value, whole or value.numel() == 1)
    tensors = [item for item in value if isinstance(item, Tensor)] if isinstance(value, list) else []
    if tensors:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        return {**described(flat, whole), "shape": [len(tensors), *tensors[0].shape]}
    return {"values": finite(value)}
