"""`trainer resume`: continues a run in its own directory, with the settings that the user changes now."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.checkpoints import manifest
from trainer.checkpoints.manifest import BadCheckpoint, NewerFormat
from trainer.config import arguments, settings
from trainer.config import secrets as redact
from trainer.config.annotations import show
from trainer.config.arguments import Words
from trainer.config.settings import HARMLESS, REFUSED, REPLANS, Change, Settings, differences, flat
from trainer.errors import TrainerError, UsageError, nearest, refusal
from trainer.files import fingerprint
from trainer.launch.launcher_words import words_of
from trainer.runs import find, user_code, vouching
from trainer.runs.directory import RunDir
from trainer.runs.user_code import Opened, OwnCode

if TYPE_CHECKING:
    from trainer.config.compose import Job
    from trainer.launch.start import Begun
    from trainer.terminal.progress import Standing

HELP = """Usage: trainer resume RUN [KEY=VALUE ...] [--force] [--trust-code]
                      [--allow-data-change]

Continues a run in its own directory from its newest checkpoint, whatever
stopped it, and ends with the same bits as if it had never stopped. Of a sweep,
finished jobs are kept, broken ones resumed and waiting ones run.

RUN is one of:
  last                    the newest run or sweep in ./runs
  kfrw                    the last four letters of an id
  20261121-231628-kfrw    an id
  kfrw/003                a job of a sweep
  results/first           a path

These settings may change; they bear on what is still to come, as do those of
optim and schedule:
{replans}

These may change and bear on nothing that is computed, and so may the loggers:
{harmless}

Any other, as another model=, data=, loss= or optim=, would make it another
run: start one with init_from=RUN, or insist with --force, which also starts
over where no checkpoint can be read any more.

A file that the data came from and that has changed since is refused, too,
unless --allow-data-change is given.

So is a run whose config.yaml, preprocess.json or metrics.jsonl has been edited
since its newest checkpoint, unless --force is given, which takes them as they
are.

A run that somebody else has made runs no code of theirs: where it uses code
of its own, it is refused until you have read that and add --trust-code, which
imports the copies that came with the run for once, or `trainer trust RUN`.

Examples:
  trainer resume last
  trainer resume kfrw steps=1000
  trainer resume kfrw optim.lr=1e-5 patience=20
"""
AUTO_LOSS = "trainer.losses.Auto"  # stands for the loss that fits the target
FLAGS = ("--force", "--trust-code", "--allow-data-change", *arguments.CONFIG_DIR_FLAGS, "--help")


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    if "-h" in argv or "--help" in argv:
        from trainer.terminal import help

        changeable = {kind: help.changeable(kind) for kind in (REPLANS, HARMLESS)}
        sys.stdout.write(HELP.format(replans=changeable[REPLANS], harmless=changeable[HARMLESS]))
        return 0
    words = arguments.split(argv, FLAGS)
    force, trust = "force" in words.flags, "trust_code" in words.flags
    if not words.overrides or ("=" in words.overrides[0] and not Path(words.overrides[0]).exists()):
        raise UsageError("resume: which run? `trainer resume last`, or a path, an id or its four letters")
    name, words.overrides = words.overrides[0], words.overrides[1:]
    command = shlex.join(["trainer", "resume", *redact.words(argv)])
    path = find.find(name)
    folders = find.jobs(path) if find.is_sweep(path) else [path]
    if "allow_data_change" not in words.flags:
        require_same_files([RunDir(folder) for folder in folders], command)
    if find.is_sweep(path):
        return go_on_with_sweep(path, words, command, force, trust)
    rundir = RunDir(path)
    config = rundir.read_config()
    stored = settings.check(config)
    opened = user_code.open_code({rundir: config}, command, trust, force)
    changed, chosen = changed_by(words, stored)
    from trainer.terminal import screen

    for module in opened.changed:
        screen.note(f"warning: {module} has changed since the run started: the same bits are not promised")
    return go_on(rundir, stored, changed, chosen, command, redact.words(words.overrides), force)


def require_same_files(rundirs: Sequence[RunDir], command: str) -> None:
    """Refuse runs whose data came from a file that has changed since.

    Raises:
        UsageError: There is one; names it and the whole command to type.
    """
    unfinished = [status for status in (rundir.read_status() for rundir in rundirs) if status.get("state") != "done"]
    for status in unfinished or [rundir.read_status() for rundir in rundirs]:
        for path in fingerprint.changed(status.get("data", {}).get("files", {})):
            reason = "has changed since the run started, so it would learn from other data"
            raise refusal(path, reason, f"`{command} --allow-data-change`, or a new run")


def changed_by(words: Words, stored: Settings) -> tuple[Settings, dict[str, str]]:
    """Return a run's settings with the words of the command applied, and what these select from the groups."""
    if not words.overrides:
        return stored, {}
    from trainer.config.compose import override

    catalog = words.catalog()
    (choice,) = arguments.jobs(words, catalog)
    return override(stored, choice, catalog), dict(word.split("=", 1) for word in choice.groups)


def go_on_with_sweep(path: Path, words: Words, command: str, force: bool, trust: bool) -> int:
    """Apply the words to every job of a sweep, then run those that are not done."""
    configs = {rundir: rundir.read_config() for rundir in map(RunDir, find.jobs(path))}
    all_stored = {rundir.path: settings.check(config) for rundir, config in configs.items()}
    opened = user_code.open_code(configs, command, trust, force)
    from trainer.launch import sweep
    from trainer.terminal import screen

    overrides, described = redact.words(words.overrides), sweep.described(path, words, command)
    words.overrides = [word for word in words.overrides if word.lstrip("+") not in words.launcher]
    for module in opened.changed:
        screen.note(f"warning: {module} has changed since the sweep started: the same bits are not promised")
    require_not_swept(path, described["swept"], words)

    def change(folder: Path) -> tuple[ChangedJob | None, dict[str, Any]]:
        try:
            stored = all_stored[folder]
            changed, chosen = changed_by(words, stored)
            if RunDir(folder).read_status().get("state") != "done":
                redact.require_given(changed.to_dict())
            return changed_job(RunDir(folder), stored, changed, chosen, force), dict(redact.secrets(changed.to_dict()))
        except UsageError as error:
            raise error.within(f"job {folder.name}") from error

    sweep.require_free(path, described)
    with RunDir(path).lock(command):
        folders = find.jobs(path)
        with sweep.launching(described):
            launcher = sweep.make_launcher(words_of(described), path)
        found = sweep.checked(launcher, change, folders)
        secrets = {folder.name: given for folder, (_, given) in zip(folders, found, strict=True)}
        plans = [plan for plan, _ in found if plan is not None]
        for folder in folders:
            RunDir(folder).require_free()  # before the first one is changed
        screen.changes(plan.changes for plan in plans)
        for remark in dict.fromkeys(remark for plan in plans for remark in plan.trusted(opened)):
            screen.note(remark)
        for plan in plans:
            with plan.rundir.lock(command):
                plan.write(opened.code.get(plan.rundir.path))
        sweep.keep_launcher(path, described)
    code = {**opened.code, **{plan.rundir.path: user_code.of_run(plan.rundir, plan.config) for plan in plans}}
    digests = {folder.name: own.digest for folder, own in code.items() if own is not None}
    return sweep.launch(path, described, command, overrides, digests, force, secrets)


def require_not_swept(path: Path, swept: Sequence[str], words: Words) -> None:
    """Refuse a word that would make jobs of a sweep alike.

    Raises:
        UsageError: It sets what the sweep varies.
    """
    for word in redact.words(words.overrides):
        if (key := word.lstrip("+").partition("=")[0]) in swept:
            one = f"`trainer resume {shlex.quote(RunDir(path).short)}/000 {word}` for one of its jobs"
            raise refusal(word, f"{key} is what the sweep varies", one)


class ChangedJob(NamedTuple):
    """A job of a sweep with what its files become."""

    rundir: RunDir
    config: dict[str, Any]
    status: dict[str, Any]
    sources: dict[str, bytes]
    changes: list[Change]
    is_other_data: bool

    def trusted(self, opened: Opened) -> list[str]:
        """Let the user's list have what the job becomes, which the user has typed; return remarks on that."""
        before = opened.code.get(self.rundir.path)
        sources = user_code.to_keep(self.sources, before)
        return user_code.trust_next(self.rundir, before, self.config, self.status["segments"], sources)

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
    rundir: RunDir, stored: Settings, changed: Settings, chosen: dict[str, str], force: bool
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
    from trainer.session.saver import put_back, require_length
    from trainer.session.status_writer import preprocess_of, superseded
    from trainer.session.train import rebuild
    from trainer.session.trial_step import try_out
    from trainer.training.build import resolved

    found, _ = store.newest(rundir.checkpoints)
    vouching.require_resumable(rundir, None if found is None else found.path, force)
    built = rebuild(rundir, changed, choices)
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
    segments = superseded(status.get("segments", []), status.get("config"), config)
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


def go_on_as(path: Path, jobs: Sequence[Job], command: str, words: Words) -> int:
    """Continue a run, or a sweep, that `trainer run ... resume=true` started, as it is configured now.

    Args:
        path: Its directory.
        jobs: The jobs as they are composed now.
        command: What the user typed, for the record.
        words: The words that the user typed.

    Raises:
        UsageError: What is there are other jobs than the command means.
    """
    folders = find.jobs(path) if find.is_sweep(path) else [path]
    if len(folders) != len(jobs):
        raise refusal(
            f"run_dir={path} resume=true", f"has {len(folders)} jobs, the command {len(jobs)}", "the same command"
        )
    again = f"trainer resume {shlex.quote(RunDir(path).short)}"
    configs = {rundir: rundir.read_config() for rundir in map(RunDir, folders)}
    all_stored = [settings.check(config) for config in configs.values()]
    typed = set[str]().union(*(user_code.own_targets(one.settings) for one in jobs))
    opened = user_code.open_code(configs, again, typed=typed)
    require_same_files([*configs], again)
    overrides = redact.words(words.overrides)
    if not find.is_sweep(path):
        changed = as_composed(all_stored[0], jobs[0].settings)
        return go_on(RunDir(path), all_stored[0], changed, jobs[0].choices, command, overrides, force=False)
    from trainer.launch import sweep

    described = sweep.described(path, words, again)
    for folder, stored, one in zip(folders, all_stored, jobs, strict=True):
        for change in differences(stored, as_composed(stored, one.settings)):
            raise refusal(
                f"{change.key}={show(change.new)}",
                f"job {folder.name} has {show(change.old)}",
                f"the same command, or trainer resume {path} {change.key}={show(change.new)}",
            )
    secrets = {
        folder.name: dict(redact.secrets(one.settings.to_dict())) for folder, one in zip(folders, jobs, strict=True)
    }
    return sweep.launch(path, described, command, overrides, opened.digests, secrets=secrets)


def as_composed(stored: Settings, composed: Settings) -> Settings:
    """Return composed settings in which null stands for what it stood for when the run was started."""
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
    return dataclasses.replace(composed, **filled, device=device, resume=False, run_dir=None)


def go_on(
    rundir: RunDir,
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
    from trainer.terminal import screen

    continued = continuation(rundir, stored, changed, chosen, force)
    if continued.is_complete:
        from trainer.session.logger_repair import repair

        repair(rundir, stored, command, screen.note)
        screen.complete(rundir)
        return 0
    from trainer.launch.start import follow

    with screen.busy("preparing"):
        begun = continued.begin(command)
    return follow(begun, command, overrides, force).exit_code


@dataclass(frozen=True)
class Continuation:
    """A run that is about to go on: where it stands, what it goes on with, and what of that has changed."""

    rundir: RunDir
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
        from trainer.session.train import rebuild
        from trainer.session.trial_step import try_out
        from trainer.terminal import screen

        if not self.is_complete:
            self.rundir.require_free()  # at once
        if not self.force:
            require_unedited(self.rundir)  # else it would be built of other parts, or refused for what these lack
        built = rebuild(self.rundir, self.settings, self.choices, objects)
        try_out(built)

        def open_screen(standing: Standing) -> None:
            screen.resuming(self.rundir, self.status, standing.first_step, self.changes)
            screen.header(built, {**self.choices, **built.choices}, self.rundir)

        return Begun(self.rundir, built, open_screen)


def continuation(
    rundir: RunDir, stored: Settings, changed: Settings, chosen: dict[str, str], force: bool = False
) -> Continuation:
    """Return a run that is to go on under changed settings; the arguments are those of `go_on`.

    Raises:
        UsageError: A change would make it another run.
    """
    status = rundir.read_status()
    choices = {**status.get("choices", {}), **chosen}
    changes = require_possible(rundir, stored, changed, force, choices)
    return Continuation(rundir, status, changed, choices, changes, force)


def is_whole(rundir: RunDir) -> bool:
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


def require_unedited(rundir: RunDir, rows: bool = True) -> None:
    """Refuse a run whose files are not those that it has had, as far as its newest checkpoint says.

    Args:
        rundir: The run.
        rows: Whether metrics.jsonl matters.

    Raises:
        UsageError: There is such a file.
    """
    saved = manifest.steps(rundir.checkpoints)
    with suppress(BadCheckpoint, NewerFormat):  # which one is good is found out when it goes on
        newest = rundir.checkpoints / manifest.name_of(saved[-1]) if saved else None
        vouching.require_resumable(rundir, newest, rows=rows)


def require_possible(
    rundir: RunDir, stored: Settings, changed: Settings, force: bool, choices: dict[str, str]
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
