"""`trainer eval`: the metrics of a run's model on its held-out rows or on other data."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from trainer import quoting
from trainer.config import arguments
from trainer.config.changes import changed_by
from trainer.errors import refusal
from trainer.runs import moved_files
from trainer.runs.open import open_run
from trainer.text import number

if TYPE_CHECKING:
    from trainer.analysis.evaluation import Report

FLAGS = ("--checkpoint", "--json", "--trust-code", "--force", *arguments.CONFIG_DIR_FLAGS)
CHANGEABLE = ("data", "loss", "device")
MOST_CLASSES = 20  # for a table of actual and predicted classes
_NAMES = {"r2": "R2", "rmse": "root mean square error", "mae": "mean absolute error"}


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS, "eval")
    name = words.take_run()
    for word in words.overrides:
        if word.partition("=")[0].partition(".")[0] not in CHANGEABLE:
            hint = None if "=" in word else quoting.typed("data.path", word)
            raise refusal(word, "can't be changed for an evaluation", ["data.KEY=VALUE"], hint)
    from trainer.analysis import evaluation
    from trainer.session import restore
    from trainer.terminal import screen

    rundir, stored = open_run(name, words.flags, words.command, screen.note)
    found, called = restore.choose(rundir, words.flags.get("checkpoint", "best"))
    changed, _ = changed_by(words, stored)
    with screen.busy("evaluating"):
        built, batches, which = evaluation.rows_of(rundir, stored, changed, found)
        result = evaluation.look(built, batches)
    files = rundir.read_status().get("data", {}).get("files", {})
    for remark in moved_files.remarks(files, stored.data, changed.data):
        screen.note(remark)
    for warning in built.data.warnings:
        screen.note(f"warning: {warning}")
    if "json" in words.flags:
        facts = {"run": rundir.short, "step": found.step, "rows": batches.rows, "which": which}
        screen.as_json({**facts, **result.to_json()})
        return 0
    _show(result, str(rundir.path), called, f"{batches.rows:,} {which}")
    short = shlex.quote(rundir.short)
    following = {f"trainer export {short} --format onnx": "export"}
    if any(path.suffix == ".csv" for path in built.data.files):
        following = {f"trainer predict {short} --input new.csv --output predictions.csv": "predict", **following}
    screen.next_commands(following)
    return 0


def _show(report: Report, heading: str, what: str, rows: str) -> None:
    from trainer.terminal import screen

    screen.heading(heading, what)
    texts = {"rows": rows}
    for name, value in report.metrics().items():
        texts[_NAMES.get(name, name)] = f"{value:.2%}" if name == "accuracy" else number(value)
    screen.rows(texts)
    classes = report.classes or []
    if not 2 <= len(classes) <= MOST_CLASSES:
        return
    confusion = zip(classes, report.confusion(), strict=True)
    lines = [(name, *(f"{count:,}" if count else "." for count in counts)) for name, counts in confusion]
    screen.table(screen.columns(("actual, predicted",), classes, lines))
