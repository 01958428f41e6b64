"""Continues a run in its own directory, with the settings that the user changes now."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.checkpoints import manifest
from trainer.config import secrets as redact
from trainer.config import settings
from trainer.config.settings import COMPONENTS, REFUSED, Change, Settings, differences, flat
from trainer.errors import TrainerError, nearest, refusal
from trainer.runs import directory, user_code, vouching
from trainer.runs.directory import RunDirectory
from trainer.runs.open import require_unedited
from trainer.runs.user_code import Opened, OwnCode
from trainer.text import show

if TYPE_CHECKING:
    from trainer.config.compose import JobConfig
    from trainer.launch.start import Begun
    from trainer.session.display import Standing

AUTO_LOSS = "trainer.losses.Auto"  # stands for the loss that fits the target


class ChangedJob(NamedTuple):
    """A job of a sweep with what its files become."""

    rundir: RunDirectory
    config: dict[str, Any]
    status: dict[str, Any]
    sources: dict[str, bytes]
    changes: list[Change]
    is_other_data: bool

    def trusted(self, opened: Opened) -> list[str]:
        """Let the user's list have what the job becomes, which the user has typed; return remarks on that."""
        before = opened.code.get(self.rundir.path)
        sources = user_code.to_keep(self.sources, before)
        return user_code.trust_next(self.rundir, before, self.status, sources)

    def write(self, before: OwnCode | None) -> None:
        """Write them: status.json first, as it vouches for the others; the old preprocessing is for the old data.

        Args:
            before: The job's own code as it was opened.
        """
        code = user_code.keep(self.rundir, self.sources, before)
        self.rundir.write_status({**self.status, "code": code})
        if self.is_other_data:
            self.rundir.remove_preprocess()
        self.rundir.write_config(self.config)


def changed_job(
    rundir: RunDirectory, stored: Settings, changed: Settings, chosen: dict[str, str], force: bool
) -> ChangedJob | None:
    """Return what config.yaml and status.json of a job become under changed settings.

    None if they stay as they are: nothing changes, or it is done and has nothing left to do.

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
    from trainer.session.status_writer import preprocess_of, superseded
    from trainer.session.trial_step import try_out
    from trainer.training.build import resolved

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
    config, preprocess = redact.tree(resolved(built).to_dict()), preprocess_of(built)
    sums = vouching.planned(rundir, config, preprocess)
    now = {"name": changed.name, "steps": built.run.steps, "choices": choices, "swept": swept, "config": config}
    segments = superseded(status.get("segments", []), rundir.read_config(), config)
    before = {"sums_before": status["sums"]} if status.get("sums", sums) != sums else {}
    status = {**status, "state": "waiting", **now, "sums": sums, **before, "segments": segments}
    is_other = preprocess is not None and rundir.read_preprocess() != preprocess
    return ChangedJob(rundir, config, status, user_code.used(changed), changes, is_other)


def swept_value(changed: Settings, choices: dict[str, str], key: str, before: str) -> str:
    """Return what a swept key is now."""
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
    """Return composed settings in which null stands for what it stood for when the run was started.

    A default that the option has got since is left out, and the default of optim.fused is off where it was.
    """
    composed = job.settings
    filled = {name: getattr(stored, name) for name in ("steps", "batch_size") if getattr(composed, name) is None}
    if composed.epochs is not None:
        filled.pop("steps", None)
    if stored.init_from is not None and composed.init_from in ("best", "last", stored.init_from):
        filled["init_from"] = stored.init_from  # what these words meant then
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


def go_on(
    rundir: RunDirectory,
    stored: Settings,
    changed: Settings,
    chosen: dict[str, str],
    command: str,
    overrides: list[str],
    force: bool,
) -> int:
    """Continue a run under changed settings.

    Args:
        rundir: The run's directory.
        stored: The settings it has had.
        changed: Those that it goes on with.
        chosen: What the command selects from the groups.
        command: What the user typed, for the record.
        overrides: The settings that the user typed, for the record.
        force: Whether to make changes that make it another run, and to start over if no checkpoint is good.

    Raises:
        UsageError: A change would make it another run, or leaves nothing to do.
    """
    from trainer.terminal import run_screen, screen

    continued = continuation(rundir, stored, changed, chosen, force)
    if continued.is_complete:
        from trainer.session.logger_repair import repair

        repair(rundir, stored, command, screen.note)
        run_screen.complete(rundir)
        return 0
    from trainer.launch.start import follow

    with screen.busy("preparing"):
        begun = continued.begin(command)
    return follow(begun, command, overrides, force).exit_code


@dataclass(frozen=True)
class Continuation:
    """A run that is about to go on: where it stands, what it goes on with, and what of that has changed."""

    rundir: RunDirectory
    status: dict[str, Any]
    settings: Settings
    choices: dict[str, str]
    changes: list[Change]
    force: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.status.get("state") == "done" and not self.changes and is_whole(self.rundir)

    def begin(self, command: str, objects: Mapping[str, Any] | None = None) -> Begun:
        """Check what the run goes on with.

        Args:
            command: What the user typed, for whoever finds the run in use.
            objects: Parts that are there already, by group.
        """
        from trainer.launch.start import Begun
        from trainer.session.prepare import rebuild
        from trainer.session.trial_step import try_out
        from trainer.terminal import run_screen

        if not self.is_complete:
            self.rundir.require_free()  # at once
        if not self.force:
            require_unedited(self.rundir)  # else it would be built of other parts, or refused for what these lack
        asked = {change.key for change in self.changes}
        built = rebuild(self.rundir, self.settings, self.choices, objects, asked)
        try_out(built)

        def open_screen(standing: Standing) -> None:
            run_screen.resuming(self.rundir, self.status, standing.first_step, self.changes)
            run_screen.header(built, {**self.choices, **built.choices}, self.rundir)

        return Begun(self.rundir, built, open_screen)


def continuation(
    rundir: RunDirectory, stored: Settings, changed: Settings, chosen: dict[str, str], force: bool = False
) -> Continuation:
    """Return a run that is to go on under changed settings; the arguments are those of `go_on`.

    Raises:
        UsageError: A change would make it another run.
    """
    status = rundir.read_status()
    choices = {**status.get("choices", {}), **chosen}
    changes = require_possible(rundir, stored, changed, force, choices)
    return Continuation(rundir, status, changed, choices, changes, force)


def is_whole(rundir: RunDirectory) -> bool:
    """Say whether the newest checkpoint of a run, and what the run keeps beside it, are there and as they were."""
    saved = manifest.steps(rundir.checkpoints)
    try:
        if not saved or not manifest.verify(path := rundir.checkpoints / manifest.name_of(saved[-1])):
            return False
        then = vouching.recorded(path)
        lacks = then is not None and then["preprocess"] is not None and vouching.kept(rundir)["preprocess"] is None
        return not lacks and not vouching.resume_problems(rundir, path)
    except TrainerError:
        return False


def require_possible(
    rundir: RunDirectory, stored: Settings, changed: Settings, force: bool, choices: dict[str, str]
) -> list[Change]:
    """Return the changes of a resume.

    Raises:
        UsageError: One would make it another run.
    """
    changes, known = differences(stored, changed), flat(stored.to_dict())
    for change in changes:
        if settings.resume_kind(change.key) == REFUSED and not force:
            group, _, rest = change.key.partition(".")
            what = f"{group}={choices.get(group)}" if rest == "_target_" else f"{change.key}={show(change.new)}"
            old = rundir.read_status().get("choices", {}).get(group) if rest == "_target_" else show(change.old)
            raise refusal(
                redact.words([what])[0],
                f"would make it another run (it has {old})",
                f"a new run, which may start from these weights with init_from={rundir.short}; or --force",
                None if change.key in known else nearest(change.key, known),
            )
    return changes


def resumed(settings: Settings) -> Path | None:
    """Return the run or sweep that resume=true goes on with; None if one is to begin.

    Raises:
        UsageError: The settings don't say which, or one can't look.
    """
    if not settings.resume:
        return None
    if settings.run_dir is None:
        raise refusal("resume=true", "which run? it needs run_dir", "run_dir=PATH resume=true")
    path = Path(settings.run_dir)
    try:
        return path if directory.is_run(path) else None
    except OSError as error:
        raise refusal(f"run_dir={path}", f"can't be read: {error.strerror}") from error
