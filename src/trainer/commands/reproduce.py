"""`trainer reproduce`: repeats a run, or the jobs of a sweep, and reports whether all bits are the same."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.config import arguments, secrets, settings
from trainer.config.arguments import CommandLine
from trainer.config.changes import changed_by
from trainer.errors import UsageError, refusal
from trainer.files.plain_json import finite
from trainer.runs import directory, entries, find, moved_files, sweep_file, user_code
from trainer.runs.directory import RunDirectory
from trainer.runs.history import History, NothingYet, course
from trainer.runs.open import require_unedited
from trainer.session.stopping import Stopping
from trainer.terminal import advice
from trainer.text import count, duration, show, typed

if TYPE_CHECKING:
    from trainer.analysis.reproduction import Difference, Finding
    from trainer.session.display import Display, Standing
    from trainer.training.build import Built

FLAGS = ("--trust-code", "--force", "--json", *arguments.CONFIG_DIR_FLAGS)


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS, "reproduce")
    path = find.find(words.take_run())
    is_sweep, as_json = directory.is_sweep(path), "json" in words.flags
    folders = directory.jobs(path) if is_sweep else [path]
    configs = {rundir: rundir.read_config() for rundir in map(RunDirectory, folders)}
    histories = list(_histories(configs, words)) if is_sweep else [_history(*one, words) for one in configs.items()]
    repeated = {of.rundir: configs[of.rundir] for of in histories}
    user_code.open_code(repeated, words.command, "trust_code" in words.flags, "force" in words.flags)
    from trainer.terminal import screen

    findings = []
    with Stopping() as stopping:
        for of in histories:
            if stopping():
                break
            try:
                findings.append(_repeat(of, stopping, with_header=not is_sweep))
            except UsageError as error:
                raise error.within(of.rundir.short) from error
            if is_sweep and not as_json:
                job = " ".join(filter(None, [of.rundir.path.name, typed(of.status.get("swept", {}))]))
                screen.say(f"{job}: {_verdict(findings[-1])}")
    if as_json:
        found = [_plain(finding) for finding in findings]
        screen.as_json(found if is_sweep else found[0])
    elif is_sweep:
        _show_sweep(histories, findings)
    else:
        _show(histories[0], findings[0])
    if stopping.signal is not None:
        return 128 + stopping.signal
    return 0 if all(finding.is_identical for finding in findings) else 1


def _histories(configs: Mapping[RunDirectory, dict[str, Any]], words: CommandLine) -> Iterator[History]:
    """Yield the histories of the jobs of a sweep that have started."""
    from trainer.terminal import screen

    for rundir, config in configs.items():
        try:
            yield _history(rundir, config, words)
        except NothingYet as nothing:
            screen.note(str(nothing))
        except UsageError as error:
            raise error.within(f"job {rundir.path.name}") from error


def _history(rundir: RunDirectory, config: dict[str, Any], words: CommandLine) -> History:
    """Return the history of a run; nothing of the run is imported yet.

    Raises:
        UsageError: There is nothing to compare, or a word sets more than a secret of the run.
    """
    stored = settings.check(config)
    require_unedited(rundir, rows=False)  # the rows are compared one by one
    given, _ = changed_by(words, stored)
    files = rundir.read_status().get("data", {}).get("files", {})
    moved = moved_files.moved(files, stored.data, given.data)
    for change in settings.differences(stored, given):
        if change.key.removeprefix("data.") in moved:
            continue
        raise refusal(f"{change.key}={show(change.new)}", f"the run has {show(change.old)} and is repeated unchanged")
    from trainer.terminal import screen

    for remark in moved_files.remarks(files, stored.data, given.data):
        screen.note(remark)
    return course(
        rundir, {**stored.to_dict(), "data": {**stored.data, **moved}}, dict(secrets.secrets(given.to_dict()))
    )


def _repeat(of: History, stopping: Stopping, with_header: bool) -> Finding:
    """Repeat a run and show its progress."""
    from trainer.analysis.reproduction import reproduce
    from trainer.terminal import run_screen, screen

    def open_screen(built: Built, standing: Standing) -> Display:
        if with_header:
            run_screen.opening("reproducing", of.rundir, of.status)
            run_screen.header(built, {**of.status.get("choices", {}), **built.choices}, of.rundir)
        return run_screen.progress(standing)

    return reproduce(of, open_screen, screen.note, stopping)


def _show(of: History, finding: Finding) -> None:
    """Print the result of repeating one run, and the next commands."""
    from trainer.terminal import screen

    again = shlex.quote(of.rundir.short)
    done = f"{count(finding.step, 'step')} in {duration(finding.seconds)}"
    lines = {"run": str(of.rundir.path)}
    if finding.failure is not None:
        lines["failed"] = finding.failure
    lines.update((change.partition(": ")[0], change.partition(": ")[2]) for change in finding.circumstances)
    if finding.stopped:
        screen.result("stopped", f"{done} of {of.end:,}; identical so far")
        commands = {f"trainer reproduce {again}": "start over"}
    elif finding.is_identical:
        so_far = "" if of.has_ended else ", up to its last checkpoint"
        weights = f"the weights of {count(len(finding.checkpoints), 'checkpoint')}"
        what = f"{count(finding.rows, 'row')} of metrics and {weights}, bit for bit"
        screen.result("identical", f"{done}{so_far}: {what}")
        commands = advice.after(entries.entry(of.rundir.path).state, of.rundir, of.status)
    else:
        screen.result("different", _verdict(finding).partition(" ")[2])
        if not finding.circumstances:
            why = "it may depend on the clock or on other randomness outside the seed"
            if sweep_file.launcher_of(of.rundir.path) == "vectorized":
                why = "it was trained in one program with other jobs, which rounds differently"
            lines["unchanged"] = f"versions, machine, commit and modules; {why}"
        commands = {f"trainer verify {again}": "check its files"}
        if any(change.endswith(".py: has changed") for change in finding.circumstances):
            commands[f"trainer reproduce {again} --trust-code"] = "repeat it with the modules of the run"
    screen.rows(lines)
    screen.next_commands(commands)


def _show_sweep(histories: Sequence[History], findings: Sequence[Finding]) -> None:
    from trainer.terminal import screen

    same = sum(finding.is_identical for finding in findings)
    screen.say(f"{same} of {count(len(histories), 'job')} are identical")
    changes = dict.fromkeys(change for finding in findings for change in finding.circumstances)
    screen.rows({change.partition(": ")[0]: change.partition(": ")[2] for change in changes})
    other = next((of for of, finding in zip(histories, findings, strict=False) if finding.difference is not None), None)
    if other is not None:
        screen.next_commands({f"trainer reproduce {shlex.quote(other.rundir.short)}": "see one that differs"})


def _verdict(finding: Finding) -> str:
    """Return the result of repeating a run in one line."""
    if finding.difference is None:
        return "stopped" if finding.stopped else "identical"
    return f"different from step {finding.difference.step:,} on: {_difference(finding.difference)}"


def _difference(difference: Difference) -> str:
    """Return how a run and its repetition differ, in words."""
    what, then, now = difference.what, difference.then, difference.now
    if what == "failure":
        return f"it {'did not fail' if then is None else f'failed ({then})'} and now it {_failed(now)}"
    if what == "row":
        return f"metrics.jsonl has {_row(then)}, and now there is {_row(now)}"
    if what == "checkpoint":
        return str(then)
    if what == "metrics.jsonl":
        return f"metrics.jsonl can't be read: {then}"
    by = f", {difference.by}" if difference.by else ""
    return f"{what.replace('_', ' ')} was {show(then)} and is {show(now)}{by}"


def _failed(reason: str | None) -> str:
    return "does not" if reason is None else f"fails ({reason})"


def _row(row: Any) -> str:
    if row is None:
        return "no row"
    step = row.get("step") if isinstance(row, dict) else None
    return f"a row of {'another kind' if step is None else f'step {step}'}"


def _plain(finding: Finding) -> dict[str, Any]:
    return {"identical": finding.is_identical, **finite(dataclasses.asdict(finding))}
