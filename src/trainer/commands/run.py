"""`trainer run`: composes the configuration, trains one job, or hands a sweep on."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config import arguments, secrets
from trainer.errors import UsageError
from trainer.files import garbage
from trainer.launch import resume_sweep
from trainer.launch.resume import resumed
from trainer.runs.new_path import new_path
from trainer.terminal import help

if TYPE_CHECKING:
    from trainer.config.arguments import Choice, CommandLine
    from trainer.config.catalog import Catalog

HELP = """Usage: trainer run [GROUP=OPTION ...] [KEY=VALUE ...] [-m] [--dry-run]

Trains one model in a directory of its own, runs/<id>, where it can be resumed
at any time. With -m it is a sweep: one run for each combination of the values
in comma lists. A wrong word is answered in one line; nothing is created then.

Groups (* is the default; `trainer list` says what each option is):
{groups}

Settings used most (`trainer list settings` shows all):
{settings}

What a group selects has settings of its own, under the name of the group:
optim.lr, data.validation, model.hidden. `trainer list optim=adam` shows
those of adam.

Flags:
  -m, --multirun     train one run for each combination of comma lists
  --dry-run          show what would run and about how long; create nothing
  --config-dir DIR   further configs of your own; ./configs is always read
  --cfg job          print the configuration and end (or: hydra, all)
  --info [WHAT]      print how Hydra composes it: defaults-tree, searchpath ...

With -m, hydra/launcher= says where the jobs run:
  local              one after the other (default)
  processes          one on each core; hydra.launcher.n_jobs=4 sets how many
  vectorized         jobs that differ only in numbers as one batched program
  joblib, basic      Hydra's own, and any other that is installed

Examples:
  trainer run
  trainer run model=dynamic optim=sgd_momentum steps=2000
  trainer run data.validation=0.25 batch_size=16 epochs=50 patience=5
  trainer run model=mlp 'model.sizes=[64,32]' optim=adam optim.lr=1e-3
  trainer run -m model=numpy,two_layer optim.lr=1e-5,1e-4 seed=0,1,2
  trainer run -m 'seed=range(5)' name=seeds
  trainer run -m 'seed=range(64)' hydra/launcher=processes
  trainer run init_from=last optim.lr=1e-5
  trainer run 'logger=[tensorboard,csv]'
  trainer run run_dir=results/first resume=true

Quote words with brackets, parentheses, spaces or $, as above.
"""
USED_MOST = (
    *("steps", "epochs", "batch_size", "seed", "patience", "clip_norm", "init_from", "name", "run_dir"),
    *("checkpoint.every", "device.dtype", "device.threads"),
)


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv)
    if "help" in words.flags:
        sys.stdout.write(HELP.format(groups=help.groups(words.catalog()), settings=help.described(*USED_MOST)))
        return 0
    catalog = words.catalog()
    choices = arguments.jobs(words, catalog)
    if "info" in words.flags or words.flags.get("cfg", "job") != "job" or "package" in words.flags:
        from trainer.config.compose import show_with_hydra

        return show_with_hydra(words.flags, choices[0], catalog)
    try:
        return _compose_and_run(words, choices, catalog, shlex.join(["trainer", "run", *secrets.words(argv)]))
    except UsageError as error:
        from trainer.config.option_files import with_source

        raise with_source(error, choices, catalog) from error.__cause__


def _compose_and_run(words: CommandLine, choices: list[Choice], catalog: Catalog, command: str) -> int:
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
        return dry_run.show(jobs, choices)
    settings = jobs[0].settings
    if (there := resumed(settings)) is not None:
        return resume_sweep.go_on_as(there, jobs, command, words)
    path = new_path(settings.run_dir)
    if words.multirun:
        from trainer.launch import sweep

        return sweep.start(path, jobs, choices, words, command)
    with screen.busy("preparing"), garbage.uncollected():
        from trainer.launch.start import begin, follow

        begun = begin(jobs[0], path)
    with garbage.kept():
        return follow(begun, command, secrets.words(words.overrides)).exit_code
