"""`trainer resume`: continues a run or a sweep, with changed settings if there are any; --dry-run tells how."""

from __future__ import annotations

from trainer.config import arguments, secrets
from trainer.config.changes import changed_by
from trainer.launch.resume import continuation, go_on
from trainer.launch.resume_sweep import go_on_with_sweep
from trainer.runs import directory, find, moved_files
from trainer.runs.directory import RunDirectory
from trainer.runs.open import open_run, require_same_files
from trainer.session.session import Request

FLAGS = ("--dry-run", "--force", "--trust-code", "--allow-data-change", *arguments.CONFIG_DIR_FLAGS)


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS, "resume")
    path, command = find.find(words.take_run()), words.command
    request = Request(command, secrets.words(words.overrides), "force" in words.flags)
    folders = directory.jobs(path) if directory.is_sweep(path) else [path]
    is_strict = "allow_data_change" not in words.flags
    if is_strict and (len(folders) > 1 or not words.overrides):
        require_same_files([RunDirectory(folder) for folder in folders], command)
    if directory.is_sweep(path):
        return go_on_with_sweep(path, words, request, "trust_code" in words.flags)
    from trainer.terminal import screen

    rundir, stored = open_run(str(path), words.flags, command, screen.note)
    changed, chosen = changed_by(words, stored)
    files = rundir.read_status().get("data", {}).get("files", {})
    if is_strict:
        require_same_files([rundir], command, moved_files.left(files, stored.data, changed.data))
    for remark in moved_files.remarks(files, stored.data, changed.data):
        screen.note(remark)
    if "dry_run" in words.flags:
        from trainer.launch import resume_dry_run

        return resume_dry_run.show(continuation(rundir, stored, changed, chosen, request))
    return go_on(rundir, stored, changed, chosen, request)
