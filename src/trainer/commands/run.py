"""`trainer run`: composes the configuration and trains one job, or starts a sweep."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config import arguments, secrets
from trainer.errors import UsageError
from trainer.files import garbage
from trainer.launch import resume_sweep
from trainer.launch.new_path import new_path
from trainer.launch.resume import resumed
from trainer.runs.directory import RunDirectory
from trainer.session.session import Request

if TYPE_CHECKING:
    from trainer.config.arguments import Choice, CommandLine
    from trainer.config.catalog import Catalog


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv)
    catalog = words.catalog()
    choices = arguments.jobs(words, catalog)
    if "info" in words.flags or words.flags.get("cfg", "job") != "job" or "package" in words.flags:
        from trainer.config.compose import show_with_hydra

        return show_with_hydra(words.flags, choices[0], catalog)
    try:
        return _compose_and_run(words, choices, catalog)
    except UsageError as error:
        from trainer.config.option_files import with_source

        raise with_source(error, choices, catalog) from error.__cause__


def _compose_and_run(words: CommandLine, choices: list[Choice], catalog: Catalog) -> int:
    from trainer.config.compose import compose_jobs
    from trainer.terminal import screen

    with garbage.uncollected():
        jobs = compose_jobs(choices, catalog)
    if "cfg" in words.flags:
        screen.as_yaml(jobs[0].settings.to_dict())
        return 0
    for warning in catalog.warnings():
        screen.note(f"warning: {warning}")
    if "dry_run" in words.flags:
        from trainer.launch import dry_run

        if words.multirun:
            from trainer.launch import hydra_launchers

            hydra_launchers.asked_launcher(words, Path())
        if (there := resumed(jobs[0].settings)) is not None:
            how = f"`trainer resume {shlex.quote(RunDirectory(there).short)} --dry-run` shows how"
            screen.note(f"{there} exists and would be resumed: {how}")
        return dry_run.show(jobs, choices)
    settings, request = jobs[0].settings, Request(words.command, secrets.words(words.overrides))
    if (there := resumed(settings)) is not None:
        return resume_sweep.go_on_as(there, jobs, request, words)
    path = new_path(settings.run_dir)
    if words.multirun:
        from trainer.launch import sweep

        return sweep.start(path, jobs, choices, words, request)
    with screen.busy("preparing"), garbage.uncollected():
        from trainer.launch.start import begin, follow

        session = begin(jobs[0], path, request)
    with garbage.kept():
        return follow(session).exit_code
