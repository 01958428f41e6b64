"""A model that a run has trained: one of its checkpoints, chosen and loaded, with how its inputs are prepared."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer import device as devices
from trainer import generators, manifest, modules, runs
from trainer.build import build_model
from trainer.checkpoint import Checkpoint
from trainer.components import locate
from trainer.data import Preprocess
from trainer.errors import UsageError, refusal
from trainer.job import kept_preprocess
from trainer.manifest import BadCheckpoint
from trainer.rundir import RunDir
from trainer.saver import chosen, load_weights
from trainer.settings import Settings, check


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
        dtype = devices.DTYPES[self.settings.device.dtype]
        seed = generators.derived(self.settings.seed, generators.EVALUATION, self.checkpoint.step)
        with torch.no_grad(), generators.isolated(seed), devices.autocast(self.device, self.settings.device):
            prediction = self.model(self.preprocess(raw).to(self.device, dtype))
        return self.preprocess.restored(prediction.cpu())


def open_run(word: str, command: str, trust: bool) -> tuple[RunDir, Settings]:
    """Find a run whose model is to be used, and let its modules be imported if they are known.

    Args:
        word: What the user typed for it.
        command: The whole command, to be typed again with a flag.
        trust: Whether the user trusts the code that came with it.

    Raises:
        UsageError: There is no such run, or it would import code that may be somebody else's.
    """
    path = runs.find(word)
    if runs.is_sweep(path):
        jobs = [RunDir(job).short for job in runs.jobs(path)]
        raise refusal(word, f"is a sweep of {len(jobs)} jobs", [f"{RunDir(path).short}/best", *jobs[:8]])
    rundir = RunDir(path)
    settings = check(rundir.read_config())
    modules.require_known(rundir, settings, command, trust, force=False)
    if trust:
        modules.trust([rundir])
    return rundir, settings


def choose(rundir: RunDir, asked: str) -> tuple[Checkpoint, str]:
    """Return a checkpoint of a run and what to call it.

    Args:
        rundir: The run.
        asked: best, last, or a step. Without evaluations the best is the last.

    Raises:
        UsageError: There is no such checkpoint, or it is damaged.
    """
    try:
        found = chosen(rundir, asked)
    except BadCheckpoint as error:
        steps = manifest.steps(rundir.checkpoints)
        others = [str(step) for step in steps if manifest.name_of(step) not in str(error)]
        raise refusal(f"--checkpoint={asked}", str(error), others) from error
    if found is None:
        raise UsageError(f"{rundir.path}: no checkpoint has been saved yet; `trainer resume {rundir.short}` goes on")
    called = f"step {found.step:,}"
    if found.step == (rundir.read_status().get("best") or {}).get("step"):
        called += ", the best"
    elif found.step == manifest.steps(rundir.checkpoints)[-1]:
        called += ", the last"
    return found, called


def load(word: str, asked: str, command: str, trust: bool) -> Trained:
    """Load a run's model with the weights of a checkpoint; the data it was trained on are not needed.

    Args:
        word: What the user typed for the run.
        asked: best, last, or a step.
        command: The whole command, to be typed again with a flag.
        trust: Whether the user trusts the code that came with the run.

    Raises:
        UsageError: There is no such run or checkpoint, or the model can't be built.
    """
    rundir, settings = open_run(word, command, trust)
    found, called = choose(rundir, asked)
    anywhere = dataclasses.replace(settings.device, type="auto", index=0)
    device = devices.choose(anywhere, getattr(locate(settings.model, "model"), "cpu_only", False))
    devices.prepare(anywhere)
    model = build_model(settings, device)
    load_weights(model, found.weights, str(found.path))
    model.eval()
    return Trained(rundir, settings, found, called, model, kept_preprocess(rundir), device)
