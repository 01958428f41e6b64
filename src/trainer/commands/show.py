"""`trainer show`: configuration, results and origin of a run. Imports torch only for --parameters."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from trainer.charts import from_runs, text_chart
from trainer.checkpoints import manifest
from trainer.config import arguments, settings
from trainer.config.arguments import CommandLine
from trainer.config.settings import COMPONENTS, LOGGER, flat
from trainer.errors import UsageError, refusal
from trainer.files import garbage
from trainer.runs import directory, entries, find, sweep_file, vouching
from trainer.runs.directory import RunDirectory
from trainer.runs.entries import RunSummary
from trainer.runs.open import open_run
from trainer.runs.sweep_file import Sweep
from trainer.terminal import advice, run_screen, run_tables, screen
from trainer.text import count, duration, number, numbers, show, size_of

_STARTS = 100  # starts of a run that are shown
FLAGS = ("--parameters", "--checkpoint", "--trust-code", "--force", "--json")
_MOST_VALUES = 8  # values of a swept setting that are shown
_NOTES = {"buffer": " (buffer)", "frozen": " (not trained)", "shared": " (shared)"}
# Settings without a line of their own: the lines of the parts, the steps and the device show them.
_SHOWN = (
    *("steps", "epochs", "batch_size", "accumulate", "run_dir", "resume", "name"),
    *("device.type", "device.dtype", "device.threads"),
)


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS, "show")
    for flag in ("checkpoint", "trust_code", "force"):
        if flag in words.flags and "parameters" not in words.flags:
            what = f"--{flag.replace('_', '-')}"
            raise refusal(what, "only works with --parameters", f"--parameters {what}")
    path = find.find(words.take_run(alone=True))
    if directory.is_sweep(path):
        return _show_sweep(path, words)
    one = entries.entry(path)
    if (problem := vouching.edited_status(RunDirectory(path))) is not None:
        screen.note(f"warning: {problem}")
    weights = _parameters(one, words) if "parameters" in words.flags else None
    if "json" in words.flags:
        saved = [{"step": step, "bytes": size} for step, size in _checkpoints(RunDirectory(path))]
        screen.as_json({**one.to_dict(), "checkpoints": saved, **({"checkpoint": weights} if weights else {})})
    elif weights is not None:
        _print_parameters(one, weights)
    else:
        _print_run(one)
    return 0


def _show_sweep(path: Path, words: CommandLine) -> int:
    """Print the swept settings and the results of a sweep, and return the exit code."""
    sweep = sweep_file.read(path)
    short = RunDirectory(path).short
    if "parameters" in words.flags:
        directory.require_run(path, f"{short} --parameters")
    with garbage.uncollected():
        jobs = [entries.entry(path / name) for name in sweep["jobs"]]
    if "json" in words.flags:
        screen.as_json({"run": short, "path": str(path), **sweep, "jobs": [job.to_dict() for job in jobs]})
        return 0
    screen.heading(short, str(path))
    screen.rows(_varied(sweep, jobs))
    screen.heading("results", "")
    run_tables.print_results(path, jobs, sweep["swept"])
    return 0


def _varied(sweep: Sweep, jobs: Sequence[RunSummary]) -> dict[str, str]:
    """Return the lines about a whole sweep: the states of its jobs, the swept settings, the command."""
    states = Counter(job.state for job in jobs)
    lines = {"name": sweep["name"]} if sweep["name"] else {}
    lines["jobs"] = ", ".join(f"{amount:,} {state}" for state, amount in states.items())
    for key in sweep["swept"]:
        values = list(dict.fromkeys(job.swept[key] for job in jobs if key in job.swept))
        more = f", ... ({len(values):,} in all)" if len(values) > _MOST_VALUES else ""
        lines[key] = ", ".join(values[:_MOST_VALUES]) + more
    lines["command"] = sweep["command"]
    return lines


def _print_run(one: RunSummary) -> None:
    rundir = RunDirectory(one.path)
    screen.heading(one.short, str(one.path))
    screen.rows(_result(one))
    text_chart.charts(from_runs.of_run(one), screen.stdout)
    screen.heading("config", "")
    screen.rows(_config(one, dict(one.config) or rundir.read_config()))
    screen.heading("made by", "")
    if one.segments:
        screen.table(screen.columns(("from step", "started", "took", "command"), (), _segments(one)))
        if (starts := len(one.segments)) > _STARTS:
            screen.say(f"the last {_STARTS} of {starts:,} starts; --json shows all")
    code = {name: f"SHA-256 {sum_}" for name, sum_ in (one.status.get("code") or {}).items()}
    screen.rows({**_changes(one), **_circumstances(one), **code})
    screen.heading("checkpoints", "" if manifest.steps(rundir.checkpoints) else "none yet")
    screen.rows(_saved(one))
    commands = advice.after(one.state, rundir, one.status) or {f"trainer show {shlex.quote(one.short)}": "look again"}
    if manifest.steps(rundir.checkpoints):
        commands = {f"trainer show {shlex.quote(one.short)} --parameters": "see its weights and gradients", **commands}
    screen.next_commands(commands)


def _result(one: RunSummary) -> dict[str, str]:
    """Return the lines about the state and the results of a run."""
    lines = {"name": str(one.status["name"])} if one.status.get("name") else {}
    of = f" of {one.steps:,}" if one.steps else ""
    lines["state"] = f"{one.state} at step {one.step:,}{of}"
    if (standstill := advice.standstill(RunDirectory(one.path), one.status)) is not None:
        lines["state"] += f"; {standstill[0]}"
    lines.update({name.replace("_", " "): number(value) for name, value in one.metrics.items()})
    if one.best is not None:
        metric = one.best["metric"].replace("_", " ")
        lines["best"] = f"{metric} {number(one.best['value'])} at step {one.best['step']:,}"
    if skipped := one.status.get("skipped"):
        lines["skipped"] = f"{count(skipped, 'step')}: the loss or the gradients were not finite"
    if one.error:
        lines["error"] = one.error
        lines.update(advice.findings(one.status.get("diagnosis") or {}))
    return lines


def _config(one: RunSummary, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the lines about the parts of a run, like the header of `trainer run`, and about its other settings."""
    lines = {}
    for group in (*(("experiment",) if "experiment" in one.choices else ()), *COMPONENTS):
        part = config.get(group)
        words = [one.choices.get(group, ""), _facts(one, group)]
        words.append(run_screen.arguments(group, part) if isinstance(part, dict) else "")
        lines[group] = "  ".join(filter(None, words))
    if lines["schedule"] == "constant":
        del lines["schedule"]
    lines["steps"] = _length(one, config)
    lines["device"] = _device(one, config)
    chosen = config.get(LOGGER)
    if loggers := {
        k: part for k, part in (chosen if isinstance(chosen, dict) else {}).items() if isinstance(part, dict)
    }:
        lines[LOGGER] = run_screen.loggers(loggers)
    usual, parts = flat(settings.defaults()), (*COMPONENTS, LOGGER)
    given = {key: value for key, value in flat(dict(config)).items() if key.partition(".")[0] not in parts}
    others = {key: value for key, value in given.items() if value != usual.get(key) and key not in _SHOWN}
    return {**lines, **{key: show(value) for key, value in others.items()}}


def _facts(one: RunSummary, group: str) -> str:
    """Return the facts about a part besides its settings: parameters of the model, rows of the data."""
    parameters, rows = one.status.get("parameters"), one.status.get("rows") or {}
    if group == "model" and parameters is not None:
        return count(parameters, "parameter")
    if group == "data" and rows.get("training"):
        training, validation = rows["training"], rows.get("validation")
        return count(training, "row") + (f" to train on, {validation:,} to validate" if validation else "")
    return ""


def _length(one: RunSummary, config: Mapping[str, Any]) -> str:
    """Return the length of a run and the rows per step, in words."""
    sizes = [(one.status.get("rows") or {}).get("training"), config.get("batch_size"), config.get("accumulate")]
    epochs = f", {count(config['epochs'], 'epoch')}" if isinstance(config.get("epochs"), int) else ""
    whole = all(isinstance(size, int) and size > 0 for size in sizes)
    return f"{one.steps:,}{epochs}" + (f", {run_screen.step_rows(*sizes)}" if whole else "")  # type: ignore[arg-type]


def _device(one: RunSummary, config: Mapping[str, Any]) -> str:
    """Return the device, the number type and the threads of a run, in words."""
    machine = one.segments[-1].get("machine", {}) if one.segments else {}
    known = flat(dict(config))
    facts = [show(machine.get("device", one.choices.get("device", known.get("device.type"))))]
    facts.append(show(known.get("device.dtype")))
    if isinstance(threads := known.get("device.threads"), int):
        facts.append(count(threads, "thread"))
    return ", ".join(facts)


def _segments(one: RunSummary) -> Iterator[tuple[str, ...]]:
    """Yield a line for each start of a run."""
    for segment in one.segments[-_STARTS:]:
        started = str(segment.get("started", "")).replace("T", " ")[:19]
        took = duration(segment["seconds"]) if "seconds" in segment else ""
        yield f"{segment.get('from_step', 0):,}", started, took, segment.get("command", "")


def _changes(one: RunSummary) -> dict[str, str]:
    """Return the lines about settings that were changed on resume, each with the step."""
    lines: dict[str, str] = {}
    config, now = dict(one.config), flat(dict(one.config))
    after: Mapping[str, Any] | None = None
    for segment in reversed(one.segments):
        then = flat(dict(segment.get("config", config)))
        keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        if keys and after is not None:
            change = ", ".join(f"{key} {show(then.get(key))} -> {show(now.get(key))}" for key in keys)
            lines = {f"changed at step {after.get('from_step', 0):,}": change, **lines}
        config, now, after = dict(segment.get("config", config)), then, segment
    return lines


def _circumstances(one: RunSummary) -> dict[str, str]:
    """Return the lines about versions, machine and commit, with the steps at which they changed."""
    lines: dict[str, str] = {}
    last: dict[str, str] = {}
    for segment in one.segments:
        texts = {
            "versions": ", ".join(f"{name} {show(value)}" for name, value in segment.get("versions", {}).items()),
            "machine": ", ".join(f"{name} {show(value)}" for name, value in segment.get("machine", {}).items()),
            "git": segment.get("git") or "",
        }
        for name, text in texts.items():
            if text and text != last.get(name):
                before = f"{lines[name]}; from step {segment.get('from_step', 0):,} on " if name in lines else ""
                lines[name] = before + text
            last[name] = text
    return lines


def _checkpoints(rundir: RunDirectory) -> Iterator[tuple[int, int]]:
    """Yield the step and the size in bytes of each checkpoint."""
    for step in manifest.steps(rundir.checkpoints):
        folder = rundir.checkpoints / manifest.name_of(step)
        try:
            yield step, sum(file.lstat().st_size for file in folder.iterdir())
        except OSError:
            continue  # the run is training and has pruned it


def _saved(one: RunSummary) -> dict[str, str]:
    saved = list(_checkpoints(RunDirectory(one.path)))
    best = one.best["step"] if one.best is not None else None
    marks: dict[int, list[str]] = {step: [] for step, _ in saved}
    if saved:
        marks[saved[-1][0]].append("last")
    if best in marks:
        marks[best].append("best")
    return {f"step {step:,}": ", ".join([*marks[step], size_of(size)]) for step, size in saved}


def _parameters(one: RunSummary, words: CommandLine) -> dict[str, Any]:
    """Return the weights, the gradients and the optimizer of a run as plain data.

    Raises:
        UsageError: There is no such checkpoint, or the code of the run is not trusted.
        BadCheckpoint: The checkpoint is damaged.
    """
    rundir, stored = open_run(str(one.path), words.flags, words.command, screen.note)
    from trainer.analysis import weights
    from trainer.session import restore

    found = restore.checkpoint_of(rundir, words.flags.get("checkpoint", "last"))
    if found is None:
        raise UsageError(f"{one.short} has no checkpoint yet")
    vouching.require(rundir, found.path)
    return weights.gather(found, stored, dict(one.choices))


def _print_parameters(one: RunSummary, weights: Mapping[str, Any]) -> None:
    held, after, optimizer = weights["parameters"], weights["next_step"], weights["optimizer"]
    total = sum(row["numbers"] for row in held if row["kind"] not in ("buffer", "shared"))
    screen.heading("parameters", f"{count(total, 'number')} of {one.short} after step {weights['step']:,}")
    screen.table(_numbers(held, [f"{row['name']}{_NOTES.get(row['kind'], '')}" for row in held]))
    about = f"of the next step, {after['step']:,}: {after['rows']}" if "step" in after else ""
    screen.heading("gradients", about)
    if "gradients" in after:
        screen.rows({key: number(after[key]) for key in ("loss", "norm", "lr")})
        screen.table(_numbers(after["gradients"], [row["name"] for row in after["gradients"]]))
    else:
        screen.say(f"  {after['problem']}")
    screen.heading("optimizer", f"{one.choices.get('optim', '')} at step {weights['step']:,}")
    for group in optimizer["settings"]:
        screen.rows({key: show(value) for key, value in group.items() if value is not None})
    if optimizer["state"]:
        screen.heading("optimizer state", "")
        screen.rows(_kept(optimizer["state"]))
    whole = f"trainer show {shlex.quote(one.short)}"
    screen.next_commands({whole: "see the whole run", f"{whole} --parameters --json": "get every number"})


def _numbers(found: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    """Return a table of tensors: all numbers, or their statistics if there are many."""
    keys = ("value",) if all("values" in one for one in found) else ("mean", "spread", "smallest", "largest")
    lines = []
    for name, one in zip(names, found, strict=True):
        cells = [numbers(one["values"])] if "values" in one else [_rounded(one.get(key)) for key in keys]
        lines.append((name, " x ".join(f"{size:,}" for size in one.get("shape", ())), *cells))
    headings = ["std" if key == "spread" else key for key in keys]
    return screen.columns(("name", "shape"), headings, lines)


def _kept(state: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the lines about an optimizer's state: the numbers for each weight, or their count if there are many."""
    if all("values" in one for one in state):
        return {f"{one['weight']} {one['name']}": numbers(one["values"]) for one in state}
    lines = {}
    for name in dict.fromkeys(one["name"] for one in state):
        alike = [one for one in state if one["name"] == name]
        values = [one.get("values") for one in alike]
        same = values[0] is not None and all(value == values[0] for value in values)
        total = sum(one.get("numbers", 1) for one in alike)
        lines[name] = numbers(values[0]) if same else count(total, "number")
    return lines


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
