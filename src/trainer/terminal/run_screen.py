"""What a run prints: what is about to be trained, what it goes on with, and how it ended."""

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


def header(built: Built, choices: Mapping[str, str], rundir: RunDirectory) -> None:
    """Say what is about to be trained, on what and where."""
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
    """Say what is done to a run, and where that stands."""
    ended = {"running": "interrupted"}.get(status.get("state", ""), status.get("state", "unknown"))
    before = f"{ended} at step {status.get('step', 0):,}"
    screen.stderr.print(Text.assemble((f"{what} ", "bold"), printable(f"{rundir.path}, {before}")), soft_wrap=True)


def resuming(rundir: RunDirectory, status: Mapping[str, Any], step: int, changes: Sequence[Change]) -> None:
    """Say which run goes on, as it stood, from which step, and which of its settings have changed."""
    opening("resuming", rundir, status)
    screen.stderr.print(f"going on from step {step:,}", soft_wrap=True)
    screen.two_columns(screen.stderr, dict(map(_change, changes)))


def changes(of_jobs: Iterable[Sequence[Change]]) -> None:
    """Say which settings of the jobs of a sweep have changed."""
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
    """Print the result, the run directory and what one may type next."""
    screen.result(outcome.state, _ended(outcome))
    screen.two_columns(screen.stdout, {**_results(outcome), screen.RUN: str(rundir.path)})
    screen.next_commands(advice.after_end(outcome.reason, rundir, outcome.status))


def complete(rundir: RunDirectory) -> None:
    """Say that a run has nothing left to do, and what one may type instead."""
    status = rundir.read_status()
    screen.say(f"{rundir.path} is complete at step {status.get('step', 0):,}")
    screen.next_commands(advice.after("done", rundir, status))


def failure(rundir: RunDirectory) -> str:
    """Return what follows the message of a failed run: what is known of it, and what one may type next."""
    status = rundir.read_status()
    lines = {**advice.findings(status.get("diagnosis") or {}), screen.RUN: str(rundir.path)}
    indent = max(map(len, lines)) + 2
    commands = screen.command_lines(advice.after_failure(rundir, status))
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
