"""Resumes a run in its directory, with or without changed settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer import quoting
from trainer.checkpoints import manifest
from trainer.config import secrets as redact
from trainer.config import settings
from trainer.config.settings import COMPONENTS, REFUSED, Change, Settings, differences, flat
from trainer.errors import TrainerError, nearest, refusal
from trainer.runs import directory, moved_files, user_code, vouching
from trainer.runs.directory import RunDirectory
from trainer.runs.open import require_unedited
from trainer.runs.user_code import OwnCode
from trainer.text import show

if TYPE_CHECKING:
    from trainer.config.compose import JobConfig
    from trainer.session.display import Display, Standing
    from trainer.session.session import Request, Session
    from trainer.training.build import Built

AUTO_LOSS = "trainer.losses.Auto"  # replaced by the loss that suits the targets


class ChangedJob(NamedTuple):
    """A job of a sweep whose settings change.

    Args:
        rundir: Its directory.
        status: The new content of status.json.
        preprocess: The new content of preprocess.json; None keeps the old one.
        sources: The user's modules that it imports, by path.
        changes: The changed settings.
    """

    rundir: RunDirectory
    status: dict[str, Any]
    preprocess: dict[str, Any] | None
    sources: dict[str, bytes]
    changes: list[Change]

    def trust(self, before: OwnCode | None) -> list[str]:
        """Add the job's new code, which the user has typed, to the trust list; return remarks for the user.

        Args:
            before: The job's custom code so far.
        """
        return user_code.trust_next(self.rundir, before, self.status, user_code.to_keep(self.sources, before))

    def write(self, before: OwnCode | None) -> None:
        """Write the new files.

        Args:
            before: The job's custom code so far.
        """
        from trainer.session.prepare import replace_settings

        status = {**self.status, "code": user_code.keep(self.rundir, self.sources, before)}
        replace_settings(self.rundir, lambda: self.rundir.write_status(status), self.status["config"], self.preprocess)


def changed_job(
    rundir: RunDirectory, stored: Settings, changed: Settings, chosen: dict[str, str], force: bool
) -> ChangedJob | None:
    """Return a job of a sweep with changed settings, None if nothing changes or the job has nothing left to do.

    Raises:
        UsageError: The changes are wrong for this job.
    """
    status = rundir.read_status()
    choices = {**status.get("choices", {}), **chosen}
    changes = require_possible(rundir, stored, changed, force, choices)
    if not changes:
        return None
    from trainer.checkpoints import store
    from trainer.session.prepare import rebuild
    from trainer.session.run_state import put_back, require_length
    from trainer.session.status_writer import preprocess_of, with_settings
    from trainer.session.trial_step import try_out

    found, _ = store.newest(rundir.checkpoints)
    vouching.require_resumable(rundir, None if found is None else found.path, force)
    built = rebuild(rundir, changed, choices, asked={change.key for change in changes})
    try_out(built)
    if found is not None:
        require_length(built, found.step)
        put_back(built, found, lambda remark: None)
    if status.get("state") == "done" and found is not None and found.step >= built.run.steps:
        return None
    swept = {key: swept_value(changed, choices, key, value) for key, value in status.get("swept", {}).items()}
    status = with_settings({**status, "state": "waiting", "choices": choices, "swept": swept}, rundir, built)
    preprocess = preprocess_of(built)
    is_same = preprocess == rundir.read_preprocess()
    return ChangedJob(rundir, status, None if is_same else preprocess, user_code.used(changed), changes)


def swept_value(changed: Settings, choices: dict[str, str], key: str, before: str) -> str:
    """Return the value of a swept setting after a change.

    Args:
        changed: The settings after the change.
        choices: The option selected from each group.
        key: The dotted key of the setting, or a group.
        before: Its value before, as typed.
    """
    if key in choices:
        return choices[key]
    if redact.is_secret(key):
        return before
    value = flat(changed.to_dict()).get(key)
    return before if value is None or show(value) == show(_number(before)) else show(value)


def _number(text: str) -> Any:
    try:
        return float(text) if "." in text or "e" in text else int(text)
    except ValueError:
        return text


def as_composed(stored: Settings, job: JobConfig) -> Settings:
    """Return composed settings in which null has the meaning that it had when the run was started.

    A default that the option lacked then is left out, and the default of optim.fused is off if it was.

    Args:
        stored: The settings the run was started with, without nulls.
        job: The job composed from the words of today's command.
    """
    composed = job.settings
    filled = {name: getattr(stored, name) for name in ("steps", "batch_size") if getattr(composed, name) is None}
    if composed.epochs is not None:
        filled.pop("steps", None)
    if stored.init_from is not None and composed.init_from in ("best", "last", stored.init_from):
        filled["init_from"] = stored.init_from  # the run that these words named at the start
    threads = composed.device.threads or stored.device.threads
    device = dataclasses.replace(composed.device, threads=threads)
    widths = {
        key: stored.model[key]
        for key in ("inputs", "outputs")
        if composed.model.get(key) is None and key in stored.model
    }
    filled["model"] = {**composed.model, **{key: width for key, width in widths.items() if width is not None}}
    if composed.loss.get("_target_") == AUTO_LOSS:
        filled["loss"] = stored.loss
    asked = {".".join(key.split(".")[:2]) for key in job.asked}
    for group in COMPONENTS:
        before, now = getattr(stored, group), filled.get(group, getattr(composed, group))
        if before.get("_target_") == now.get("_target_"):
            filled[group] = {key: now[key] for key in now if key in before or f"{group}.{key}" in asked}
    if "fused" in composed.optim and stored.optim.get("fused") is False and "optim.fused" not in job.asked:
        filled["optim"] = {**filled["optim"], "fused": False}
    return dataclasses.replace(composed, **filled, device=device, resume=False, run_dir=None)


def go_on(rundir: RunDirectory, stored: Settings, changed: Settings, chosen: dict[str, str], request: Request) -> int:
    """Resume a run, and return the exit code; the arguments are those of `continuation`.

    Raises:
        UsageError: A change would make it a different run, or leaves nothing to do.
    """
    from trainer.terminal import run_screen, screen

    continued = continuation(rundir, stored, changed, chosen, request)
    if continued.is_complete:
        from trainer.session.logger_repair import repair

        repair(rundir, changed, request.command, screen.note)  # with the secrets in the command
        run_screen.complete(rundir)
        return 0
    from trainer.launch.start import follow

    with screen.busy("preparing"):
        session = continued.begin()
    return follow(session).exit_code


@dataclass(frozen=True)
class Continuation:
    """A run that is about to be resumed.

    Args:
        rundir: Its directory.
        status: Its status so far.
        settings: The settings it continues with.
        choices: The option selected from each group.
        changes: The changed settings.
        request: What the user typed.
        is_unchanged: Whether nothing changes but the paths of data files.
    """

    rundir: RunDirectory
    status: dict[str, Any]
    settings: Settings
    choices: dict[str, str]
    changes: list[Change]
    request: Request
    is_unchanged: bool

    @cached_property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.status.get("state") == "done" and self.is_unchanged and is_whole(self.rundir)

    def begin(self, objects: Mapping[str, Any] | None = None) -> Session:
        """Build the run and try a step; nothing is written yet.

        Args:
            objects: Parts passed as Python objects, by group.
        """
        from trainer.session.session import Session
        from trainer.terminal import run_screen, screen

        if not self.is_complete:
            self.rundir.require_free()  # before the parts are built, which takes time
        built = self.build(objects)

        def show(standing: Standing) -> Display:
            run_screen.resuming(self.rundir, self.status, standing.first_step, self.changes)
            run_screen.header(built, {**self.choices, **built.choices}, self.rundir)
            return run_screen.progress(standing)

        return Session(self.rundir, built, self.request, show, screen.note)

    def build(self, objects: Mapping[str, Any] | None = None) -> Built:
        """Build the run at its beginning and try a step; takes no lock and writes nothing.

        Args:
            objects: Parts passed as Python objects, by group.
        """
        from trainer.session.prepare import rebuild
        from trainer.session.trial_step import try_out

        if not self.request.force:
            require_unedited(self.rundir)  # before an edited file causes another error
        asked = {change.key for change in self.changes}
        built = rebuild(self.rundir, self.settings, self.choices, objects, asked)
        try_out(built)
        return built


def continuation(
    rundir: RunDirectory, stored: Settings, changed: Settings, chosen: dict[str, str], request: Request
) -> Continuation:
    """Return a run that is about to be resumed.

    Args:
        rundir: The run's directory.
        stored: Its settings so far.
        changed: The settings it continues with.
        chosen: The options that the command selects from the groups.
        request: What the user typed; `force` allows changes that make it a different run.

    Raises:
        UsageError: A change would make it a different run.
    """
    status = rundir.read_status()
    choices = {**status.get("choices", {}), **chosen}
    changes = require_possible(rundir, stored, changed, request.force, choices)
    is_unchanged = {change.key for change in changes} <= _moved(rundir, stored, changed)
    return Continuation(rundir, status, changed, choices, changes, request, is_unchanged)


def is_whole(rundir: RunDirectory) -> bool:
    """Return whether the newest checkpoint of a run and the files beside it are present and unchanged."""
    saved = manifest.steps(rundir.checkpoints)
    try:
        if not saved or not manifest.verify(path := rundir.checkpoints / manifest.name_of(saved[-1])):
            return False
        recorded = vouching.recorded(path)
        is_needed = recorded is not None and recorded["preprocess"] is not None
        if is_needed and vouching.Kept(rundir).preprocess_sum is None:
            return False
        return not vouching.resume_problems(rundir, path)
    except TrainerError:
        return False


def require_possible(
    rundir: RunDirectory, stored: Settings, changed: Settings, force: bool, choices: dict[str, str]
) -> list[Change]:
    """Return the changes from one configuration to another.

    Raises:
        UsageError: A change would make it a different run; `force` allows it.
    """
    changes, known = differences(stored, changed), flat(stored.to_dict())
    moved = _moved(rundir, stored, changed)
    for change in changes:
        if settings.resume_kind(change.key) == REFUSED and not force and change.key not in moved:
            group, _, rest = change.key.partition(".")
            what = f"{group}={choices.get(group)}" if rest == "_target_" else f"{change.key}={show(change.new)}"
            again = quoting.typed("init_from", rundir.short)
            old = rundir.read_status().get("choices", {}).get(group) if rest == "_target_" else show(change.old)
            raise refusal(
                redact.words([what])[0],
                f"would make it a different run (it has {old})",
                f"a new run that starts from these weights with {again}, or --force",
                None if change.key in known else nearest(change.key, known),
            )
    return changes


def _moved(rundir: RunDirectory, stored: Settings, changed: Settings) -> set[str]:
    """Return the dotted keys that name the same data file at another path."""
    files = rundir.read_status().get("data", {}).get("files", {})
    return {f"data.{key}" for key in moved_files.moved(files, stored.data, changed.data)}


def resumed(settings: Settings) -> Path | None:
    """Return the run or sweep that `resume=true` continues; None if there is none yet.

    Raises:
        UsageError: run_dir is missing or can't be read.
    """
    if not settings.resume:
        return None
    if settings.run_dir is None:
        raise refusal("resume=true", "which run? set run_dir", "run_dir=PATH resume=true")
    path = Path(settings.run_dir)
    try:
        return path if directory.is_run(path) else None
    except OSError as error:
        raise refusal(f"run_dir={path}", f"can't be read: {error.strerror}") from error
