"""`trainer resume`: continues a run in its own directory, with the settings that the user changes now."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import Any, NamedTuple

from trainer import runs, settings
from trainer import words as command_line
from trainer.errors import UsageError, refusal
from trainer.rundir import RunDir
from trainer.settings import REFUSED, Settings
from trainer.values import show

HELP = """Usage: trainer resume RUN [KEY=VALUE ...] [--force]

Continues a run where it stopped, in the same directory, to the same bits as if it had never stopped.
RUN is a path, an id, its four letters, a job of a sweep (kfrw/003), or `last`.
"""


class Change(NamedTuple):
    """A setting that differs from the one the run was started with."""

    key: str
    old: Any
    new: Any


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    if "-h" in argv or "--help" in argv:
        sys.stdout.write(HELP)
        return 0
    force = "--force" in argv
    words = command_line.split([word for word in argv if word != "--force"])
    if words.flags:
        raise refusal(f"--{next(iter(words.flags))}", "resume has no such flag", "--force")
    if not words.overrides or "=" in words.overrides[0]:
        raise UsageError("resume: which run? `trainer resume last`, or a path, an id or its four letters")
    name, words.overrides = words.overrides[0], words.overrides[1:]
    path = runs.find(name)
    rundir = RunDir(path)
    stored = settings.check(rundir.read_config())
    if words.overrides:
        from trainer.config import override

        catalog = words.catalog()
        (choice,) = command_line.jobs(words, catalog)
        changed = override(stored, choice, catalog)
    else:
        changed = stored
    return go_on(rundir, stored, changed, shlex.join(["trainer", "resume", *argv]), words.overrides, force)


def go_on(rundir: RunDir, stored: Settings, changed: Settings, command: str, overrides: list[str], force: bool) -> int:
    """Continue a run under changed settings.

    Raises:
        UsageError: A change would make it another run, or leaves nothing to do.
    """
    changes = differences(stored, changed)
    for change in changes:
        if settings.resume_kind(change.key) == REFUSED and not force:
            raise refusal(
                f"{change.key}={show(change.new)}",
                f"would make it another run (it has {show(change.old)})",
                f"a new run, which may start from these weights with init_from={rundir.short}; or --force",
            )
    status = rundir.read_status()
    step = int(status.get("step", 0))
    if changed.steps is not None and changed.steps < step:
        raise refusal(f"steps={changed.steps}", f"the run has done {step} already", f"more than {step}")
    if status.get("state") == "done" and not changes:
        print(f"{rundir.path} is already complete at step {step}")
        print(f"go on longer:  trainer resume {rundir.short} steps={2 * step}")
        return 0
    from trainer import screen
    from trainer.job import prepare, resolved, train

    choices = status.get("choices") or {}
    built = prepare(dataclasses.replace(changed, init_from=None), choices)
    rundir.write_config({**resolved(built).to_dict(), "init_from": changed.init_from})
    screen.resuming(rundir, step, changes)
    outcome = train(rundir, built, command, overrides, screen.progress, screen.note)
    screen.summary(outcome, rundir)
    return outcome.exit_code


def differences(stored: Settings, changed: Settings) -> list[Change]:
    """Return the settings that differ, dotted, in the order of the schema."""
    old, new = _flat(stored.to_dict()), _flat(changed.to_dict())
    return [Change(key, old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
