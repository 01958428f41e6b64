"""A job before it is trained: built, tried on a copy, and what its directory starts with."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import secrets as redact
from trainer.config.settings import Settings
from trainer.data import Preprocess
from trainer.errors import UsageError
from trainer.files.sums import sum_of
from trainer.runs import find, user_code, vouching
from trainer.runs.directory import RunDirectory
from trainer.runs.user_code import OwnCode
from trainer.session import bounds
from trainer.session.restore import start_from
from trainer.session.status_writer import first_status, preprocess_of
from trainer.session.trial_step import try_out
from trainer.training.build import Built, build, resolved


@dataclass(frozen=True)
class Plan:
    """A job that has been checked: what its directory starts with."""

    config: dict[str, Any]
    status: dict[str, Any]
    code: dict[str, bytes]
    preprocess: dict[str, Any] | None

    def write(self, path: Path) -> RunDirectory:
        """Create the directory of the run, waiting to be trained."""
        rundir = RunDirectory(path)
        rundir.create(*self._content(path))
        return rundir

    def fill(self, path: Path) -> None:
        """Write the same into a directory that no other process knows of."""
        RunDirectory(path).fill(*self._content(path))

    @property
    def own_code(self) -> OwnCode | None:
        """What it would execute beyond trainer and torch."""
        return user_code.of_configs([self.config], self.code)

    def _content(self, path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes], dict[str, Any] | None]:
        return self.config, {"id": path.name, **self.status}, self.code, self.preprocess


def prepare(
    settings: Settings,
    choices: dict[str, str],
    objects: Mapping[str, Any] | None = None,
    asked: Collection[str] = (),
) -> Built:
    """Build a new job and try a step on a copy: whatever can be known to be wrong is refused here.

    Args:
        settings: The job's configuration.
        choices: What the groups select.
        objects: Parts that are there already, by group.
        asked: Dotted keys of the settings that the user asks for.
    """
    redact.require_given(settings.to_dict())
    built = build(settings, choices, objects=objects, asked=asked)
    try_out(built)
    if settings.init_from is not None:
        # By its path: `last` means another run as soon as this one is written.
        source = str(find.find(settings.init_from))
        built.settings = dataclasses.replace(built.settings, init_from=source)
        start_from(built.run.model, source)
    return built


def rebuild(
    rundir: RunDirectory,
    settings: Settings,
    choices: dict[str, str] | None = None,
    objects: Mapping[str, Any] | None = None,
    asked: Collection[str] = (),
) -> Built:
    """Build the parts of an existing run, whose data are prepared as they were unless they are to be others.

    Args:
        rundir: The run's directory.
        settings: Its configuration, or what it is changed to.
        choices: What the groups select.
        objects: Parts that are there already, by group.
        asked: Dotted keys of the settings that the user changes.
    """
    redact.require_given(settings.to_dict())
    kept = kept_preprocess(rundir) if vouching.same_data(rundir, settings) else None
    return build(settings, choices, kept, objects, asked)


def kept_preprocess(rundir: RunDirectory) -> Preprocess | None:
    """Return how a run's data are prepared, None where nothing was kept.

    Raises:
        UsageError: The file of it can't be read.
    """
    kept = rundir.read_preprocess()
    try:
        return None if kept is None else Preprocess.from_json(kept)
    except ValueError as error:
        raise UsageError(f"{rundir.path / 'preprocess.json'} {error}") from error


def plan(settings: Settings, status: dict[str, Any], threads: int | None = None, asked: Collection[str] = ()) -> Plan:
    """Check a job by building it, and keep what its directory will hold.

    Args:
        settings: The job's configuration.
        status: Further fields of status.json, `choices` among them.
        threads: CPU threads unless the settings name them; None is torch's own choice.
        asked: Dotted keys of the settings that the user asks for.
    """
    return plan_of(prepare(settings, status["choices"], asked=asked), status, threads)


def plan_of(built: Built, status: dict[str, Any], threads: int | None = None) -> Plan:
    """Return the plan of a job that has been built already."""
    config, code = redact.tree(resolved(built, threads).to_dict()), user_code.used(built.settings)
    bounds.require_code(code)
    preprocess = preprocess_of(built)
    sums = {"config": sum_of(config), "preprocess": vouching.sum_of_preprocess(preprocess)}
    first = {**first_status(built), "config": config, "sums": sums, "code": user_code.sums(code), **status}
    first["choices"] = {**status.get("choices", {}), **built.choices}
    bounds.require_files(config, first, preprocess)
    return Plan(config, first, code, preprocess)
