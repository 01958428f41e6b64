"""Suggests the commands to type next, depending on how a run ended. Without torch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from trainer.checkpoints import manifest
from trainer.config.secrets import secrets
from trainer.config.settings import COMPONENTS, OBJECT, Settings, check
from trainer.errors import UsageError
from trainer.runs.directory import RunDirectory
from trainer.runs.entries import may_be_typed, typed

TENSORBOARD = "trainer.loggers.TensorBoard"


def after_end(reason: str, rundir: RunDirectory, status: Mapping[str, Any]) -> dict[str, str]:
    """Return the commands to type after a run that ended well, each with its purpose.

    Args:
        reason: complete, patience or stopped.
        rundir: The run's directory.
        status: The content of its status.json.
    """
    settings = _settings(status)
    if reason == "stopped":
        return {_resume(rundir, settings): "resume"}
    commands, is_ours = {}, not _objects(settings)  # a run made from objects can be rebuilt only by Python code
    if is_ours and (status.get("rows") or {}).get("validation"):
        commands[f"trainer eval {shlex.quote(rundir.short)}"] = "evaluate"
    if any(section["_target_"] == TENSORBOARD for section in settings.logger.values()):
        commands[f"tensorboard --logdir {shlex.quote(str(rundir.tensorboard))}"] = "see its curves in a browser"
    commands.update(longer(reason, rundir, status))
    if is_ours and re.fullmatch(r"[\w./-]+", rundir.short, re.ASCII):  # other names need quotes for Hydra, too
        words = {**typed(status), "init_from": rundir.short, **_secrets(settings)}
        commands[_run(words)] = "start a new run from these weights"
    return commands


def longer(reason: str, rundir: RunDirectory, status: Mapping[str, Any]) -> dict[str, str]:
    """Return the command that trains a finished run longer, with its purpose.

    Args:
        reason: complete or patience.
        rundir: The run's directory.
        status: The content of its status.json.
    """
    settings = _settings(status)
    if reason == "patience" and settings.patience:
        return {_resume(rundir, settings, patience=2 * settings.patience): "train longer, with more patience"}
    if settings.epochs:
        return {_resume(rundir, settings, epochs=2 * settings.epochs): "train longer"}
    return {_resume(rundir, settings, steps=2 * status.get("steps", 500)): "train longer"}


def after(state: str, rundir: RunDirectory, status: Mapping[str, Any]) -> dict[str, str]:
    """Return the commands to type for a saved run, each with its purpose.

    Args:
        state: Its state; interrupted if its status says running but no process trains it.
        rundir: Its directory.
        status: The content of its status.json.
    """
    if state == "failed":
        return after_failure(rundir, status)
    if state == "done":
        patience = status.get("step", 0) < status.get("steps", 0)
        return after_end("patience" if patience else "complete", rundir, status)
    return {} if state == "running" else after_end("stopped", rundir, status)


def after_failure(rundir: RunDirectory, status: Mapping[str, Any]) -> dict[str, str]:
    """Return the commands to type after a run that failed, each with its purpose.

    Args:
        rundir: The run's directory.
        status: The content of its status.json.
    """
    settings, diagnosis = _settings(status), status.get("diagnosis")
    lr, tried = settings.optim.get("lr"), [one["words"] for one in (diagnosis or {}).get("helps") or []]
    helps = [words for words in tried if all(may_be_typed(key, value) for key, value in words.items())]
    commands, how = {}, ""
    if manifest.steps(rundir.failure):
        commands[f"trainer inspect {shlex.quote(rundir.short)}"] = "inspect the failing step"
    if "no minimum" in (status.get("error") or ""):
        return {**commands, "trainer list loss": "choose a loss with a minimum"}
    if helps:
        how = " with the fix that worked"
    elif diagnosis is not None and "helps" not in diagnosis and isinstance(lr, int | float) and lr:  # no fix was tried
        helps, how = [{"optim.lr": f"{lr / 10:g}"}], " with a smaller learning rate"
    saved = manifest.steps(rundir.checkpoints)
    change = helps[0] if helps else {}
    is_late = helps and (diagnosis or {}).get("from_step") == 0  # a fix from the start may not work at the checkpoint
    if saved and not is_late and (change or not recurs(status)):
        commands[_resume(rundir, settings, **change)] = f"resume from step {max(saved):,}{how}"
    if (helps or not (saved or recurs(status))) and not _objects(settings):
        commands[_run({**typed(status), **change})] = f"start again{how}"
    return commands


def recurs(status: Mapping[str, Any]) -> bool:
    """Return whether a run would fail again if it were resumed without changes."""
    return status.get("diagnosis") is not None


def findings(diagnosis: Mapping[str, Any]) -> dict[str, str]:
    """Return the diagnosis of a failed run in words, by name."""
    lines = {}
    if history := diagnosis.get("history"):
        norms = [f"{one['norm']:.3g} at step {one['step']:,}" for one in history if one["norm"] is not None]
        lines.update({"norms": f"of the gradients: {', '.join(norms)}"} if norms else {})
    if problem := diagnosis.get("problem"):
        lines["not diagnosed"] = problem
    if where := diagnosis.get("where"):
        lines["where"] = f"step {diagnosis['step']:,}: {where}"
    for name, one in zip(("fix", "or", "or else"), diagnosis.get("helps") or [], strict=False):
        lines[name] = one["text"]
    return lines


def _settings(status: Mapping[str, Any]) -> Settings:
    """Return the settings in a status.json, or the defaults if it has no valid ones."""
    try:
        return check(status.get("config") or {})
    except UsageError:
        return Settings()


def _objects(settings: Settings) -> list[str]:
    """Return the groups that were passed to `fit` as objects."""
    return [group for group in COMPONENTS if OBJECT in getattr(settings, group)]


def _resume(rundir: RunDirectory, settings: Settings, **changes: Any) -> str:
    words = {**_secrets(settings), **changes}
    if objects := _objects(settings):
        named = [f"{key}={value}".replace(".", "__", key.count(".")) for key, value in words.items()]
        return f"fit({', '.join([*(f'{group}=...' for group in objects), f'resume={rundir.short!r}', *named])})"
    return shlex.join(["trainer", "resume", rundir.short, *(f"{key}={value}" for key, value in words.items())])


def _secrets(settings: Settings) -> dict[str, str]:
    """Return placeholders for the secrets of a run, which are not saved."""
    return dict.fromkeys((key for key, _ in secrets(settings.to_dict())), "...")


def _run(words: dict[str, str]) -> str:
    return shlex.join(["trainer", "run", *(f"{key}={value}" for key, value in words.items())])
