"""What commands print: what is about to be trained, remarks, results, and what one may type next. Without torch."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.measure import Measurement
from rich.progress import track as rich_track
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from trainer.config import secrets
from trainer.config.annotations import show
from trainer.config.settings import OBJECT, Change
from trainer.errors import printable
from trainer.runs.directory import RunDir
from trainer.terminal import advice
from trainer.terminal.progress import Display, Standing, count, digits, display, duration, number, rate
from trainer.terminal.streams import Stream

if TYPE_CHECKING:
    from trainer.charts.picture import Panel
    from trainer.session.train import Outcome
    from trainer.training.build import Built

# Texts come from files and users: nothing in them is markup. What can't be read any more must not end a run.
stdout = Console(file=Stream("stdout", BrokenPipeError), markup=False, emoji=False, highlight=False)  # type: ignore[arg-type]
stderr = Console(file=Stream("stderr", OSError), markup=False, emoji=False, highlight=False)  # type: ignore[arg-type]
_UNWRAPPED = 10_000  # columns of a file or a pipe
_UNBOUNDED = Console(width=_UNWRAPPED)
_NARROW = 50  # columns
_STATES = {
    **{"done": "green", "failed": "red", "running": "cyan", "stopped": "magenta"},
    **{"identical": "green", "different": "red"},
}
_RUN = "run"
T = TypeVar("T")


def note(text: str) -> None:
    """Print a remark."""
    head, colon, rest = printable(text).partition(":")
    style = "bold" if colon and head == "warning" else ""
    stderr.print(Text.assemble((head + colon, style), rest), soft_wrap=True)


def say(text: str) -> None:
    """Print a line of a result."""
    stdout.print(printable(text), soft_wrap=True)


def as_json(data: Any) -> None:
    """Print a result for programs; of a list, which may be long, an item a line."""
    items = ",\n".join(map(json.dumps, data)) if isinstance(data, list) else ""
    stdout.file.write(f"[\n{items}\n]\n" if items else f"{json.dumps(data, indent=1)}\n")


def as_yaml(data: dict[str, Any]) -> None:
    """Print a configuration as its file would hold it."""
    import yaml

    stdout.print(yaml.safe_dump(secrets.tree(data), sort_keys=False, allow_unicode=True).rstrip(), soft_wrap=True)


def heading(name: str, what: str) -> None:
    """Print a heading of a result, with what it is about."""
    if stdout.is_terminal:
        stdout.print()
    line = Text.assemble((printable(name), "bold"), (f"  {printable(what)}" if what else "", "dim"))
    stdout.print(line, soft_wrap=not stdout.is_terminal)


def rows(texts: Mapping[str, str]) -> None:
    """Print lines of a result: names and texts in two columns."""
    _rows(stdout, texts, "bold")


def columns(texts: Sequence[str], numbers: Sequence[str] = (), lines: Iterable[Sequence[str]] = ()) -> Table:
    """Return a table with columns of texts, then of numbers.

    Args:
        texts: Headings of the columns that hold texts.
        numbers: Headings of those that hold numbers.
        lines: A cell for each column.
    """
    content = Table(box=None, header_style="bold", pad_edge=False)
    for heading in texts:
        content.add_column(Text(printable(heading)), overflow="fold")
    for heading in numbers:
        content.add_column(heading, justify="right")
    for line in lines:
        content.add_row(*(Text(printable(cell)) for cell in line))
    return content


def table(content: Table) -> None:
    """Print a table of results; a row stays one line where there is no screen to fit.

    On a narrow screen headings and texts give way, but never numbers, which stand in the columns on the right.
    """
    for column in content.columns:
        if column.justify == "right":
            column.min_width = max((len(str(cell)) for cell in column.cells), default=0)
            column.overflow = "fold"
    _whole().print(content)


def _whole() -> Console:
    """Return standard output, so wide that nothing is folded where there is no screen to fit."""
    if stdout.is_terminal:
        return stdout
    return Console(file=stdout.file, width=_UNWRAPPED, markup=False, highlight=False)


def tree(content: Tree) -> None:
    """Print a tree; nothing is folded where there is no screen to fit."""
    _whole().print(content)


def charts(panels: Iterable[Panel]) -> None:
    """Print curves, as wide and as colourful as the screen is."""
    from trainer.charts import text_chart

    for panel in panels:
        stdout.print(text_chart.draw(panel, stdout), soft_wrap=True)


def fits(content: Table) -> bool:
    """Say whether a table can be printed without folding anything."""
    return not stdout.is_terminal or Measurement.get(_UNBOUNDED, _UNBOUNDED.options, content).maximum <= stdout.width


def arguments(group: str, component: Mapping[str, Any]) -> str:
    """Write the arguments of a component as they are typed, without those that change nothing or come from the data."""
    untyped = ("_target_", OBJECT, "inputs", "outputs") if group == "model" else ("_target_", OBJECT)
    shown = {
        key: value
        for key, value in secrets.tree(component).items()
        if key not in untyped and value not in (None, False, 0, [])
    }
    return " ".join(f"{key}={show(value)}" for key, value in shown.items())


def loggers(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Write which loggers there are, each with its arguments."""
    return ", ".join(f"{name} {arguments('logger', section)}".rstrip() for name, section in sections.items())


def is_live() -> bool:
    """Say whether the screen can be redrawn."""
    return stderr.is_interactive and stderr.file.isatty()


def state(name: str) -> Text:
    """Return a state's name in its colour."""
    return Text(name, style=_STATES.get(name, ""))


def next_commands(commands: Mapping[str, str]) -> None:
    """Print commands that one may type next, each after what it does: a copied line holds the command alone.

    Args:
        commands: What each does, by the command.
    """
    if stdout.is_terminal:
        stdout.print()
    for line in _commands(commands, narrow=stdout.is_terminal and stdout.width < _NARROW):
        stdout.print(line, soft_wrap=True)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """Yield items, with a progress bar when going through them takes a while."""
    if not is_live():
        return items
    return rich_track(items, what, total=total, console=stderr, transient=True)


@contextmanager
def busy(what: str) -> Iterator[Callable[[str], None]]:
    """Show that something is being done for the duration of a block, which may tell how far it is."""
    if not is_live():
        yield lambda progress: None
        return
    with stderr.status(what) as status:
        yield lambda progress: status.update(f"{what}: {printable(progress)}")


def header(built: Built, choices: Mapping[str, str], rundir: RunDir) -> None:
    """Say what is about to be trained, on what and where."""
    from trainer.session.status_writer import num_parameters
    from trainer.training.build import resolved

    parameters = num_parameters(built.run)
    model = printable(choices.get("model", type(built.run.model).__name__))
    given = printable(arguments("model", built.settings.model))
    stderr.print(
        Text.assemble((model, "bold"), f"  {count(parameters, 'parameter')}", (f"  {given}" if given else "", "dim")),
        soft_wrap=not stderr.is_terminal,
    )
    _rows(stderr, {**_parts(built, choices, resolved(built).to_dict()), _RUN: str(rundir.path)})
    for warning in built.data.warnings:
        note(f"warning: {warning}")


def opening(what: str, rundir: RunDir, status: Mapping[str, Any]) -> None:
    """Say what is done to a run, and where that stands."""
    ended = {"running": "interrupted"}.get(status.get("state", ""), status.get("state", "unknown"))
    before = f"{ended} at step {status.get('step', 0):,}"
    stderr.print(Text.assemble((f"{what} ", "bold"), printable(f"{rundir.path}, {before}")), soft_wrap=True)


def resuming(rundir: RunDir, status: Mapping[str, Any], step: int, changes: Sequence[Change]) -> None:
    """Say which run goes on, as it stood, from which step, and which of its settings have changed."""
    opening("resuming", rundir, status)
    stderr.print(f"going on from step {step:,}", soft_wrap=True)
    _rows(stderr, dict(map(_change, changes)))


def changes(of_jobs: Iterable[Sequence[Change]]) -> None:
    """Say which settings of the jobs of a sweep have changed."""
    _rows(stderr, {key: text for one in of_jobs for key, text in map(_change, one)})


def _change(change: Change) -> tuple[str, str]:
    now = secrets.tree({change.key: change.new})[change.key]
    return change.key, f"{show(change.old)} -> {show(now)}"


def progress(standing: Standing) -> Display:
    """Return the display of a run."""
    if is_live():
        stderr.print()
    return display(stderr, standing, is_live())


def summary(outcome: Outcome, rundir: RunDir) -> None:
    """Print the result, the run directory and what one may type next."""
    result(outcome.state, _ended(outcome))
    _rows(stdout, {**_results(outcome), _RUN: str(rundir.path)})
    next_commands(advice.after_end(outcome.reason, rundir, outcome.status))


def result(name: str, text: str) -> None:
    """Print how something ended, its name in colour."""
    stdout.print(Text.assemble(state(name), f"  {printable(text)}"), soft_wrap=not stdout.is_terminal)


def complete(rundir: RunDir) -> None:
    """Say that a run has nothing left to do, and what one may type instead."""
    status = rundir.read_status()
    say(f"{rundir.path} is complete at step {status.get('step', 0):,}")
    next_commands(advice.after("done", rundir, status))


def failure(rundir: RunDir) -> str:
    """Return what follows the message of a failed run: what is known of it, and what one may type next."""
    status = rundir.read_status()
    lines = {**advice.findings(status.get("diagnosis") or {}), _RUN: str(rundir.path)}
    indent = max(map(len, lines)) + 2
    commands = _commands(advice.after_failure(rundir, status))
    texts = [f"  {name:<{indent}}{printable(text)}" for name, text in lines.items()]
    return "\n".join([*texts, *(line.plain for line in commands)])


def _parts(built: Built, choices: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, str]:
    """Return what a run is made of, a line for each part, named as one types it."""
    settings, run = built.settings, built.run
    parts = {}
    if "experiment" in choices:
        parts["experiment"] = choices["experiment"]
    if settings.init_from is not None:
        parts["init_from"] = settings.init_from
    parts["data"] = f"{choices.get('data')}: {_described(built)}"
    parts.update(built.data.described())
    for group in ("loss", "optim", "schedule"):
        if choices.get(group) != "constant":
            parts[group] = f"{choices.get(group)} {arguments(group, getattr(settings, group))}".rstrip()
    parts["steps"] = f"{run.steps:,}, {_batches(built)}"
    if settings.logger:
        parts["logger"] = loggers(settings.logger)
    parts["device"] = _device(built, config)
    return parts


def _described(built: Built) -> str:
    data, run = built.data, built.run
    if data.inputs is None:
        return f"no inputs, target {number(float(data.y))}"
    rows = count(data.rows, "row")
    if run.validation is not None:
        rows = f"{count(run.batches.rows, 'row')} to train on, {run.validation.rows:,} to validate"
    outputs = count(data.outputs or 0, "output") if data.classes is None else f"{len(data.classes)} classes"
    return f"{rows}, {count(data.inputs or 0, 'input')}, {outputs}"


def _batches(built: Built) -> str:
    batches = built.run.batches
    return step_rows(batches.rows, batches.batch_size, built.settings.accumulate)


def step_rows(rows: int, batch_size: int, accumulate: int) -> str:
    """Say how many of the training rows a step takes."""
    steps_per_epoch = -(-rows // (batch_size * accumulate))
    if steps_per_epoch == 1 and accumulate == 1:
        return "all rows in each" if rows > 1 else "one row in each"
    size = f"{accumulate} x {batch_size:,}" if accumulate > 1 else f"{batch_size:,}"
    return f"{size} rows in each, {steps_per_epoch:,} an epoch"


def _device(built: Built, config: Mapping[str, Any]) -> str:
    chosen = config["device"]
    facts = [str(built.device), chosen["dtype"]]
    if chosen["amp"]:
        facts.append("bfloat16 autocast")
    if built.device.type == "cpu":
        facts.append(f"{chosen['threads']} thread{'s' * (chosen['threads'] != 1)}")
    if chosen["deterministic"]:
        facts.append("deterministic")
    return ", ".join(facts)


def _ended(outcome: Outcome) -> str:
    taken = outcome.step - outcome.first_step
    if taken == 0 and outcome.reason == "complete":
        return f"nothing was left to do: {count(outcome.step, 'step')} have been done"
    if outcome.reason == "stopped":
        name = signal.Signals(outcome.exit_code - 128).name if outcome.exit_code > 128 else "request"
        return f"by {name} at step {outcome.step:,} of {outcome.status['steps']:,}; all of it is saved"
    where = (
        count(taken, "step") if outcome.first_step == 0 else f"{count(taken, 'more step')}, {outcome.step:,} in all,"
    )
    text = f"{where} in {duration(outcome.seconds)}, {rate(taken / max(outcome.seconds, 1e-9))} steps/s"
    if outcome.reason == "patience":
        text += f"; {outcome.status['config']['patience']} evaluations without improvement"
    return text


def _results(outcome: Outcome) -> dict[str, str]:
    rows = {name.replace("_", " "): number(value) for name, value in outcome.metrics.items()}
    if outcome.first_loss is not None and "loss" in rows:
        rows["loss"] = f"{number(outcome.first_loss)} -> {rows['loss']}"
    if skipped := outcome.status.get("skipped"):
        rows["skipped"] = f"{skipped:,} of {outcome.step:,} steps: the loss or the gradients were not finite"
    if best := outcome.status.get("best"):
        rows["best"] = f"{best['metric'].replace('_', ' ')} {number(best['value'])} at step {best['step']:,}"
    rows.update({name: digits(value) for name, value in (outcome.numbers or {}).items()})
    return rows


def _rows(console: Console, texts: Mapping[str, str], style: str = "dim") -> None:
    """Print names and texts in two columns; the run directory is never broken, so that it can be copied."""
    narrow = console.is_terminal and console.width < _NARROW
    indent = 2 if narrow else max(map(len, texts), default=0) + 4
    for name, text in texts.items():
        before = Text(printable(name) if narrow else f"  {printable(name)}".ljust(indent), style=style)
        if narrow:
            console.print(before)
            before = Text(" " * indent)
        whole = name == _RUN or not console.is_terminal
        lines = [Text(printable(text))] if whole else Text(printable(text)).wrap(console, console.width - indent)
        for line in lines:
            console.print(Text.assemble(before, line), soft_wrap=True)
            before = Text(" " * indent)


def _commands(commands: Mapping[str, str], narrow: bool = False) -> Iterator[Text]:
    widest = max(map(len, commands.values()), default=0)
    for command, what in commands.items():
        before = f"{what}:\n" if narrow else f"  {what:<{widest}}  "
        yield Text.assemble((before, "dim"), (printable(command), "bold"))
