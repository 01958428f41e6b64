"""Builds the optimizer of a run, with torch's fused kernel where that can update the weights."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from trainer.config.settings import Settings
from trainer.errors import refusal
from trainer.training.instantiate import construct

_KERNELS = ("fused", "foreach")  # settings that choose how torch updates the weights


def build_optimizer(
    cls: type[torch.optim.Optimizer], arguments: dict[str, Any], model: nn.Module, names: dict[str, str]
) -> torch.optim.Optimizer:
    """Build the optimizer of the model's trainable parameters.

    Raises:
        UsageError: The model has none, or the optimizer refuses them.
    """
    parameters = trainable(model)
    if not parameters:
        raise refusal(names["model"], "has no parameters to train")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = f"{names['model']} {names['optim']}"
        optimizer = construct("optim", cls, {"params": parameters, **arguments}, name)
    return require_optimizer(optimizer, model, names)


def require_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, names: dict[str, str]
) -> torch.optim.Optimizer:
    """Return the optimizer, prepared for the loop.

    Raises:
        UsageError: It has no learning rate, or it optimizes weights of another model.
    """
    weights = {id(p) for p in model.parameters()}
    if any(id(p) not in weights for group in optimizer.param_groups for p in group["params"]):
        raise refusal(names["optim"], "optimizes weights that don't belong to the given model")
    for group in optimizer.param_groups:
        if group.get("lr") is None:
            raise refusal(names["optim"], "its param_groups have no lr for the schedule to set")
        group.setdefault("initial_lr", group.get("lr"))
    return optimizer


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that an optimizer may change."""
    return [p for p in model.parameters() if p.requires_grad]


def without_unused_kernel(
    settings: Settings, cls: type[torch.optim.Optimizer], model: nn.Module, asked: Collection[str]
) -> Settings:
    """Return the settings with optim.fused=false where the kernel can't update the weights and nobody asked for it.

    Args:
        settings: The settings.
        cls: The class of the optimizer.
        model: The model.
        asked: Dotted keys of the settings that the user asks for.

    Raises:
        UsageError: The user asks for a kernel that would not be used.
    """
    for key in _KERNELS:
        if settings.compile is not None and settings.optim.get(key) and f"optim.{key}" in asked:
            what = f"optim.{key}=true compile={settings.compile}"
            raise refusal(what, "compiled steps contain an update of their own", "one of them")
    why = _why_not_fused(settings, cls, model) if settings.optim.get("fused") else None
    if why is None:
        return settings
    if "optim.fused" in asked:
        raise refusal("optim.fused=true", why, "optim.fused=false")
    return dataclasses.replace(settings, optim={**settings.optim, "fused": False})


def _why_not_fused(settings: Settings, cls: type[torch.optim.Optimizer], model: nn.Module) -> str | None:
    """Return why torch's fused kernel is not used for these weights; None if it is."""
    parameters = trainable(model)
    for key in ("foreach", "differentiable"):
        if settings.optim.get(key):
            return f"torch has no such kernel with optim.{key}=true"
    if any(p.dtype == torch.bfloat16 for p in parameters):
        return "torch's kernel loses small updates in bfloat16 and differs from one time to the next"
    if not all(p.is_floating_point() for p in parameters):
        return "torch's kernel takes no complex numbers"
    if not all(p.is_contiguous() for p in parameters):
        return "torch's kernel needs weights that are contiguous in memory"
    if any(getattr(module, "sparse", False) for module in model.modules()):
        return "torch's kernel takes no sparse gradients"
    if issubclass(cls, torch.optim.Adagrad) and not all(p.is_cpu for p in parameters):
        return "torch's kernel of Adagrad runs on the CPU alone"
    return None
