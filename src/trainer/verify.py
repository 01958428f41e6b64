"""`trainer verify`: compares every checkpoint of a run, or of the jobs of a sweep, with its manifest. Without torch."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer import manifest, modules, runs, screen, settings
from trainer import words as command_line
from trainer.errors import TrainerError, UsageError
from trainer.rundir import RunDir

HELP = """Usage: trainer verify RUN [--json]

Reads every file of every checkpoint of a run, or of all jobs of a sweep, and
compares its size and SHA-256 with the manifest written beside it; reads the
configuration and the status, and compares the copies of your own modules with
what was kept. Nothing is changed. The exit code is 1 if anything differs;
`trainer resume` goes on from the newest checkpoint that is good.

Examples:
  trainer verify last
  trainer verify kfrw
  trainer verify results/first --json
"""


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = command_line.split(argv, ("--json", *command_line.HELP_FLAGS))
    if "help" in words.flags:
        sys.stdout.write(HELP)
        return 0
    path = runs.only("verify", words.overrides)
    folders = runs.jobs(path) if runs.is_sweep(path) else [path]
    found = [entry for folder in screen.track(folders, "verifying") for entry in entries(folder)]
    wrong = [entry for entry in found if entry["problem"] is not None]
    if "json" in words.flags:
        screen.as_json(found)
        return 1 if wrong else 0
    for folder in folders:
        screen.heading(str(folder), "" if manifest.steps(RunDir(folder).checkpoints) else "no checkpoints yet")
        screen.rows({entry["file"]: _said(entry) for entry in found if entry["run"] == str(folder)})
    saved = [entry for entry in found if entry["step"] is not None]
    good = sum(entry["problem"] is None for entry in saved)
    screen.say(f"{good} of {len(saved)} checkpoints are good")
    again = f"trainer resume {shlex.quote(RunDir(path).short)}"
    if good < len(saved) and good:
        screen.next_commands({again: "go on from the newest good one"})
    elif good < len(saved):
        screen.next_commands({f"{again} --force": "start over from step 0"})
    return 1 if wrong else 0


def entries(folder: Path) -> list[dict[str, Any]]:
    """Return what there is to say of each checkpoint of a run, the oldest first."""
    found = []
    run = RunDir(folder)
    for step in manifest.steps(run.checkpoints):
        path = run.checkpoints / manifest.name_of(step)
        problem, size = None, 0
        try:
            size = manifest.verify(path)
        except TrainerError as error:
            if not path.exists():  # the run goes on meanwhile and keeps its newest few
                continue
            problem = str(error)
        found.append({"run": str(folder), "file": path.name, "step": step, "bytes": size or None, "problem": problem})
    wrong = ((name, problem) for name, problem in problems(run) if problem is not None)
    found += [{"run": str(folder), "file": name, "step": None, "bytes": None, "problem": text} for name, text in wrong]
    return found


def problems(run: RunDir) -> Iterator[tuple[str, str | None]]:
    """Yield what is wrong with the files of a run beside its checkpoints."""
    status = run.read_status()
    yield "status.json", None if "state" in status else "can't be read; it is made anew when the run goes on"
    try:
        config = run.read_config()
        settings.check(config)
        same = "config" not in status or status["config"] == config
        yield "config.yaml", None if same else "has changed: status.json repeats another configuration"
    except UsageError as error:
        yield "config.yaml", str(error)
    try:
        yield "code", modules.differing(run, run.read_code())
    except (OSError, ValueError) as error:
        yield "code", str(error)


def _said(entry: dict[str, Any]) -> str:
    return f"good, {entry['bytes']:,} bytes" if entry["problem"] is None else str(entry["problem"])
