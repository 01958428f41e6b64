"""`trainer resume`: finds a run or a sweep and continues it with the settings that the user changes now."""

from __future__ import annotations

import shlex
from pathlib import Path

from trainer.config import arguments
from trainer.config import secrets as redact
from trainer.config.changes import changed_by
from trainer.errors import UsageError
from trainer.launch.resume import go_on
from trainer.launch.resume_sweep import go_on_with_sweep
from trainer.runs import directory, find
from trainer.runs.directory import RunDirectory
from trainer.runs.open import open_runs, require_same_files
from trainer.session.session import Request

FLAGS = ("--force", "--trust-code", "--allow-data-change", *arguments.CONFIG_DIR_FLAGS, "--help")


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS)
    force, trust = "force" in words.flags, "trust_code" in words.flags
    if not words.overrides or ("=" in words.overrides[0] and not Path(words.overrides[0]).exists()):
        raise UsageError("resume: which run? `trainer resume last`, or a path, an id or its four letters")
    name, words.overrides = words.overrides[0], words.overrides[1:]
    command = shlex.join(["trainer", "resume", *redact.words(argv)])
    request = Request(command, redact.words(words.overrides), force)
    path = find.find(name)
    folders = directory.jobs(path) if directory.is_sweep(path) else [path]
    if "allow_data_change" not in words.flags:
        require_same_files([RunDirectory(folder) for folder in folders], command)
    if directory.is_sweep(path):
        return go_on_with_sweep(path, words, request, trust)
    rundir = RunDirectory(path)
    (stored,), opened = open_runs([rundir], command, trust, force)
    changed, chosen = changed_by(words, stored)
    from trainer.terminal import screen

    for module in opened.changed:
        screen.note(f"warning: {module} differs from the copy that the run keeps: the same bits are not promised")
    return go_on(rundir, stored, changed, chosen, request)
