"""Prints the header of a run, the changes on resume, and the summary at the end."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from trainer.config import secrets
from trainer.config.settings import OBJECT, Change
from trainer.errors import printable
from trainer.runs.directory import RunDirectory
from trainer.session.display import Display, Standing
from trainer.terminal import advice, screen
from trainer.terminal.progress import display
from trainer.text import count, digits, duration, number, rate, show

if TYPE_CHECKING:
    from trainer.session.train import Outcome
    from trainer.training.build import Built


def arguments(group: str, component: Mapping[str, Any]) -> str:
    """Return the arguments of a component as they are typed, without those that are off or that come from the data."""
    untyped = ("_target_", OBJECT, "inputs", "outputs") if group == "model" else ("_target_", OBJECT)
    shown = {
        key: value
        for key, value in secrets.tree(component).items()
        if key not in untyped and value not in (None, False, 0, [])
    }
    return " ".join(f"{key}={show(value)}" for key, value in shown.items())


def loggers(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the loggers, each with its arguments."""
    return ", ".join(f"{name} {arguments('logger', section)}".rstrip() for name, section in sections.items())


def header(built: Built, choices: Mapping[str, str], rundir: RunDirectory) -> None:
    """Print the header of a run: model, data, optimizer, device and run directory."""
    from trainer.training.build import resolved
    from trainer.training.parameters import num_parameters

    parameters = num_parameters(built.run)
    model = printable(choices.get("model", type(built.run.model).__name__))
    given = printable(arguments("model", built.settings.model))
    screen.stderr.print(
        Text.assemble((model, "bold"), f"  {count(parameters, 'parameter')}", (f"  {given}" if given else "", "dim")),
        soft_wrap=not screen.stderr.is_terminal,
    )
    screen.two_columns(
        screen.stderr, {**_parts(built, choices, resolved(built).to_dict()), screen.RUN: str(rundir.path)}
    )
    for warning in built.data.warnings:
        screen.note(f"warning: {warning}")


def opening(what: str, rundir: RunDirectory, status: Mapping[str, Any]) -> None:
    """Print the action of a command on a run, such as resuming, and the state of the run."""
    state = {"running": "interrupted"}.get(status.get("state", ""), status.get("state", "unknown"))
    before = f"{state} at step {status.get('step', 0):,}"
    screen.stderr.print(Text.assemble((f"{what} ", "bold"), printable(f"{rundir.path}, {before}")), soft_wrap=True)


def resuming(rundir: RunDirectory, status: Mapping[str, Any], step: int, changes: Sequence[Change]) -> None:
    """Print which run is resumed, its state, the step it continues from, and the changed settings."""
    opening("resuming", rundir, status)
    screen.stderr.print(f"continuing from step {step:,}", soft_wrap=True)
    screen.two_columns(screen.stderr, dict(map(_change, changes)))


def changes(of_jobs: Iterable[Sequence[Change]]) -> None:
    """Print the changed settings of the jobs of a sweep."""
    screen.two_columns(screen.stderr, {key: text for one in of_jobs for key, text in map(_change, one)})


def _change(change: Change) -> tuple[str, str]:
    now = secrets.tree({change.key: change.new})[change.key]
    return change.key, f"{show(change.old)} -> {show(now)}"


def progress(standing: Standing) -> Display:
    """Return the display of a run."""
    if screen.is_live():
        screen.stderr.print()
    return display(screen.stderr, standing, screen.is_live())


def summary(outcome: Outcome, rundir: RunDirectory) -> None:
    """Print the result, the run directory and the commands to type next."""
    screen.result(outcome.state, _ended(outcome))
    screen.two_columns(screen.stdout, {**_results(outcome), screen.RUN: str(rundir.path)})
    screen.next_commands(advice.after_end(outcome.reason, rundir, outcome.status))


def complete(rundir: RunDirectory) -> None:
    """Print that a run is complete, and the commands to type next."""
    status = rundir.read_status()
    screen.say(f"{rundir.path} is complete at step {status.get('step', 0):,}")
    screen.next_commands(advice.after("done", rundir, status))


def failure(rundir: RunDirectory) -> str:
    """Return the lines below the error of a failed run: the diagnosis, and the commands to type next."""
    status = rundir.read_status()
    lines = {**advice.findings(status.get("diagnosis") or {}), screen.RUN: str(rundir.path)}
    indent = max(map(len, lines)) + 2
    commands = screen.command_lines(advice.after_failure(rundir, status))
    texts = [f"  {name:<{indent}}{printable(text)}" for name, text in lines.items()]
    return "\n".join([*texts, *(line.plain for line in commands)])


def _parts(built: Built, choices: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, str]:
    """Return a line for each part of a run, by the name of its group."""
    settings, run = built.settings, built.run
    parts = {}
    if "experiment" in choices:
        parts["experiment"] = choices["experiment"]
    if settings.init_from is not None:
        parts["init_from"] = settings.init_from
    parts["data"] = f"{choices.get('data')}: {_data(built)}"
    parts.update(built.data.described())
    for group in ("loss", "optim", "schedule"):
        if choices.get(group) != "constant":
            parts[group] = f"{choices.get(group)} {arguments(group, getattr(settings, group))}".rstrip()
    batches = step_rows(run.batches.rows, run.batches.batch_size, settings.accumulate)
    parts["steps"] = f"{run.steps:,}, {batches}"
    if settings.logger:
        parts["logger"] = loggers(settings.logger)
    parts["device"] = _device(built, config)
    return parts


def _data(built: Built) -> str:
    data, run = built.data, built.run
    if data.inputs is None:
        return f"no inputs, target {number(float(data.y))}"
    rows = count(data.rows, "row")
    if run.validation is not None:
        rows = f"{count(run.batches.rows, 'row')} to train on, {run.validation.rows:,} to validate"
    outputs = count(data.outputs or 0, "output") if data.classes is None else f"{len(data.classes)} classes"
    return f"{rows}, {count(data.inputs or 0, 'input')}, {outputs}"


def step_rows(rows: int, batch_size: int, accumulate: int) -> str:
    """Return the size of the batches and the number of steps per epoch in words."""
    steps_per_epoch = -(-rows // (batch_size * accumulate))
    if steps_per_epoch == 1 and accumulate == 1:
        return "all rows per step" if rows > 1 else "one row per step"
    size = f"{accumulate} x {batch_size:,} rows" if accumulate > 1 else count(batch_size, "row")
    return f"batches of {size}, {count(steps_per_epoch, 'step')} per epoch"


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
        return f"nothing to do: already at step {outcome.step:,}"
    if outcome.reason == "stopped":
        name = signal.Signals(outcome.exit_code - 128).name if outcome.exit_code > 128 else "request"
        by = "Ctrl-C" if name == "SIGINT" else name
        return f"at step {outcome.step:,} of {outcome.status['steps']:,} ({by}); everything is saved"
    steps = count(taken, "step")
    if outcome.first_step > 0:
        steps = f"{count(taken, 'more step')}, {outcome.step:,} in total,"
    text = f"{steps} in {duration(outcome.seconds)}, {rate(taken / max(outcome.seconds, 1e-9))} steps/s"
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
