"""A trained model: a checkpoint loaded together with its preprocessing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer import randomness
from trainer.checkpoints.store import Checkpoint
from trainer.config.settings import Settings
from trainer.data import Preprocess
from trainer.errors import RunFailed, TrainerError, UsageError
from trainer.runs.directory import RunDirectory
from trainer.runs.open import open_run
from trainer.session.prepare import kept_preprocess
from trainer.session.restore import choose
from trainer.session.run_state import load_weights
from trainer.training import devices
from trainer.training.build import build_model
from trainer.training.instantiate import locate, reason_of


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, ready to predict."""

    rundir: RunDirectory
    settings: Settings
    checkpoint: Checkpoint
    called: str
    model: nn.Module
    preprocess: Preprocess | None
    device: torch.device

    def predict(self, raw: Tensor) -> Tensor:
        """Return predictions (rows, outputs) for raw inputs: targets in their own units, or class scores.

        Raises:
            RunFailed: The model raises an error.
        """
        assert self.preprocess is not None
        seed = randomness.derived(self.settings.seed, randomness.EVALUATION, self.checkpoint.step)
        try:
            with torch.no_grad(), randomness.isolated(seed):
                prediction: Tensor = self.model(self.inputs(raw).to(self.device))
        except TrainerError:
            raise
        except Exception as error:  # a user's model may raise any exception
            raise RunFailed(f"the model can't predict: {reason_of(error)}") from error
        return self.preprocess.restored(prediction.cpu())

    def inputs(self, raw: Tensor) -> Tensor:
        """Return preprocessed rows for the model."""
        assert self.preprocess is not None
        whole = self.preprocess.array is not None and self.preprocess.array["whole"]
        prepared: Tensor = self.preprocess(raw)
        return prepared.to(torch.int64 if whole else devices.DTYPES[self.settings.device.dtype])


def load(word: str, flags: Mapping[str, str], command: str, warn: Callable[[str], None]) -> TrainedModel:
    """Load a run's model with the weights of a checkpoint; its training data are not needed.

    Args:
        word: The word typed for the run.
        flags: The flags of the command, as for `open_run`, and `checkpoint`: best, last or a step.
        command: The whole command, for messages that suggest it with another flag.
        warn: Called with each warning.

    Raises:
        UsageError: There is no such run or checkpoint, or the model can't be built.
    """
    rundir, settings = open_run(word, flags, command, warn)
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
            what = f"has {width} {name}, but the model has {settings.model[name]}"
            raise UsageError(f"{rundir.path / 'preprocess.json'} {what}")
    return TrainedModel(rundir, settings, found, called, model, preprocess, device)
