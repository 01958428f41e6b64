"""`trainer verify`: compares every checkpoint of a run, or of the jobs of a sweep, with its manifest. Without torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.checkpoints import manifest
from trainer.config import arguments
from trainer.errors import TrainerError
from trainer.runs import agreement, directory, find, user_code
from trainer.runs.directory import RunDirectory
from trainer.terminal import screen


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, ("--json",), "verify")
    path = find.find(words.take_run(alone=True))
    folders = directory.jobs(path) if directory.is_sweep(path) else [path]
    found = [entry for folder in screen.track(folders, "verifying") for entry in entries(folder)]
    if directory.is_sweep(path):
        found += [_entry(path, "sweep.json", problem=problem) for problem in [agreement.of_sweep(path)] if problem]
    wrong = [entry for entry in found if entry["problem"] is not None]
    if "json" in words.flags:
        screen.as_json(found)
        return 1 if wrong else 0
    for folder in dict.fromkeys([*folders, *(Path(entry["run"]) for entry in found)]):
        screen.heading(str(folder), "" if manifest.steps(RunDirectory(folder).checkpoints) else "no checkpoints yet")
        screen.rows({entry["file"]: _text(entry) for entry in found if entry["run"] == str(folder)})
    saved = [entry for entry in found if entry["step"] is not None]
    good = sum(entry["problem"] is None for entry in saved)
    screen.say(f"{good} of {len(saved)} checkpoints are good")
    again = f"trainer resume {shlex.quote(RunDirectory(path).short)}"
    if good < len(saved) and good:
        screen.next_commands({again: "continue from the newest good one"})
    elif good < len(saved):
        screen.next_commands({f"{again} --force": "start over from step 0"})
    return 1 if wrong else 0


def entries(folder: Path) -> list[dict[str, Any]]:
    """Return an entry for each checkpoint of a run, the oldest first, and for each problem with its other files."""
    found = []
    run = RunDirectory(folder)
    for step in manifest.steps(run.checkpoints):
        path = run.checkpoints / manifest.name_of(step)
        problem, size = None, 0
        try:
            size = manifest.verify(path)
        except TrainerError as error:
            if not path.exists():  # the run is training and has pruned it
                continue
            problem = str(error)
        found.append(_entry(folder, path.name, step, size or None, problem))
    good = [entry["step"] for entry in found if entry["problem"] is None]
    others = [_entry(folder, name, problem=problem, note=note) for name, problem, note in problems(run, good)]
    return found + [entry for entry in others if entry["problem"] is not None or entry["note"] is not None]


def _entry(
    run: Path, file: str, step: int | None = None, size: int | None = None, problem: str | None = None, note: Any = None
) -> dict[str, Any]:
    return {"run": str(run), "file": file, "step": step, "bytes": size, "problem": problem, "note": note}


def problems(run: RunDirectory, good: Sequence[int]) -> Iterator[agreement.Finding]:
    """Yield the findings about the files of a run besides its checkpoints; `good` are the steps of intact ones."""
    try:
        yield from agreement.of_run(run, good)
    except TrainerError as error:  # a checkpoint has been pruned meanwhile
        yield "checkpoints", str(error), None
    try:
        yield "code", user_code.differing(run, run.read_code()), None
    except (OSError, ValueError) as error:
        yield "code", str(error), None


def _text(entry: dict[str, Any]) -> str:
    if entry["problem"] is not None or entry["note"] is not None:
        return str(entry["problem"] or entry["note"])
    return f"good, {entry['bytes']:,} bytes"
