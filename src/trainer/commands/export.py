"""`trainer export`: a run's model as a file that other tools load."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from trainer.analysis.formats import FORMATS
from trainer.config import arguments, secrets
from trainer.errors import UsageError, refusal, unknown
from trainer.files import safe_start
from trainer.runs.directory import RunDirectory

HELP = """Usage: trainer export RUN --format safetensors|pt2|onnx [--output DIR]

Writes a run's model into a folder, with preprocess.json beside it, and checks
it by loading it again and comparing what both say.

  safetensors  the weights alone, by name: for NumPy, Rust, JavaScript, torch
  pt2          the whole computation, for torch.export.load without this code
  onnx         the whole computation, for ONNX Runtime and what builds on it

The computation takes raw numbers (rows, columns), float64, in the order of
preprocess.json, where a category is the index of its value there; or an array
as the run learned from. It returns the targets in their own units, or a score
for each class, whose softmax is its probability where the loss is
cross_entropy.

  --output DIR     where to; exported-RUN unless you say so
  --checkpoint     whose weights: best (unless you say so), last, or a step
  --trust-code     import modules that came with a run of somebody else's
  --force          use modules of yours that have changed since

Examples:
  trainer export last --format onnx
  trainer export kfrw --format safetensors --output house_prices
"""
FLAGS = ("--format", "-o", "--output", "--checkpoint", "--trust-code", "--force", *arguments.HELP_FLAGS)


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS)
    if "help" in words.flags:
        sys.stdout.write(HELP)
        return 0
    if len(words.overrides) != 1:
        raise UsageError("export: which run? `trainer export last --format onnx`, or a path, an id or its four letters")
    kind = words.flags.get("format", "")
    if kind not in FORMATS:
        if not kind:
            raise refusal("export", "as what?", [f"--format {name}" for name in FORMATS])
        raise unknown(f"--format={kind}", "no such format", kind, FORMATS)
    command = shlex.join(["trainer", "export", *secrets.words(argv)])
    from trainer.analysis import export, trained_model
    from trainer.terminal import screen

    model = trained_model.load(words.overrides[0], words.flags, command)
    folder = Path(words.flags.get("output", f"exported-{model.rundir.short.strip('./').replace('/', '-')}"))
    if any(RunDirectory(place).exists and RunDirectory(place).checkpoints.is_dir() for place in _at_and_above(folder)):
        raise refusal(f"--output={folder}", "is a run, whose files are its own", "another folder")
    if folder.exists() and not folder.is_dir():
        raise refusal(f"--output={folder}", "is a file", "a folder")
    with screen.busy("exporting"), safe_start.safe_path():
        difference = export.write(model, kind, folder)
    screen.heading(str(folder / FORMATS[kind]), f"{model.rundir.path}, {model.called}")
    screen.rows(export.described(model, kind, difference))
    short = shlex.quote(model.rundir.short)
    screen.next_commands({f"trainer eval {short}": "how good it is"})
    return 0


def _at_and_above(folder: Path) -> list[Path]:
    return [folder.absolute(), *folder.absolute().parents]
