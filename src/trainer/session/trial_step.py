"""Takes one step on a copy of a run, to refuse parts that can't train together before anything is created."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from typing import Any

from torch import Tensor, nn

from trainer import losses, randomness
from trainer.data import Batch
from trainer.errors import TrainerError, refusal
from trainer.session import bounds, logger_feed
from trainer.training.build import Built, optimizer_like
from trainer.training.instantiate import reason_of
from trainer.training.loop import NonFinite, fit
from trainer.training.state import Counters


def try_out(built: Built) -> None:
    """Train a copy of a run for one step on a few rows.

    Raises:
        UsageError: A logger can't be built, the step or the evaluation fails, or a checkpoint can't hold the result.
    """
    run = built.run
    logger_feed.build_loggers(built.settings, run.steps)
    bounds.require_weights(built.names["model"], run.model)
    names = " ".join(built.names[group] for group in ("model", "loss", "optim", "data"))
    with randomness.isolated(randomness.derived(run.seed, randomness.TRIAL, 0)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batches = run.batches.sample()
        try:
            model, loss = copy.deepcopy(run.model), copy.deepcopy(run.loss)
            with run.autocast:
                require_loss(model, loss, batches.at(0)[0], names)
            trial = dataclasses.replace(
                run,
                model=model,
                loss=loss,
                optimizer=optimizer_like(built, model),
                schedule=copy.deepcopy(run.schedule),
                batches=batches,
                validation=run.validation and run.validation.sample(),
                steps=1,
                eval_every=1,
                state=Counters(),
            )
            fit(trial)
            bounds.require_training(trial.optimizer.state_dict(), trial.schedule.state_dict())
        except NonFinite:
            return  # training reports the error, with the rows and a remedy
        except TrainerError:
            raise
        except Exception as error:
            reason = f"a training step fails: {reason_of(error)}"
            if batches.rows == 1 < run.batches.rows:
                reason += (
                    f" (the last batch of an epoch has one of {run.batches.rows:,} rows; another batch_size helps)"
                )
            raise refusal(names, reason) from error


def require_loss(model: nn.Module, loss: nn.Module, batch: Batch, names: str) -> None:
    """Refuse predictions that the loss would have to broadcast against the targets, and a loss that is not a scalar.

    Raises:
        UsageError: Names the expected and the actual shape.
    """
    prediction: Any = model(*batch.inputs)
    if not isinstance(prediction, Tensor):
        raise refusal(names, f"the model returns a {type(prediction).__name__}, not a tensor")
    strict = isinstance(loss, losses.OVER_NUMBERS + losses.OVER_PROBABILITIES)
    same = prediction.shape == batch.targets.shape
    reshaped = batch.targets.is_floating_point() and prediction.numel() == batch.targets.numel()
    if not same and (strict or reshaped):
        shapes = f"{list(prediction.shape)}, the targets {list(batch.targets.shape)}"
        raise refusal(names, f"the model's predictions have the shape {shapes}")
    value: Any = loss(prediction, batch.targets)
    if not isinstance(value, Tensor) or value.ndim != 0:
        found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise refusal(names, f"the loss must be one number, not {found}")
