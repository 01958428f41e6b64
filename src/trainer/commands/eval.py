"""`trainer eval`: how good a run's model is, on its held-out rows or on other data."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from trainer.config import arguments, secrets
from trainer.config.changes import changed_by
from trainer.errors import UsageError, printable, refusal
from trainer.runs.open import open_run
from trainer.text import number

if TYPE_CHECKING:
    from trainer.analysis.evaluation import Report

FLAGS = ("--checkpoint", "--json", "--trust-code", "--force", *arguments.CONFIG_DIR_FLAGS, *arguments.HELP_FLAGS)
CHANGEABLE = ("data", "loss", "device")
MOST_CLASSES = 20  # of which a table is shown
_NAMES = {"r2": "R2", "rmse": "root mean square error", "mae": "mean absolute error"}


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS)
    if not words.overrides or "=" in words.overrides[0]:
        raise UsageError("eval: which run? `trainer eval last`, or a path, an id or its four letters")
    name, words.overrides = words.overrides[0], words.overrides[1:]
    for word in words.overrides:
        if word.partition("=")[0].partition(".")[0] not in CHANGEABLE:
            hint = None if "=" in word else f"data.path={word}"
            raise refusal(word, "is not a matter of evaluating", ["data.KEY=VALUE"], hint)
    command = shlex.join(["trainer", "eval", *secrets.words(argv)])
    from trainer.analysis import evaluation
    from trainer.session import restore
    from trainer.terminal import screen

    rundir, stored = open_run(name, words.flags, command)
    found, called = restore.choose(rundir, words.flags.get("checkpoint", "best"))
    changed, _ = changed_by(words, stored)
    with screen.busy("evaluating"):
        built, batches, which = evaluation.rows_of(rundir, stored, changed, found)
        result = evaluation.look(built, batches)
    for warning in built.data.warnings:
        screen.note(f"warning: {warning}")
    if "json" in words.flags:
        facts = {"run": rundir.short, "step": found.step, "rows": batches.rows, "which": which}
        screen.as_json({**facts, **result.to_json()})
        return 0
    _show(result, str(rundir.path), called, f"{batches.rows:,} {which}")
    short = shlex.quote(rundir.short)
    following = {f"trainer export {short} --format onnx": "a file that other tools load"}
    if any(path.suffix == ".csv" for path in built.data.files):
        following = {f"trainer predict {short} --input new.csv --output predictions.csv": "use it", **following}
    screen.next_commands(following)
    return 0


def _show(report: Report, heading: str, what: str, rows: str) -> None:
    """Print what came out."""
    from rich.table import Table
    from rich.text import Text

    from trainer.terminal import screen

    screen.heading(heading, what)
    texts = {"rows": rows}
    for name, value in report.metrics().items():
        texts[_NAMES.get(name, name)] = f"{value:.2%}" if name == "accuracy" else number(value)
    screen.rows(texts)
    classes = report.classes or []
    if not 2 <= len(classes) <= MOST_CLASSES:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("is, taken for")
    for name in classes:
        table.add_column(printable(name), justify="right", overflow="fold")
    for name, counts in zip(classes, report.confusion(), strict=True):
        table.add_row(Text(printable(name)), *(f"{count:,}" if count else "." for count in counts))
    screen.table(table)
