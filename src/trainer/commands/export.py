"""`trainer export`: writes a run's model to a file for other tools."""

from __future__ import annotations

import shlex
from pathlib import Path

from trainer.analysis.formats import FORMATS
from trainer.config import arguments
from trainer.errors import refusal, unknown
from trainer.files import safe_start
from trainer.runs.directory import RunDirectory

FLAGS = ("--format", "-o", "--output", "--checkpoint", "--trust-code", "--force")


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS, "export")
    name = words.take_run(alone=True)
    kind = words.flags.get("format", "")
    if kind not in FORMATS:
        if not kind:
            raise refusal("export", "in which format?", [f"--format {name}" for name in FORMATS])
        raise unknown(f"--format={kind}", "no such format", kind, FORMATS)
    from trainer.analysis import export, trained_model
    from trainer.terminal import screen

    model = trained_model.load(name, words.flags, words.command, screen.note)
    folder = Path(words.flags.get("output", f"exported-{model.rundir.short.strip('./').replace('/', '-')}"))
    if any(RunDirectory(place).exists and RunDirectory(place).checkpoints.is_dir() for place in _at_and_above(folder)):
        raise refusal(f"--output={folder}", "is a run, and nothing is written into runs", "another folder")
    if folder.exists() and not folder.is_dir():
        raise refusal(f"--output={folder}", "is a file", "a folder")
    with screen.busy("exporting"), safe_start.safe_path():
        difference = export.write(model, kind, folder)
    screen.heading(str(folder / FORMATS[kind]), f"{model.rundir.path}, {model.called}")
    screen.rows(export.described(model, kind, difference))
    short = shlex.quote(model.rundir.short)
    screen.next_commands({f"trainer eval {short}": "evaluate it"})
    return 0


def _at_and_above(folder: Path) -> list[Path]:
    return [folder.absolute(), *folder.absolute().parents]
