"""What one may type next, made for how a run ended. Without torch."""

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
    """Return commands, each with what it does, after a run that ended well.

    Args:
        reason: complete, patience or stopped.
        rundir: The run's directory.
        status: What its status.json says.
    """
    settings = _settings(status)
    if reason == "stopped":
        return {_resume(rundir, settings): "go on"}
    commands, is_ours = {}, not _handed_over(settings)  # what is of objects can only be built by Python code again
    if is_ours and (status.get("rows") or {}).get("validation"):
        commands[f"trainer eval {shlex.quote(rundir.short)}"] = "see how good it is"
    if any(section["_target_"] == TENSORBOARD for section in settings.logger.values()):
        commands[f"tensorboard --logdir {shlex.quote(str(rundir.tensorboard))}"] = "see its curves in a browser"
    commands.update(longer(reason, rundir, status))
    if is_ours and re.fullmatch(r"[\w./-]+", rundir.short, re.ASCII):  # others would have to be quoted for Hydra too
        words = {**typed(status), "init_from": rundir.short, **_again(settings)}
        commands[_run(words)] = "start anew from its weights"
    return commands


def longer(reason: str, rundir: RunDirectory, status: Mapping[str, Any]) -> dict[str, str]:
    """Return the command that goes on with a run that ended well, with what it does.

    Args:
        reason: complete or patience.
        rundir: The run's directory.
        status: What its status.json says.
    """
    settings = _settings(status)
    if reason == "patience" and settings.patience:
        return {_resume(rundir, settings, patience=2 * settings.patience): "be more patient"}
    if settings.epochs:
        return {_resume(rundir, settings, epochs=2 * settings.epochs): "go on longer"}
    return {_resume(rundir, settings, steps=2 * status.get("steps", 500)): "go on longer"}


def after(state: str, rundir: RunDirectory, status: Mapping[str, Any]) -> dict[str, str]:
    """Return commands, each with what it does, for a run that stands in its directory.

    Args:
        state: Its state; interrupted if it is running and nobody trains it.
        rundir: Its directory.
        status: What its status.json says.
    """
    if state == "failed":
        return after_failure(rundir, status)
    if state == "done":
        patience = status.get("step", 0) < status.get("steps", 0)
        return after_end("patience" if patience else "complete", rundir, status)
    return {} if state == "running" else after_end("stopped", rundir, status)


def after_failure(rundir: RunDirectory, status: Mapping[str, Any]) -> dict[str, str]:
    """Return commands, each with what it does, after a run that failed.

    Args:
        rundir: The run's directory.
        status: What its status.json says.
    """
    settings, diagnosis = _settings(status), status.get("diagnosis")
    lr, told = settings.optim.get("lr"), [one["words"] for one in (diagnosis or {}).get("helps") or []]
    helps = [words for words in told if all(may_be_typed(key, value) for key, value in words.items())]
    commands, how = {}, ""
    if manifest.steps(rundir.failure):
        commands[f"trainer inspect {shlex.quote(rundir.short)}"] = "look at the step it failed at"
    if "no minimum" in (status.get("error") or ""):
        return {**commands, "trainer list loss": "choose a loss that has one"}
    if helps:
        how = " with what was measured to help"
    elif diagnosis is not None and "helps" not in diagnosis and isinstance(lr, int | float) and lr:  # not tried out
        helps, how = [{"optim.lr": f"{lr / 10:g}"}], " with a smaller learning rate"
    saved = manifest.steps(rundir.checkpoints)
    change = helps[0] if helps else {}
    is_late = helps and (diagnosis or {}).get("from_step") == 0  # what helps from the start may not help from there
    if saved and not is_late and (change or not recurs(status)):
        commands[_resume(rundir, settings, **change)] = f"go on from step {max(saved):,}{how}"
    if (helps or not (saved or recurs(status))) and not _handed_over(settings):
        commands[_run({**typed(status), **change})] = f"start again{how}"
    return commands


def recurs(status: Mapping[str, Any]) -> bool:
    """Say whether what a run failed for would come again if it went on unchanged."""
    return status.get("diagnosis") is not None


def findings(diagnosis: Mapping[str, Any]) -> dict[str, str]:
    """Return in words what was found out about why a run failed."""
    lines = {}
    if history := diagnosis.get("history"):
        norms = [f"{one['norm']:.3g} at step {one['step']:,}" for one in history if one["norm"] is not None]
        lines.update({"norms": f"of the gradients: {', '.join(norms)}"} if norms else {})
    if problem := diagnosis.get("problem"):
        lines["not found out"] = problem
    if where := diagnosis.get("where"):
        lines["where"] = f"step {diagnosis['step']:,}: {where}"
    for name, one in zip(("helps", "or", "or else"), diagnosis.get("helps") or [], strict=False):
        lines[name] = f"{one['text']}, as was tried"
    return lines


def _settings(status: Mapping[str, Any]) -> Settings:
    """Return the settings that a status.json repeats; the defaults where it has none that are right."""
    try:
        return check(status.get("config") or {})
    except UsageError:
        return Settings()


def _handed_over(settings: Settings) -> list[str]:
    """Return the groups whose parts were handed to `fit` as objects."""
    return [group for group in COMPONENTS if OBJECT in getattr(settings, group)]


def _resume(rundir: RunDirectory, settings: Settings, **changes: Any) -> str:
    words = {**_again(settings), **changes}
    if objects := _handed_over(settings):
        named = [f"{key}={value}".replace(".", "__", key.count(".")) for key, value in words.items()]
        return f"fit({', '.join([*(f'{group}=...' for group in objects), f'resume={rundir.short!r}', *named])})"
    return shlex.join(["trainer", "resume", rundir.short, *(f"{key}={value}" for key, value in words.items())])


def _again(settings: Settings) -> dict[str, str]:
    """Return what stands for the secrets of a run, which are not kept."""
    return dict.fromkeys((key for key, _ in secrets(settings.to_dict())), "...")


def _run(words: dict[str, str]) -> str:
    return shlex.join(["trainer", "run", *(f"{key}={value}" for key, value in words.items())])
