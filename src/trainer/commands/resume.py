"""`trainer resume`: finds a run or a sweep and continues it with the settings that the user changes now."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from trainer.config import arguments, settings
from trainer.config import secrets as redact
from trainer.config.changes import changed_by
from trainer.config.settings import HARMLESS, REPLANS
from trainer.errors import UsageError
from trainer.launch.resume import go_on
from trainer.launch.resume_sweep import go_on_with_sweep
from trainer.runs import directory, find, user_code
from trainer.runs.directory import RunDirectory
from trainer.runs.open import require_same_files
from trainer.terminal import help

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
FLAGS = ("--force", "--trust-code", "--allow-data-change", *arguments.CONFIG_DIR_FLAGS, "--help")


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    if "-h" in argv or "--help" in argv:
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
    folders = directory.jobs(path) if directory.is_sweep(path) else [path]
    if "allow_data_change" not in words.flags:
        require_same_files([RunDirectory(folder) for folder in folders], command)
    if directory.is_sweep(path):
        return go_on_with_sweep(path, words, command, force, trust)
    rundir = RunDirectory(path)
    config = rundir.read_config()
    stored = settings.check(config)
    opened = user_code.open_code({rundir: config}, command, trust, force)
    changed, chosen = changed_by(words, stored)
    from trainer.terminal import screen

    for module in opened.changed:
        screen.note(f"warning: {module} differs from the copy that the run keeps: the same bits are not promised")
    return go_on(rundir, stored, changed, chosen, command, redact.words(words.overrides), force)
