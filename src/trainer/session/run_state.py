"""The state of a run in a checkpoint: taken from the run, and restored."""

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
    """Everything besides the weights that a run needs to continue with the same bits."""

    state: dict[str, Any]
    epoch: int
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    watched: list[str | None]
    generators: dict[str, Any]
    metrics_bytes: int


def snapshot(run: Learner, metrics_bytes: int) -> RunState:
    """Return the state of a run except the weights.

    Args:
        run: The run.
        metrics_bytes: The length of its metrics.jsonl.
    """
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
    """Return an optimizer's state without secret settings, which the configuration provides again."""
    groups = [{k: value for k, value in group.items() if not is_secret(str(k))} for group in optimizer["param_groups"]]
    return {**optimizer, "param_groups": groups}


def require_length(built: Built, step: int) -> None:
    """Refuse settings that would end a run before the step that it has reached.

    Raises:
        UsageError: They do.
    """
    settings, steps = built.settings, built.run.steps
    if steps < step:
        what = f"steps={steps}" if settings.epochs is None else f"epochs={settings.epochs} ({steps:,} steps)"
        raise refusal(what, f"the run has already taken {step:,} steps", f"steps={step} or more")


def put_back(built: Built, found: Checkpoint, announce: Callable[[str], None]) -> None:
    """Restore a run from a checkpoint.

    Args:
        built: The run, as built from its settings.
        found: The checkpoint.
        announce: Shows one line to the user.

    Raises:
        UsageError: The checkpoint does not fit the run.
    """
    run, saved = built.run, found.training
    length = saved.get("metrics_bytes")
    whole = has_shape(RunState)(saved) and type(length) is int and length >= 0
    if not whole or saved["state"].get("step") != found.step:
        raise UsageError(f"{found.path} is not a complete checkpoint")
    load_weights(run.model, found.weights, str(found.path))
    try:
        run.loss.load_state_dict(saved["loss"])
        load_optimizer(built, saved["optimizer"], announce)
        run.state.load_state_dict(saved["state"])
        if saved["watched"] == [run.monitor, run.mode]:
            run.schedule.load_state_dict(saved["schedule"])
        else:  # values of another metric can't be compared
            run.state.best_step, run.state.best_value, run.state.stale = None, None, 0
        randomness.load_state_dict(saved["generators"])
    except (LookupError, ArithmeticError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{found.path} does not fit this run: {type(error).__name__}: {reason}") from error


def load_optimizer(built: Built, saved: dict[str, Any], announce: Callable[[str], None]) -> None:
    """Restore the optimizer's state; its settings stay those of the configuration.

    If changed settings make it keep more state than was saved, such as amsgrad, its state is reset.
    """
    optimizer, fresh = built.run.optimizer, [dict(group) for group in built.run.optimizer.param_groups]
    typed = {key for key in built.settings.optim if key != "_target_"}
    pairs = list(zip(saved["param_groups"], fresh, strict=True))
    changed = any(old.get(key) != new.get(key) for old, new in pairs for key in typed - {"lr"})
    if changed and (missing := _missing(built, saved)):
        announce(f"warning: optimizer state reset: the checkpoint has no {', '.join(sorted(missing))}")
        return
    optimizer.load_state_dict(saved)
    for group, new in zip(optimizer.param_groups, fresh, strict=True):
        group.update({key: new[key] for key in new if key in typed or key not in group or key == "initial_lr"})
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    for index, kept in saved["state"].items():
        optimizer.state[weights[index]] = _in_saved_dtypes(optimizer.state[weights[index]], kept)


def _missing(built: Built, saved: dict[str, Any]) -> set[str]:
    """Return the names of the optimizer state of a weight that exist after a step but are missing in `saved`."""
    trial = optimizer_like(built, copy.deepcopy(built.run.model))
    weights = [w for group in trial.param_groups for w in group["params"]]
    for w in weights:
        w.grad = torch.zeros_like(w)
    with randomness.isolated(0):
        trial.step(lambda: 0.0)
    kept = {index: state.keys() for index, state in saved["state"].items() if state}
    return {str(key) for index, keys in kept.items() for key in trial.state[weights[index]].keys() - keys}


def _in_saved_dtypes(loaded: Any, saved: Any) -> Any:
    """Return loaded optimizer state in its saved dtypes; torch casts it to those of the weights, which may differ."""
    if isinstance(loaded, Tensor) and isinstance(saved, Tensor):
        return saved.to(loaded.device)
    if isinstance(loaded, dict) and isinstance(saved, dict):
        return {key: _in_saved_dtypes(value, saved.get(key)) for key, value in loaded.items()}
    if isinstance(loaded, list) and isinstance(saved, list):
        return [_in_saved_dtypes(one, value) for one, value in zip(loaded, saved, strict=True)]
    return loaded


def load_weights(model: nn.Module, weights: dict[str, Any], what: str) -> None:
    """Load a state_dict into a model with the same names and shapes.

    Args:
        model: The model.
        weights: The state_dict.
        what: Its source, for the message.

    Raises:
        UsageError: A name or a shape differs; names the first one.
    """
    own = model.state_dict()
    for name in [*own, *weights]:
        if name not in weights or name not in own:
            side = "the model" if name in weights else "the checkpoint"
            raise UsageError(f"{what}: the weights do not fit the model: {name} is missing in {side}")
        there, here = weights[name], own[name]
        if isinstance(here, Tensor) and (not isinstance(there, Tensor) or here.shape != there.shape):
            found = list(there.shape) if isinstance(there, Tensor) else type(there).__name__
            raise UsageError(
                f"{what}: the weights do not fit the model: {name}: {found} in the checkpoint,"
                f" {list(here.shape)} in the model"
            )
    model.load_state_dict(weights)
