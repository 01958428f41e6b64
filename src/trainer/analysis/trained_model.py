"""A model that a run has trained: one of its checkpoints, chosen and loaded, with how its inputs are prepared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer import randomness
from trainer.checkpoints import manifest
from trainer.checkpoints.manifest import BadCheckpoint
from trainer.checkpoints.store import Checkpoint
from trainer.config.settings import Settings, check
from trainer.data import Preprocess
from trainer.errors import RunFailed, TrainerError, UsageError, refusal
from trainer.runs import find, user_code, vouching
from trainer.runs.directory import RunDir
from trainer.session.saver import chosen, load_weights
from trainer.session.train import kept_preprocess
from trainer.training import devices
from trainer.training.build import build_model
from trainer.training.instantiate import locate, reason_of


@dataclass(frozen=True)
class Trained:
    """A trained model, ready to be used."""

    rundir: RunDir
    settings: Settings
    checkpoint: Checkpoint
    called: str
    model: nn.Module
    preprocess: Preprocess | None
    device: torch.device

    def predict(self, raw: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for raw inputs: targets in their own units, or scores of classes.

        Raises:
            RunFailed: The model can't take them.
        """
        assert self.preprocess is not None
        seed = randomness.derived(self.settings.seed, randomness.EVALUATION, self.checkpoint.step)
        try:
            with torch.no_grad(), randomness.isolated(seed):
                prediction: Tensor = self.model(self.inputs(raw).to(self.device))
        except TrainerError:
            raise
        except Exception as error:  # a model of the user's may raise anything
            raise RunFailed(f"the model can't predict: {reason_of(error)}") from error
        return self.preprocess.restored(prediction.cpu())

    def inputs(self, raw: Tensor) -> Tensor:
        """Return raw rows as the model takes them."""
        assert self.preprocess is not None
        whole = self.preprocess.array is not None and self.preprocess.array["whole"]
        prepared: Tensor = self.preprocess(raw)
        return prepared.to(torch.int64 if whole else devices.DTYPES[self.settings.device.dtype])


def open_run(word: str, flags: Mapping[str, str], command: str) -> tuple[RunDir, Settings]:
    """Find a run whose model is to be used, and let its modules be imported if they are known.

    Args:
        word: What the user typed for it.
        flags: Those of the command: whether to trust the code that came with it, or to take modules as they are now.
        command: The whole command, to be typed again with a flag.

    Raises:
        UsageError: There is no such run, or it would import code that may be somebody else's.
    """
    path = find.find(word)
    if find.is_sweep(path):
        jobs = [RunDir(job).short for job in find.jobs(path)]
        raise refusal(word, f"is a sweep of {len(jobs)} jobs", [f"{RunDir(path).short}/best", *jobs[:8]])
    rundir = RunDir(path)
    config = rundir.read_config()
    settings = check(config)
    user_code.open_code({rundir: config}, command, "trust_code" in flags, "force" in flags)
    return rundir, settings


def choose(rundir: RunDir, asked: str) -> tuple[Checkpoint, str]:
    """Return a checkpoint of a run and what to call it.

    Args:
        rundir: The run.
        asked: best, last, or a step. Without evaluations the best is the last.

    Raises:
        UsageError: There is no such checkpoint, it is damaged, or what it is used with has been edited since.
    """
    try:
        found = chosen(rundir, asked)
    except BadCheckpoint as error:
        steps = manifest.steps(rundir.checkpoints)
        others = [str(step) for step in steps if manifest.name_of(step) not in str(error)]
        raise refusal(f"--checkpoint={asked}", str(error), others) from error
    if found is None:
        raise UsageError(f"{rundir.path}: no checkpoint has been saved yet; `trainer resume {rundir.short}` goes on")
    vouching.require(rundir, found.path)
    called = f"step {found.step:,}"
    if found.step == (rundir.read_status().get("best") or {}).get("step"):
        called += ", the best"
    elif found.step == manifest.steps(rundir.checkpoints)[-1]:
        called += ", the last"
    return found, called


def load(word: str, flags: Mapping[str, str], command: str) -> Trained:
    """Load a run's model with the weights of a checkpoint; the data it was trained on are not needed.

    Args:
        word: What the user typed for the run.
        flags: Those of the command, as for `open_run`, and which checkpoint: best, last or a step.
        command: The whole command, to be typed again with a flag.

    Raises:
        UsageError: There is no such run or checkpoint, or the model can't be built.
    """
    rundir, settings = open_run(word, flags, command)
    found, called = choose(rundir, flags.get("checkpoint", "best"))
    anywhere = dataclasses.replace(settings.device, type="auto", index=0)
    device = devices.choose(anywhere, getattr(locate(settings.model, "model"), "cpu_only", False))
    devices.prepare(anywhere)
    model = build_model(settings, device)
    load_weights(model, found.weights, str(found.path))
    model.eval()
    preprocess = kept_preprocess(rundir)
    for name, width in (("inputs", preprocess and preprocess.width), ("outputs", preprocess and preprocess.outputs)):
        if width is not None and settings.model.get(name) not in (None, width):
            what = f"says {width} {name}, and the model has {settings.model[name]}"
            raise UsageError(f"{rundir.path / 'preprocess.json'} {what}")
    return Trained(rundir, settings, found, called, model, preprocess, device)
