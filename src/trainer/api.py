"""`from trainer import fit`: trains a model from Python, as `trainer run` and `trainer resume` do."""

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

from trainer import quoting, randomness
from trainer.checkpoints import manifest, store
from trainer.config import arguments, secrets, targets
from trainer.config.arguments import CommandLine
from trainer.config.catalog import Catalog, near_path
from trainer.config.compose import compose_jobs, override
from trainer.config.option_files import with_source
from trainer.config.settings import COMPONENTS, Settings
from trainer.errors import UsageError
from trainer.files import plain_json
from trainer.launch.new_path import new_path
from trainer.launch.resume import as_composed, continuation, resumed
from trainer.launch.start import begin, follow
from trainer.runs import code_import, directory, find, own_modules
from trainer.runs.directory import RunDirectory
from trainer.runs.open import open_runs, require_same_files
from trainer.runs.status import HasStatus
from trainer.session.log_file import log
from trainer.session.logger_repair import repair
from trainer.session.restore import restore
from trainer.session.run_state import load_weights
from trainer.session.session import Request, Session
from trainer.session.stopping import Stopping
from trainer.terminal import run_screen, screen
from trainer.text import number
from trainer.training import devices
from trainer.training.python_parts import Objects


@dataclass(frozen=True, repr=False)
class Result(HasStatus):
    """A run that `fit` has trained.

    Args:
        path: The run directory, absolute.
        model: The trained model with its last weights, in evaluation mode.
        status: The content of status.json.
        objects: The parts that were passed to `fit` as objects, by group: `model`, `data`, ...
    """

    path: Path
    model: nn.Module
    status: Mapping[str, Any]
    objects: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> dict[str, Any] | None:
        """The best evaluation as `step`, `metric` and `value`; None without held-out rows."""
        return self.status["best"] and dict(self.status["best"])

    @property
    def config(self) -> dict[str, Any]:
        """All settings of the run as nested dicts, with the numbers that null stood for."""
        return dict(self.status["config"])

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, in order: one per logged step and one per evaluation."""
        return list(plain_json.json_lines(self.path / "metrics.jsonl"))

    @property
    def best_model(self) -> nn.Module:
        """A copy of the model with the weights of the best evaluation; the last weights without held-out rows."""
        model, step = copy.deepcopy(self.model), self.best["step"] if self.best else self.step
        found = store.load(RunDirectory(self.path).checkpoints / manifest.name_of(step))
        load_weights(model, found.weights, str(found.path))
        return model

    def __repr__(self) -> str:
        """Return one line: how training ended, the metrics, and the run directory."""
        values = ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in self.metrics.items())
        return f"<{self.state} at step {self.step:,}: {values}; {near_path(self.path)}>"


def fit(
    *words: str,
    resume: bool | str | Path | Result = False,
    quiet: bool = False,
    trust_code: bool = False,
    **settings: Any,
) -> Result:
    """Train a model in a new run directory, as `trainer run` does, or resume a run, as `trainer resume` does.

    An interrupt (Ctrl-C, or the stop button of a notebook) finishes the step, saves a checkpoint and returns; a second
    one raises KeyboardInterrupt at once. The number of threads, the random generators and the import path of your
    process are restored at the end.

    Example:
        ```
        import torch
        from torch import nn
        from trainer import fit

        x, y = torch.randn(200, 4), torch.randint(3, (200,))
        model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        run = fit(model=model, data=(x, y), loss="cross_entropy", optim="adam", optim__lr=1e-3, epochs=20)
        run.metrics["loss"]                     # also in run.path, for `trainer show` and `trainer plot`
        longer = fit(resume=run, epochs=40)     # trains 20 more epochs
        ```

    Args:
        words: Options and settings as typed after `trainer run`: "model=dynamic", "optim.lr=1e-4".
        resume: The run to resume: the result of an earlier call, or the word for a run that `trainer resume` takes: a
            path, an id, the last four letters of an id, "last" or "best". True resumes the run in `run_dir` if there
            is one and starts it otherwise.
        quiet: Whether to print nothing.
        trust_code: Whether to import modules that came with someone else's run, as `--trust-code` does.
        settings: Settings as keyword arguments, with two underscores for a dot: `optim__lr=1e-4`. `model`, `data`,
            `loss`, `optim` and `schedule` take the name of an option, an object, a class, or a dict with a `_target_`.
            `data` also takes a pair (inputs, targets) of tensors or arrays whose first dimension counts the rows.
            String targets are class labels; so are integer targets if the loss expects classes. `logger` takes the
            name of an option or a list of names.

    Returns:
        The finished run: its directory, model, metrics and history.

    Raises:
        UsageError: A word or a setting is wrong; nothing has been created.
        RunFailed: Training can't continue, for example because the loss is not finite; saved checkpoints remain.
        KeyboardInterrupt: A second interrupt came; saved checkpoints remain.
    """
    if resume is True:
        settings["resume"] = True
    with devices.put_back(), randomness.isolated(0), _import_path():
        own_modules.begin()
        given = _Given(words, settings, trust_code)
        session, is_complete = _begin(given) if isinstance(resume, bool) else _continue(given, resume)
        session = replace(session, stopping=Stopping(leave=_interrupt))
        rundir, built = session.rundir, session.built
        if is_complete:
            repair(rundir, built.settings, given.request.command, log.info if quiet else screen.note)
            restore(built, rundir, log.info if quiet else screen.note)
            if not quiet:
                run_screen.complete(rundir)
        else:
            follow(session, quiet)
    if session.stopping.signal not in (None, signal.SIGINT):
        signal.raise_signal(session.stopping.signal)  # other signals concern the whole process
    return Result(rundir.path.absolute(), built.run.model.eval(), rundir.read_status(), built.objects)


class _Given:
    """The arguments of `fit` as words of the command line and as objects."""

    def __init__(self, words: Sequence[str], settings: Mapping[str, Any], trust_code: bool) -> None:
        self.trust_code = trust_code
        parts = {group: part for group, part in settings.items() if group in COMPONENTS}
        self.objects = Objects({group: part for group, part in parts.items() if not isinstance(part, str)})
        words = list(words)
        for name, value in settings.items():
            if name not in self.objects.sections:
                words.append(quoting.word(name.replace("__", "."), value))
        if self.objects.dtype is not None and not any("device.dtype=" in word for word in words):
            words.append(f"device.dtype={self.objects.dtype}")
        self.catalog = Catalog()
        (choice,) = arguments.jobs(CommandLine(overrides=words), self.catalog)
        self.choice = replace(choice, sections=self.objects.sections)
        shown = secrets.words(words)
        named = (f"{group}={name}" for group, name in self.objects.names.items())
        self.request = Request(f"fit({', '.join([*map(repr, shown), *named])})", shown)

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Add the config file of the setting to a refusal in a block."""
        try:
            yield
        except UsageError as error:
            raise with_source(error, [self.choice], self.catalog) from error.__cause__


def _begin(given: _Given) -> tuple[Session, bool]:
    """Compose and write a run, or open the one that `resume=True` continues; also return whether it is complete."""
    with given.blamed():
        (job,) = compose_jobs([given.choice], given.catalog)
        job = replace(job, choices={**job.choices, **given.objects.names})
        parts = given.objects.parts(job.settings)
        if (path := resumed(job.settings)) is None:
            return begin(job, new_path(job.settings.run_dir), given.request, parts), False
    rundir, stored = _known(path, given, targets.own_targets(job.settings))
    continued = continuation(rundir, stored, as_composed(stored, job), job.choices, given.request)
    return continued.begin(parts), continued.is_complete


def _continue(given: _Given, resume: str | Path | Result) -> tuple[Session, bool]:
    """Open the run to resume; also return whether it is complete."""
    path, parts = (resume.path, resume.objects) if isinstance(resume, Result) else (resume, {})
    typed = {str(section["_target_"]) for section in given.choice.sections.values() if "_target_" in section}
    rundir, stored = _known(find.find(near_path(Path(path))), given, typed)
    changed = override(stored, given.choice, given.catalog)
    chosen = dict(word.split("=", 1) for word in given.choice.groups)
    continued = continuation(rundir, stored, changed, {**chosen, **given.objects.names}, given.request)
    return continued.begin({**parts, **given.objects.parts(changed)}), continued.is_complete


def _known(path: Path, given: _Given, typed: Collection[str]) -> tuple[RunDirectory, Settings]:
    """Return a run and its settings; its custom code can be imported from then on.

    Args:
        path: The run directory.
        given: The arguments of `fit`.
        typed: The classes that the arguments name.

    Raises:
        UsageError: It is a sweep, or it has code that the user does not trust.
    """
    rundir = directory.require_run(path, f"resume={RunDirectory(path).short!r}", repr)
    again = f"trainer resume {shlex.quote(rundir.short)}"
    (stored,), _ = open_runs([rundir], again, given.trust_code, typed=typed)
    require_same_files([rundir], again)
    return rundir, stored


@contextmanager
def _import_path() -> Iterator[None]:
    """Restore sys.path and sys.meta_path after a block."""
    before = sys.path[:]
    try:
        yield
    finally:
        sys.path[:] = before
        code_import.uninstall()


def _interrupt(number: int) -> None:
    raise KeyboardInterrupt
