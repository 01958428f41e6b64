"""`trainer ladder`: the same two layers on every rung, from hand-written NumPy to a torch module."""

from __future__ import annotations

import ast
import difflib
import io
import shlex
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from trainer.config import arguments, secrets
from trainer.errors import RunFailed, refusal, unknown
from trainer.terminal import screen
from trainer.text import number

if TYPE_CHECKING:
    from trainer.config.arguments import CommandLine

FLAGS = ("--source", "--json", *arguments.CONFIG_DIR_FLAGS)


@dataclass(frozen=True)
class Rung:
    """A model of the ladder, and what computes its forward pass and its gradients."""

    model: str
    file: str
    forward: str
    gradients: str


RUNGS = (
    Rung("numpy", "numpy_net.py", "NumPy, by hand", "by hand"),
    Rung("tensor", "tensor_net.py", "tensors, by hand", "by hand"),
    Rung("autograd", "autograd_net.py", "tensors, by hand", "autograd"),
    Rung("function", "function_net.py", "tensors, by hand", "ReLU's by hand, autograd"),
    Rung("sequential", "sequential_net.py", "a container's layers", "autograd"),
    Rung("two_layer", "two_layer_net.py", "a module's layers", "autograd"),
)
NAMES = tuple(rung.model for rung in RUNGS)
_SHOWN = (1, 10, 100, 1000)  # steps, besides the last one
_MARKS = {"+": "green", "-": "red"}


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS, "ladder")
    if "source" in words.flags:
        return _show_source(words)
    for word in words.overrides:
        if word.partition("=")[0] == "model":
            raise refusal(word, "the rungs are the models", "model.hidden=50, data=..., optim=...")
    found = _climb(words)
    if "json" in words.flags:
        screen.as_json(found)
        return 0
    _print(found)
    typed = shlex.join(["trainer", "inspect", "model=numpy", *secrets.words(words.overrides), *_in_float64(words)])
    commands = {"trainer ladder --source": "see what is new on each rung", typed: "inspect one step"}
    screen.next_commands(commands)
    return 0


def _climb(words: CommandLine) -> dict[str, Any]:
    """Train every rung from the same weights and return the results as plain data."""
    catalog = words.catalog()
    choices = []
    for name in NAMES:
        overrides = [*words.overrides, *_in_float64(words), f"model={name}"]
        choices += arguments.jobs(arguments.CommandLine(overrides=overrides), catalog)
    from trainer.analysis import ladder
    from trainer.config.compose import compose_jobs
    from trainer.session.prepare import prepare

    jobs = compose_jobs(choices, catalog)
    for note in dict.fromkeys(note for job in jobs for note in job.notes):
        screen.note(note)
    built = [prepare(job.settings, job.choices) for job in jobs]
    ladder.start_alike([one.run.model for one in built])
    climbed: list[dict[str, Any]] = []
    for rung, one in zip(screen.track(RUNGS, "training the rungs"), built, strict=True):
        try:
            losses, seconds = ladder.trained(one.run)
        except RunFailed as error:
            raise RunFailed(f"{rung.model}: {error}") from error
        climbed.append(
            {
                "model": rung.model,
                "lines": lines_of_code(_source(rung)),
                "forward": rung.forward,
                "gradients": rung.gradients,
                "update": ladder.update_of(one),
                "seconds_a_step": seconds,
                "losses": losses,
            }
        )
    return {
        "dtype": built[0].settings.device.dtype,
        "rungs": climbed,
        "difference": ladder.largest_difference({one["model"]: one["losses"] for one in climbed}),
    }


def _in_float64(words: CommandLine) -> list[str]:
    """Return the override that selects float64, unless another type was typed."""
    typed = any(word.partition("=")[0] == "device.dtype" for word in words.overrides)
    return [] if typed else ["device.dtype=float64"]


def _print(found: Mapping[str, Any]) -> None:
    rungs = found["rungs"]
    screen.heading("who computes what", "and the lines of code, not counting imports and comments")
    lines = [(one["model"], one["forward"], one["gradients"], one["update"], str(one["lines"])) for one in rungs]
    screen.table(screen.columns(("model", "forward", "gradients", "update"), ("lines",), lines))
    length = min(len(one["losses"]) for one in rungs)
    steps = [*(step for step in _SHOWN if step < length), length]
    screen.heading("losses", f"from the same weights, without biases, in {found['dtype']}")
    lines = []
    for one in rungs:
        losses = [number(one["losses"][step - 1]) for step in steps]
        lines.append((one["model"], *losses, f"{one['seconds_a_step'] * 1e3:.3g} ms"))
    screen.table(screen.columns(("model",), (*(f"step {step:,}" for step in steps), "a step"), lines))
    worst = found["difference"]
    where = f"{' and '.join(worst['models'])} at step {worst['step']:,}"
    screen.rows({"differ by": f"at most {worst['relative']:.1e} of the loss ({where})"})


def _show_source(words: CommandLine) -> int:
    """Print the code of rungs, each compared with the rung below."""
    for name in words.overrides:
        if name not in NAMES:
            raise unknown(name, "no such rung", name, NAMES)
    pairs = [(below, rung) for below, rung in zip((None, *RUNGS), RUNGS, strict=False)]
    shown = [(below, rung, list(compared(_source(below) if below else None, _source(rung)))) for below, rung in pairs]
    shown = [one for one in shown if one[1].model in (words.overrides or NAMES)]
    if "json" in words.flags:
        screen.as_json([{"model": r.model, "below": b and b.model, "lines": lines} for b, r, lines in shown])
        return 0
    for below, rung, lines in shown:
        screen.heading(rung.model, f"compared with {below.model}: + is new, - is gone" if below else "the first rung")
        for mark, line in lines:
            screen.stdout.print(Text(f"{mark} {line}".rstrip(), style=_MARKS.get(mark, "")), soft_wrap=True)
    screen.next_commands({"trainer ladder": "compare what they compute"})
    return 0


def compared(below: str | None, source: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of a source, each marked as kept, new (+) or gone (-) compared with the rung below."""
    for line in difflib.ndiff(_code(source if below is None else below), _code(source)):
        if line[0] != "?":
            yield line[0], line[2:]


def lines_of_code(source: str) -> int:
    """Count the lines of a Python source except empty lines, comments, docstrings and imports."""
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))  # type: ignore[attr-defined]
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for token in tokens if token.type not in nothing for line in range(token.start[0], token.end[0] + 1)}
    return len(lines - skipped)


def _code(source: str) -> Sequence[str]:
    """Return the lines of a source from the first class on; above it, all rungs are the same."""
    lines = source.splitlines()
    first = next((place for place, line in enumerate(lines) if line.startswith("class ")), 0)
    return lines[first:]


def _source(rung: Rung) -> str:
    return (Path(__file__).parents[1] / "models" / rung.file).read_text(encoding="utf-8")
