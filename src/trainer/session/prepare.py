"""Prepares a run for training: builds its parts, tries a step on a copy, and writes its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import secrets as redact
from trainer.config.settings import Settings
from trainer.data import Preprocess
from trainer.errors import UsageError
from trainer.files.sums import sum_of
from trainer.runs import find, user_code, vouching
from trainer.runs.directory import Contents, RunDirectory
from trainer.runs.user_code import OwnCode
from trainer.session import bounds
from trainer.session.restore import start_from
from trainer.session.status_writer import first_status, preprocess_of
from trainer.session.trial_step import try_out
from trainer.training.build import Built, build, resolved


@dataclass(frozen=True)
class Plan(Contents):
    """The first files of a new run, whose settings have been checked."""

    def write(self, path: Path) -> RunDirectory:
        """Create the run directory."""
        rundir = RunDirectory(path)
        rundir.create(self)
        return rundir

    def fill(self, path: Path) -> None:
        """Write the files into a directory that no other process uses."""
        RunDirectory(path).fill(self)

    @property
    def own_code(self) -> OwnCode | None:
        """The code the run executes besides trainer and its dependencies."""
        return user_code.of_configs([self.config], self.code)


def prepare(settings: Settings, choices: dict[str, str], objects: Mapping[str, Any] | None = None) -> Built:
    """Build the parts of a new run and try a step on a copy.

    Args:
        settings: The run's settings.
        choices: The option selected from each group.
        objects: Parts passed as Python objects, by group.

    Raises:
        UsageError: A setting is wrong, or the parts do not work together.
    """
    redact.require_given(settings.to_dict())
    built = build(settings, choices, objects=objects)
    try_out(built)
    if settings.init_from is not None:
        # Its path, because `last` names this run as soon as it is written.
        source = str(find.find(settings.init_from))
        built.settings = dataclasses.replace(built.settings, init_from=source)
        start_from(built.run.model, source)
    return built


def rebuild(
    rundir: RunDirectory,
    settings: Settings,
    choices: dict[str, str] | None = None,
    objects: Mapping[str, Any] | None = None,
) -> Built:
    """Build the parts of an existing run, with its saved preprocessing unless the settings select other data.

    Args:
        rundir: The run's directory.
        settings: Its settings, old or changed.
        choices: The option selected from each group.
        objects: Parts passed as Python objects, by group.
    """
    redact.require_given(settings.to_dict())
    kept = kept_preprocess(rundir) if vouching.same_data(rundir, settings) else None
    return build(settings, choices, kept, objects)


def kept_preprocess(rundir: RunDirectory) -> Preprocess | None:
    """Return the saved preprocessing of a run, None if there is none.

    Raises:
        UsageError: preprocess.json can't be read.
    """
    kept = rundir.read_preprocess()
    try:
        return None if kept is None else Preprocess.from_json(kept)
    except ValueError as error:
        raise UsageError(f"{rundir.path / 'preprocess.json'} {error}") from error


def plan_of(built: Built, status: dict[str, Any], threads: int | None = None) -> Plan:
    """Return the first files of a new run.

    Args:
        built: The run.
        status: Further fields of status.json, such as `choices`.
        threads: CPU threads unless the settings name a number; None means torch's default.
    """
    config, code = redact.tree(resolved(built, threads).to_dict()), user_code.used(built.settings)
    bounds.require_code(code)
    preprocess = preprocess_of(built)
    sums = {"config": sum_of(config), "preprocess": vouching.sum_of_preprocess(preprocess)}
    first = {**first_status(built), "config": config, "sums": sums, "code": user_code.sums(code), **status}
    first["choices"] = {**status.get("choices", {}), **built.choices}
    bounds.require_files(config, first, preprocess)
    return Plan(config, first, code, preprocess)


def replace_settings(
    rundir: RunDirectory, write_status: Callable[[], None], config: dict[str, Any], preprocess: dict[str, Any] | None
) -> None:
    """Replace config.yaml and preprocess.json of a run that continues with other settings.

    A kill between two writes leaves a run that can be resumed: status.json is written first because it holds the old
    and the new sums of both files. The old preprocess.json is deleted before the new configuration is written, so that
    the two always match; a missing one is recomputed from the data.

    Args:
        rundir: The run's directory.
        write_status: Writes status.json.
        config: The new configuration.
        preprocess: The new preprocessing; None keeps the old one.
    """
    write_status()
    is_other = preprocess is not None and rundir.read_preprocess() != preprocess
    if is_other:
        rundir.remove_preprocess()
    rundir.write_config(config)
    if is_other:
        rundir.write_preprocess(preprocess)
