"""`trainer verify`: compares every checkpoint of a run, or of the jobs of a sweep, with its manifest. Without torch."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from trainer import manifest, runs, screen
from trainer import words as command_line
from trainer.errors import TrainerError, UsageError
from trainer.rundir import RunDir

HELP = """Usage: trainer verify RUN [--json]

Reads every file of every checkpoint of a run, or of all jobs of a sweep, and
compares its size and SHA-256 with the manifest written beside it. Nothing is
changed. The exit code is 1 if anything differs; `trainer resume` would then go
on from the newest checkpoint that is good.

Examples:
  trainer verify last
  trainer verify kfrw
  trainer verify results/first --json
"""


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = command_line.split([word for word in argv if word != "--json"], ("-h", "--help"), ("--json",))
    if "help" in words.flags:
        sys.stdout.write(HELP)
        return 0
    if len(words.overrides) != 1:
        which = "one run at a time" if words.overrides else "which run?"
        raise UsageError(f"verify: {which} `trainer verify last`, or a path, an id or its four letters")
    path = runs.find(words.overrides[0])
    folders = runs.jobs(path) if runs.is_sweep(path) else [path]
    found = [entry for folder in screen.track(folders, "verifying") for entry in entries(folder)]
    wrong = [entry for entry in found if entry["problem"] is not None]
    if "--json" in argv:
        screen.as_json(found)
        return 1 if wrong else 0
    for folder in folders:
        screen.heading(str(folder), "" if any(entry["run"] == str(folder) for entry in found) else "no checkpoints yet")
        screen.rows({entry["checkpoint"]: _said(entry) for entry in found if entry["run"] == str(folder)})
    good = len(found) - len(wrong)
    screen.say(f"{good} of {len(found)} checkpoints are good")
    again = f"trainer resume {shlex.quote(RunDir(path).short)}"
    if wrong and good:
        screen.next_commands({again: "go on from the newest good one"})
    elif wrong:
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
            size = sum(map(len, manifest.verify(path).values()))
        except TrainerError as error:
            if not path.exists():  # the run goes on meanwhile and keeps its newest few
                continue
            problem = str(error)
        found.append(
            {"run": str(folder), "checkpoint": path.name, "step": step, "bytes": size or None, "problem": problem}
        )
    return found


def _said(entry: dict[str, Any]) -> str:
    return f"good, {entry['bytes']:,} bytes" if entry["problem"] is None else str(entry["problem"])
