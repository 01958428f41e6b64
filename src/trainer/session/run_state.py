"""What a checkpoint holds of a run: taken from it, and put back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from trainer import randomness
from trainer.checkpoints.store import Checkpoint
from trainer.config.secrets import is_secret
from trainer.errors import UsageError, refusal
from trainer.files.plain_json import has_shape
from trainer.training.build import Built, optimizer_like
from trainer.training.loop import Learner


class RunState(TypedDict):
    """All that a run needs besides its weights to go on with the same bits."""

    state: dict[str, Any]
    epoch: int
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    watched: list[str | None]
    generators: dict[str, Any]
    metrics_bytes: int


def snapshot(run: Learner, metrics_bytes: int) -> RunState:
    """Return what a checkpoint of a run holds besides the weights."""
    return {
        "state": run.state.state_dict(),
        "epoch": run.epoch,
        "loss": run.loss.state_dict(),
        "optimizer": _without_secrets(run.optimizer.state_dict()),
        "schedule": run.schedule.state_dict(),
        "watched": [run.monitor, run.mode],
        "generators": run.random(),
        "metrics_bytes": metrics_bytes,
    }


def _without_secrets(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state without settings that are secrets; they come from the configuration again."""
    groups = [{k: value for k, value in group.items() if not is_secret(str(k))} for group in optimizer["param_groups"]]
    return {**optimizer, "param_groups": groups}


def require_length(built: Built, step: int) -> None:
    """Refuse settings that end a run before the step it has reached."""
    settings, steps = built.settings, built.run.steps
    if steps < step:
        what = f"steps={steps}" if settings.epochs is None else f"epochs={settings.epochs} ({steps:,} steps)"
        raise refusal(what, f"the run has done {step:,} steps already", f"steps={step} or more")


def put_back(built: Built, found: Checkpoint, announce: Callable[[str], None]) -> None:
    """Set the parts of a run to a checkpoint.

    Raises:
        UsageError: It is that of other parts.
    """
    run, saved = built.run, found.training
    length = saved.get("metrics_bytes")
    whole = has_shape(RunState)(saved) and type(length) is int and length >= 0
    if not whole or saved["state"].get("step") != found.step:
        raise UsageError(f"{found.path} does not hold what a checkpoint must")
    load_weights(run.model, found.weights, str(found.path))
    try:
        run.loss.load_state_dict(saved["loss"])
        load_optimizer(built, saved["optimizer"], announce)
        run.state.load_state_dict(saved["state"])
        if saved["watched"] == [run.monitor, run.mode]:
            run.schedule.load_state_dict(saved["schedule"])
        else:  # the values of another metric can't be compared
            run.state.best_step, run.state.best_value, run.state.stale = None, None, 0
        randomness.load_state_dict(saved["generators"])
    except (LookupError, ArithmeticError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{found.path} does not fit this run: {type(error).__name__}: {reason}") from error


def load_optimizer(built: Built, saved: dict[str, Any], announce: Callable[[str], None]) -> None:
    """Set the optimizer to a saved state; its settings stay those of the configuration.

    One that now keeps more of a weight than was saved (amsgrad switched on, say) starts afresh.
    """
    optimizer, fresh = built.run.optimizer, [dict(group) for group in built.run.optimizer.param_groups]
    typed = {key for key in built.settings.optim if key != "_target_"}
    pairs = list(zip(saved["param_groups"], fresh, strict=True))
    changed = any(old.get(key) != new.get(key) for old, new in pairs for key in typed - {"lr"})
    if changed and (lacking := _lacking(built, saved)):
        announce(f"warning: the optimizer starts afresh: the checkpoint lacks its {', '.join(sorted(lacking))}")
        return
    optimizer.load_state_dict(saved)
    for group, new in zip(optimizer.param_groups, fresh, strict=True):
        group.update({key: new[key] for key in new if key in typed or key not in group or key == "initial_lr"})
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    for index, kept in saved["state"].items():
        optimizer.state[weights[index]] = _in_saved_dtypes(optimizer.state[weights[index]], kept)


def _lacking(built: Built, saved: dict[str, Any]) -> set[str]:
    """Return what the optimizer keeps of the weights after a step and `saved` has not kept."""
    trial = optimizer_like(built, copy.deepcopy(built.run.model))
    weights = [w for group in trial.param_groups for w in group["params"]]
    for w in weights:
        w.grad = torch.zeros_like(w)
    with randomness.isolated(0):
        trial.step(lambda: 0.0)
    kept = {index: state.keys() for index, state in saved["state"].items() if state}
    return {str(key) for index, keys in kept.items() for key in trial.state[weights[index]].keys() - keys}


def _in_saved_dtypes(loaded: Any, saved: Any) -> Any:
    """Return loaded optimizer state in the dtypes it was saved in.

    torch casts it to those of the weights, and what is kept in float32 beside float64 weights would go on otherwise.
    """
    if isinstance(loaded, Tensor) and isinstance(saved, Tensor):
        return saved.to(loaded.device)
    if isinstance(loaded, dict) and isinstance(saved, dict):
        return {key: _in_saved_dtypes(value, saved.get(key)) for key, value in loaded.items()}
    if isinstance(loaded, list) and isinstance(saved, list):
        return [_in_saved_dtypes(one, value) for one, value in zip(loaded, saved, strict=True)]
    return loaded


def load_weights(model: nn.Module, weights: dict[str, Any], what: str) -> None:
    """Load a state_dict whose names and shapes must be the model's.

    Raises:
        UsageError: They differ; names the first that do.
    """
    own = model.state_dict()
    for name in [*own, *weights]:
        if name not in weights or name not in own:
            side = "the model" if name in weights else "the checkpoint"
            raise UsageError(f"{what}: other weights than the model's: {name}: {side} lacks it")
        there, here = weights[name], own[name]
        if isinstance(here, Tensor) and (not isinstance(there, Tensor) or here.shape != there.shape):
            found = list(there.shape) if isinstance(there, Tensor) else type(there).__name__
            raise UsageError(
                f"{what}: other weights than the model's: {name}: {found} in the checkpoint,"
                f" {list(here.shape)} in the model"
            )
    model.load_state_dict(weights)
