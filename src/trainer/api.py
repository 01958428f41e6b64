"""`from trainer import fit`: what `trainer run` and `trainer resume` do, from Python and with objects of one's own."""

from __future__ import annotations

import copy
import shlex
import signal
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from trainer import randomness
from trainer.checkpoints import manifest, store
from trainer.config import arguments, secrets, targets
from trainer.config.arguments import CommandLine
from trainer.config.catalog import Catalog, near_path
from trainer.config.compose import compose_jobs, override
from trainer.config.option_files import with_source
from trainer.config.settings import COMPONENTS, Settings, check
from trainer.errors import UsageError, refusal
from trainer.files import plain_json
from trainer.launch.resume import as_composed, continuation, resumed
from trainer.launch.start import Begun, begin, follow
from trainer.runs import code_import, directory, find, own_modules, user_code
from trainer.runs.directory import RunDirectory
from trainer.runs.new_path import new_path
from trainer.runs.open import require_same_files
from trainer.session.log_file import log
from trainer.session.logger_repair import repair
from trainer.session.restore import restore
from trainer.session.run_state import load_weights
from trainer.session.stopping import Stopping
from trainer.terminal import run_screen, screen
from trainer.text import number
from trainer.training import devices
from trainer.training.python_parts import Objects


@dataclass(frozen=True, repr=False)
class Result:
    """A run that `fit` has trained.

    Args:
        path: Its directory.
        model: The trained model with its last weights, in evaluation mode.
        status: What its status.json says.
        objects: The parts that were handed to `fit`, by group.
    """

    path: Path
    model: nn.Module
    status: Mapping[str, Any]
    objects: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """How it ended: done, or stopped by an interrupt."""
        return str(self.status["state"])

    @property
    def step(self) -> int:
        """Finished steps."""
        return int(self.status["step"])

    @property
    def metrics(self) -> dict[str, float | None]:
        """The last loss and the last evaluation, by name."""
        return dict(self.status["metrics"])

    @property
    def best(self) -> dict[str, Any] | None:
        """The best evaluation: its step, metric and value; None without validation data."""
        return self.status["best"] and dict(self.status["best"])

    @property
    def config(self) -> dict[str, Any]:
        """All settings, with the numbers that were used."""
        return dict(self.status["config"])

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl: one a step and one an evaluation."""
        return list(plain_json.json_lines(self.path / "metrics.jsonl"))

    @property
    def best_model(self) -> nn.Module:
        """A copy of the model with the weights of the best evaluation; without one, with the last."""
        model, step = copy.deepcopy(self.model), self.best["step"] if self.best else self.step
        found = store.load(RunDirectory(self.path).checkpoints / manifest.name_of(step))
        load_weights(model, found.weights, str(found.path))
        return model

    def __repr__(self) -> str:
        """Return how it ended, in a line."""
        values = ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in self.metrics.items())
        return f"<{self.state} at step {self.step:,}: {values}; {near_path(self.path)}>"


def fit(
    *words: str,
    resume: bool | str | Path | Result = False,
    quiet: bool = False,
    trust_code: bool = False,
    **settings: Any,
) -> Result:
    """Train a model in a run directory of its own, as `trainer run` does, and return when it has ended.

    An interrupt (Ctrl-C, or the stop button of a notebook) finishes the step, saves and returns; a second one raises
    KeyboardInterrupt at once. Threads, random generators and import paths are left as they were.

    Args:
        words: Choices and settings as one types them after `trainer run`: "model=dynamic", "optim.lr=1e-4".
        resume: A run to go on with, as after `trainer resume`: a path, an id, its four letters, last or best; or what
            `fit` has returned. True goes on with `run_dir` if it is there, else begins it.
        quiet: Whether to show nothing.
        trust_code: Whether to import the modules that came with a run of somebody else's, as `--trust-code` does.
        settings: The same as the words, by name; two underscores stand for a dot: `optim__lr=1e-4`. `model`, `data`,
            `loss`, `optim` and `schedule` take the name of an option, an object, a class, or a dict with a `_target_`;
            `data` also takes a pair (inputs, targets) of tensors or arrays. Targets that are texts are classes, and so
            are whole numbers where the loss wants classes. `logger` takes the name of an option or a list of names.

    Raises:
        UsageError: A word or a setting is wrong; nothing has been created.
        RunFailed: Training met something it can't go on from; what was saved before stays.
    """
    stopping = Stopping(leave=_interrupt)
    if resume is True:
        settings["resume"] = True
    with devices.put_back(), randomness.isolated(0), _import_path():
        own_modules.begin()
        given = _Given(words, settings, trust_code)
        begun, is_complete = _begin(given) if isinstance(resume, bool) else _continue(given, resume)
        if is_complete:
            repair(begun.rundir, begun.built.settings, given.command, log.info if quiet else screen.note)
            restore(begun.built, begun.rundir, screen.note)
            if not quiet:
                run_screen.complete(begun.rundir)
        else:
            follow(begun, given.command, given.words, stopping=stopping, quiet=quiet)
    if stopping.signal not in (None, signal.SIGINT):
        signal.raise_signal(stopping.signal)  # it was meant for the whole process
    model = begun.built.run.model.eval()
    return Result(begun.rundir.path.absolute(), model, begun.rundir.read_status(), begun.built.objects)


class _Given:
    """What `fit` was called with, as words of the command line and as objects."""

    def __init__(self, words: Sequence[str], settings: Mapping[str, Any], trust_code: bool) -> None:
        self.trust_code = trust_code
        parts = {group: part for group, part in settings.items() if group in COMPONENTS}
        self.objects = Objects({group: part for group, part in parts.items() if not isinstance(part, str)})
        self.words = list(words)
        for name, value in settings.items():
            if name not in self.objects.sections:
                self.words.append(arguments.word(name.replace("__", "."), value))
        if self.objects.dtype is not None and not any("device.dtype=" in word for word in self.words):
            self.words.append(f"device.dtype={self.objects.dtype}")
        self.catalog = Catalog()
        (choice,) = arguments.jobs(CommandLine(overrides=self.words), self.catalog)
        self.choice = replace(choice, sections=self.objects.sections)
        self.words = secrets.words(self.words)

    @property
    def command(self) -> str:
        """The call, for the record."""
        objects = (f"{group}={name}" for group, name in self.objects.names.items())
        return f"fit({', '.join([*map(repr, self.words), *objects])})"

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Name the file that a setting stands in which is refused in a block."""
        try:
            yield
        except UsageError as error:
            raise with_source(error, [self.choice], self.catalog) from error.__cause__


def _begin(given: _Given) -> tuple[Begun, bool]:
    """Compose and write a run, or go on with the one that `resume=True` means; say whether that is complete."""
    with given.blamed():
        (job,) = compose_jobs([given.choice], given.catalog)
        job = replace(job, choices={**job.choices, **given.objects.names})
        parts = given.objects.parts(job.settings)
        if (path := resumed(job.settings)) is None:
            return begin(job, new_path(job.settings.run_dir), parts), False
    rundir, stored = _known(path, given, targets.own_targets(job.settings))
    continued = continuation(rundir, stored, as_composed(stored, job), job.choices)
    return continued.begin(given.command, parts), continued.is_complete


def _continue(given: _Given, resume: str | Path | Result) -> tuple[Begun, bool]:
    """Go on with a run; say whether it is complete."""
    path, parts = (resume.path, resume.objects) if isinstance(resume, Result) else (resume, {})
    typed = {str(section["_target_"]) for section in given.choice.sections.values() if "_target_" in section}
    rundir, stored = _known(find.find(near_path(Path(path))), given, typed)
    changed = override(stored, given.choice, given.catalog)
    chosen = dict(word.split("=", 1) for word in given.choice.groups)
    continued = continuation(rundir, stored, changed, {**chosen, **given.objects.names})
    return continued.begin(given.command, {**parts, **given.objects.parts(changed)}), continued.is_complete


def _known(path: Path, given: _Given, typed: Collection[str]) -> tuple[RunDirectory, Settings]:
    """Return a run with its settings, whose own code may be imported.

    Raises:
        UsageError: It is a sweep, or its code may be somebody else's.
    """
    rundir = RunDirectory(path)
    if directory.is_sweep(path):
        jobs = [repr(RunDirectory(job).short) for job in directory.jobs(path)]
        raise refusal(f"resume={rundir.short!r}", "is a sweep of several jobs", jobs[:8])
    config = rundir.read_config()
    stored = check(config)
    again = f"trainer resume {shlex.quote(rundir.short)}"
    user_code.open_code({rundir: config}, again, given.trust_code, typed=typed)
    require_same_files([rundir], again)
    return rundir, stored


@contextmanager
def _import_path() -> Iterator[None]:
    """Put sys.path and sys.meta_path back after a block."""
    before = sys.path[:]
    try:
        yield
    finally:
        sys.path[:] = before
        code_import.uninstall()


def _interrupt() -> None:
    raise KeyboardInterrupt
