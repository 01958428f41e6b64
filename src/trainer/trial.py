"""One step on a copy of a run: what can't train together is refused before anything is created."""

from __future__ import annotations

import copy
import warnings
from typing import Any

from torch import Tensor, nn

from trainer import generators, losses
from trainer.build import Built, build_optimizer
from trainer.components import check_arguments
from trainer.errors import TrainerError, refusal


def require_shape(loss: nn.Module, prediction: Any, targets: Tensor, names: str) -> None:
    """Refuse predictions that a loss over numbers could only compare with the targets by broadcasting."""
    if not isinstance(prediction, Tensor):
        raise refusal(names, f"the model returns a {type(prediction).__name__}, not a tensor")
    if isinstance(loss, losses.OVER_NUMBERS + losses.OVER_PROBABILITIES) and prediction.shape != targets.shape:
        shapes = f"{list(prediction.shape)}, the targets {list(targets.shape)}"
        raise refusal(names, f"the model's predictions have the shape {shapes}")


def try_out(built: Built) -> None:
    """Take one step on a copy, so that what can't train together is refused before anything is created.

    Raises:
        UsageError: The step or an evaluation fails.
    """
    run = built.run
    names = " ".join(built.names[group] for group in ("model", "loss", "optim", "data"))
    batch = run.batches.smallest()
    with generators.isolated(generators.derived(run.seed, generators.TRIAL, 0)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = copy.deepcopy(run.model)
            prediction = model(*batch.inputs)
            require_shape(run.loss, prediction, batch.targets, names)
            arguments = check_arguments(type(run.optimizer), built.settings.optim, "optim")
            optimizer = build_optimizer(type(run.optimizer), arguments, model, {"model": "model"})

            def closure() -> float:
                optimizer.zero_grad()
                with run.autocast:
                    loss = run.loss(model(*batch.inputs), batch.targets)
                if not isinstance(loss, Tensor) or loss.ndim != 0:
                    shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                    raise ValueError(f"the loss must be one number, not {shape}")
                loss.backward()
                return float(loss)

            optimizer.step(closure)
        except (TrainerError, KeyboardInterrupt):
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise refusal(names, f"a step can't be taken: {reason}") from error
