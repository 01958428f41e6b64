"""`trainer predict`: the predictions of a run's model for new rows, from a file or from the command line."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.config import arguments
from trainer.errors import UsageError, printable, refusal

FLAGS = ("--input", "-o", "--output", "--row", "--checkpoint", "--json", "--trust-code", "--force")


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS, "predict")
    name = words.take_run(alone=True)
    source, target = words.flags.get("input"), words.flags.get("output")
    if (source is None) == (not words.rows):
        what, reason = ("both --input and --row", "only one of them") if words.rows else ("predict", "which rows?")
        raise refusal(what, reason, "--input FILE or --row=VALUE,VALUE,...")
    for flag, goes_with in (("output", "input"), ("json", "row")):
        if flag in words.flags and (goes_with == "input") != (source is not None):
            raise refusal(f"--{flag}", f"only works with --{goes_with}", f"--{goes_with} as well, or without it")
    files = [Path(name) for name in (target, source) if name is not None]
    if len(files) == 2 and all(file.exists() for file in files) and files[0].samefile(files[1]):
        raise refusal(f"--output {target}", "is the input file", "another file")
    from trainer.analysis import prediction, trained_model
    from trainer.terminal import screen

    model = trained_model.load(name, words.flags, words.command, screen.note)
    if source is None:
        rows = prediction.of_rows(model, words.rows, _warn, "force" in words.flags)
        if "json" in words.flags:
            screen.as_json(rows)
        else:
            screen.rows({name: ", ".join(_text(row[name]) for row in rows) for name in rows[0]})
            screen.note(f"{model.rundir.path}, {model.called}")
        return 0
    with _file_of(source) as file, screen.busy("predicting") as tell:
        written = _print if target is None else Path(target)
        count = prediction.of_file(model, file, written, tell, _warn, "force" in words.flags)
    screen.note(f"{model.rundir.path}, {model.called}")
    if target is not None:
        screen.say(f"{count:,} predictions in {target}")
        screen.next_commands(
            {f"trainer export {shlex.quote(model.rundir.short)} --format onnx": "export the model for other tools"}
        )
    return 0


@contextmanager
def _file_of(source: str) -> Iterator[Path]:
    """Yield the input file; for a pipe, a temporary file with all its content."""
    is_pipe = Path(source).is_fifo() and Path(source).suffix in ("", ".csv")
    if source != "-" and not is_pipe:
        yield Path(source)
        return
    if source == "-" and sys.stdin.isatty():
        raise refusal(
            "--input=-", "reads from a pipe, but this is a terminal", "COMMAND | trainer predict RUN --input -"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "input.csv")
        with open(0 if source == "-" else source, "rb", closefd=source != "-") as pipe, open(file, "wb") as whole:
            shutil.copyfileobj(pipe, whole)
        try:
            yield file
        except UsageError as error:
            raise UsageError(str(error).replace(str(file), source)) from error


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _warn(remark: str) -> None:
    from trainer.terminal import screen

    screen.note(f"warning: {remark}")


def _print(text: str) -> None:
    """Write CSV; on a terminal, escape control characters."""
    from trainer.terminal import screen

    if screen.stdout.is_terminal:
        text = "".join(f"{printable(line)}\n" for line in text.splitlines())
    screen.stdout.file.write(text)
