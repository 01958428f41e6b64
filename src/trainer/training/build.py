"""Builds the components of a run from its settings and checks that they fit together."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from trainer import losses, optimizers, randomness
from trainer.config.settings import COMPONENTS, Settings
from trainer.data import Batches, Data, Items, Preprocess, Rows
from trainer.errors import refusal, unknown
from trainer.schedules import Schedule
from trainer.training import devices
from trainer.training.instantiate import (
    check_arguments,
    check_feeding,
    class_of,
    construct,
    locate,
    split_arguments,
    supplied,
)
from trainer.training.loop import Learner
from trainer.training.state import Counters

ALL_ROWS = 4096  # up to this many rows form a single batch by default
DEFAULT_BATCH = 256
EVALUATED = 2**24  # the largest number of input values in a batch of an evaluation
DEFAULT_STEPS = 500


@dataclass
class Built:
    """The components of a run, ready for the loop.

    Args:
        run: The learner.
        settings: The settings, completed with the loss and widths that the data determine.
        data: The data.
        device: The device.
        names: `GROUP=OPTION` of each component by group, for messages.
        objects: Components passed as objects or classes, by group.
    """

    run: Learner
    settings: Settings
    data: Data
    device: torch.device
    names: dict[str, str]
    objects: Mapping[str, Any] = field(default_factory=dict)

    @property
    def choices(self) -> dict[str, str]:
        """The selected option of each group."""
        return {group: name.partition("=")[2] for group, name in self.names.items()}


def build(
    settings: Settings,
    choices: dict[str, str] | None = None,
    kept: Preprocess | None = None,
    objects: Mapping[str, Any] | None = None,
) -> Built:
    """Build data, model, loss, optimizer and schedule, drawing random numbers in the order of a plain script.

    Args:
        settings: The checked settings.
        choices: The selected option of each group, for messages.
        kept: The preprocessing of an existing run.
        objects: Components passed as objects or classes, by group; they replace those of the settings.

    Raises:
        UsageError: A component can't be built, or the components don't fit together.
    """
    objects = objects or {}
    made = {group: part for group, part in objects.items() if not isinstance(part, type)}
    classes = {g: class_of(objects[g]) if g in objects else locate(getattr(settings, g), g) for g in COMPONENTS}
    names = {group: f"{group}={(choices or {}).get(group, cls.__name__)}" for group, cls in classes.items()}
    arguments = {group: _arguments(cls, settings, group, made.get(group)) for group, cls in classes.items()}

    def part(group: str, its_arguments: dict[str, Any]) -> Any:
        return made[group] if group in made else construct(group, classes[group], its_arguments, names[group])

    device = devices.choose(settings.device, getattr(classes["model"], "cpu_only", False))
    devices.prepare(settings.device)
    randomness.seed_all(settings.seed)
    with devices.default_dtype(settings.device.dtype), devices.memory_of(device):
        data = build_data(settings, classes["data"], arguments["data"], names["data"], kept, made.get("data"))
        if classes["loss"] is losses.Auto:
            option, section = losses.fitting(None if data.classes is None else len(data.classes))
            settings, names["loss"] = dataclasses.replace(settings, loss=section), f"loss={option}"
            classes["loss"] = locate(section, "loss")
            arguments["loss"] = check_arguments(classes["loss"], section, "loss")
        if "model" not in made:
            settings, arguments["model"] = match_widths(settings, classes["model"], arguments["model"], data, names)
        model: nn.Module = part("model", arguments["model"]).to(device)
        loss: nn.Module = part("loss", arguments["loss"]).to(device)
        require_inputs(model, data, names)
        training, validation = make_batches(settings, data, loss, device, names)
    steps = settings.steps or (settings.epochs or 0) * training.steps_per_epoch or DEFAULT_STEPS
    if "optim" in made:
        optimizer = require_optimizer(made["optim"], model, names)
    else:
        optimizer = build_optimizer(classes["optim"], arguments["optim"], model, names)
    schedule: Schedule = part("schedule", {**arguments["schedule"], **supplied(classes["schedule"], steps=steps)})
    require_possible(settings, model, training, names)
    monitor, mode = choose_monitor(settings, data, schedule)
    run = Learner(
        model=model,
        loss=loss,
        optimizer=optimizer,
        schedule=schedule,
        batches=training,
        validation=validation,
        autocast=devices.autocast(device, settings.device),
        steps=steps,
        eval_every=settings.eval_every or training.steps_per_epoch,
        save_every=settings.checkpoint.every,
        clip_norm=math.inf if settings.clip_norm is None else settings.clip_norm,
        monitor=monitor,
        mode=mode,
        patience=math.inf if settings.patience is None else settings.patience,
        max_skips=settings.max_skips if settings.on_nonfinite == "skip" else 0,
        max_divergence=settings.max_divergence,
        seed=settings.seed,
        classes=0 if data.classes is None else len(data.classes),
    )
    return Built(run, settings, data, device, names, objects)


def _arguments(cls: type[Any], settings: Settings, group: str, made: Any) -> dict[str, Any]:
    """Return the constructor arguments of a component; for a Dataset object, those that control how it is fed."""
    if made is None:
        return check_arguments(cls, getattr(settings, group), group)
    return check_feeding(getattr(settings, group)) if isinstance(made, Dataset) else {}


def require_possible(settings: Settings, model: nn.Module, training: Batches, names: dict[str, str]) -> None:
    """Refuse settings of the loop that the model or the batches don't allow."""
    if settings.on_nonfinite == "skip" and any(True for _ in model.buffers()):
        what = f"on_nonfinite=skip {names['model']}"
        raise refusal(what, "the model keeps running averages, which a bad row would corrupt", "on_nonfinite=stop")
    if settings.accumulate > 1 and training.batch_size == training.rows > 1:
        what = f"accumulate={settings.accumulate}"
        raise refusal(what, f"one batch holds all {training.rows} rows", f"batch_size below {training.rows}, or 1")


def resolved(built: Built, threads: int | None = None) -> Settings:
    """Return the settings with the numbers that null stands for."""
    asked = built.settings
    return dataclasses.replace(
        asked,
        steps=built.run.steps if asked.epochs is None else None,
        batch_size=built.run.batches.batch_size,
        device=dataclasses.replace(asked.device, threads=asked.device.threads or threads or torch.get_num_threads()),
        resume=False,
        run_dir=None,
    )


def build_model(settings: Settings, device: torch.device) -> nn.Module:
    """Build only the model of a run, with random weights.

    Args:
        settings: The settings of an existing run, which include the widths.
        device: The device of the model.

    Raises:
        UsageError: The model can't be built.
    """
    cls = locate(settings.model, "model")
    arguments = check_arguments(cls, settings.model, "model")
    with devices.default_dtype(settings.device.dtype), devices.memory_of(device):
        model: nn.Module = construct("model", cls, arguments, f"model={cls.__name__}")
        return model.to(device)


def build_data(
    settings: Settings,
    cls: type[Any],
    arguments: dict[str, Any],
    name: str,
    kept: Preprocess | None,
    made: Data | Dataset[Any] | None = None,
) -> Data:
    """Build, split and prepare the data; a Dataset of torch is wrapped in Items.

    Raises:
        UsageError: The data can't be read, or one side of the split is empty.
    """
    if isinstance(made, Data):
        data = copy.copy(made)  # the caller may use it for another run
    elif made is not None:
        data = construct("data", Items, {"dataset": made, **arguments}, name)
    elif issubclass(cls, Data):
        data = construct("data", cls, arguments, name)
    else:
        dataset, how = split_arguments(cls, arguments)
        data = construct("data", Items, {"dataset": construct("data", cls, dataset, name), **how}, name)
    try:
        data.prepare(settings.seed, kept)
    except ValueError as error:
        if not str(error).startswith("validation="):
            raise
        raise refusal(f"data.validation={data.validation}", str(error).partition(" ")[2]) from error
    return data


def match_widths(
    settings: Settings, cls: type[nn.Module], arguments: dict[str, Any], data: Data, names: dict[str, str]
) -> tuple[Settings, dict[str, Any]]:
    """Return the settings and the model's arguments with the widths of the data filled in.

    Raises:
        UsageError: The settings name a different width, or the model needs a width and the data have none.
    """
    parameters = inspect.signature(cls).parameters
    matched, section = dict(arguments), dict(settings.model)
    for name, width in (("inputs", data.inputs), ("outputs", data.outputs)):
        if name not in parameters:
            continue
        if width is None:
            raise refusal(
                f"{names['model']} {names['data']}",
                f"the model needs {name} and the data have none",
                "model=product with data=none",
            )
        asked = arguments.get(name)
        if asked not in (None, width):
            raise refusal(f"model.{name}={asked}", f"{names['data']} has {width} {name}", f"{width}, or leave it out")
        matched[name] = section[name] = width
    return dataclasses.replace(settings, model=section), matched


def require_inputs(model: nn.Module, data: Data, names: dict[str, str]) -> None:
    """Refuse data with inputs for a model without inputs, and the reverse."""
    example = data.example()
    inputs = () if example is None else (example,)
    try:
        inspect.signature(model.forward).bind(*inputs)
    except TypeError as error:
        pair = f"{names['model']} {names['data']}"
        if inputs:
            raise refusal(pair, "the model takes no inputs and the data have some", "data=none") from error
        raise refusal(pair, "the model takes inputs and the data have none", "model=product") from error


def make_batches(
    settings: Settings, data: Data, loss: nn.Module, device: torch.device, names: dict[str, str]
) -> tuple[Batches, Batches | None]:
    """Return the training batches, and the batches of the held-out rows or None.

    Raises:
        UsageError: The loss doesn't support the targets, or a batch is larger than the data.
    """
    try:
        form = losses.form_of(loss, None if data.classes is None else len(data.classes))
        training = data.part(data.training, form, device)
        held_out = None if data.held_out is None else data.part(data.held_out, form, device)
    except ValueError as error:
        hint = "data.classes=true" if settings.data.get("classes", True) is None else None
        if "between 0 and 1" in str(error) and settings.data.get("standardize"):
            hint = "data.standardize=false"
        raise refusal(f"{names['loss']} {names['data']}", str(error), (), hint) from error
    if data.classes is not None and isinstance(loss, losses.OVER_NUMBERS):
        data.warnings = (*data.warnings, f"{names['loss']} compares predictions with one-hot encoded classes")
    count, summed = len(training), losses.is_sum(loss)
    batch_size = settings.batch_size or (count if count <= ALL_ROWS else DEFAULT_BATCH)
    if batch_size > count:
        dropped = data.facts().get("dropped")
        lost = f"; {dropped:,} incomplete rows were dropped" if dropped else ""
        raise refusal(f"batch_size={batch_size}", f"the data have {count} training rows{lost}", f"1 to {count}")
    batches = Batches(training, batch_size, settings.accumulate, settings.seed, summed)
    if held_out is None:
        return batches, None
    return batches, evaluation_batches(held_out, data, batches)


def evaluation_batches(rows: Rows, data: Data, training: Batches) -> Batches:
    """Return the batches of an evaluation: as large as the training batches, or larger if memory allows.

    Args:
        rows: The rows to evaluate.
        data: Their data set.
        training: The training batches.
    """
    size = max(training.batch_size, min(ALL_ROWS, EVALUATED // max(data.inputs or 1, 1)))
    return Batches(rows, min(size, len(rows)), 1, training.seed, training.summed)


def build_optimizer(
    cls: type[torch.optim.Optimizer], arguments: dict[str, Any], model: nn.Module, names: dict[str, str]
) -> torch.optim.Optimizer:
    """Build the optimizer of the model's trainable parameters.

    Raises:
        UsageError: The model has none, or the optimizer refuses them.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise refusal(names["model"], "has no parameters to train")
    if arguments.get("fused") and not _can_be_fused(cls, model, parameters, arguments):
        arguments = {**arguments, "fused": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = f"{names['model']} {names['optim']}"
        optimizer = construct("optim", cls, {"params": parameters, **arguments}, name)
    return require_optimizer(optimizer, model, names)


def _can_be_fused(
    cls: type[torch.optim.Optimizer], model: nn.Module, parameters: list[nn.Parameter], arguments: dict[str, Any]
) -> bool:
    """Return whether torch's fused kernels can update these weights.

    The kernels assume the same memory layout of weight and state, support neither sparse gradients nor complex numbers,
    and lose small updates in bfloat16. The kernel of Adagrad supports only the CPU.
    """
    if issubclass(cls, torch.optim.Adagrad) and not all(p.is_cpu for p in parameters):
        return False
    supported = all(p.is_contiguous() and p.is_floating_point() and p.dtype != torch.bfloat16 for p in parameters)
    sparse = any(getattr(module, "sparse", False) for module in model.modules())
    return supported and not sparse and not arguments.get("foreach") and not arguments.get("differentiable")


def optimizer_like(built: Built, model: nn.Module) -> torch.optim.Optimizer:
    """Return an optimizer like that of a run, for the weights of a copy of its model."""
    cls = type(built.run.optimizer)
    if "optim" in built.objects:
        return optimizers.over(built.run.optimizer, built.run.model, model)
    return build_optimizer(cls, check_arguments(cls, built.settings.optim, "optim"), model, built.names)


def require_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, names: dict[str, str]
) -> torch.optim.Optimizer:
    """Return the optimizer, prepared for the loop.

    Raises:
        UsageError: It has no learning rate, or it optimizes weights of another model.
    """
    weights = {id(p) for p in model.parameters()}
    if any(id(p) not in weights for group in optimizer.param_groups for p in group["params"]):
        raise refusal(names["optim"], "optimizes weights that don't belong to the given model")
    for group in optimizer.param_groups:
        if group.get("lr") is None:
            raise refusal(names["optim"], "its param_groups have no lr for the schedule to set")
        group.setdefault("initial_lr", group.get("lr"))
    return optimizer


def choose_monitor(settings: Settings, data: Data, schedule: Schedule) -> tuple[str | None, str]:
    """Return the metric for the best checkpoint, patience and plateau, and whether min or max is better.

    Raises:
        UsageError: The metric doesn't exist, or a setting needs one and no rows are held out.
    """
    available = ["validation_loss"] + (["validation_accuracy"] if data.classes else [])
    if data.held_out is None:
        watchers = {
            f"monitor={settings.monitor}": settings.monitor is not None,
            f"mode={settings.mode}": settings.mode is not None,
            f"patience={settings.patience}": settings.patience is not None,
            f"eval_every={settings.eval_every}": settings.eval_every is not None,
            "schedule=plateau": type(schedule).observe is not Schedule.observe,
        }
        for what, watches in watchers.items():
            if watches:
                raise refusal(what, "needs validation data", "data.validation=0.2")
        return None, "min"
    monitor = settings.monitor or "validation_loss"
    if monitor not in available:
        raise unknown(f"monitor={monitor}", "no such metric", monitor, available, "monitor=")
    return monitor, settings.mode or ("max" if monitor == "validation_accuracy" else "min")


def copied(built: Built) -> Learner:
    """Return a copy of a run at step 0, in training mode, that shares no state with the run."""
    run = built.run
    model = copy.deepcopy(run.model)
    model.train()
    return dataclasses.replace(
        run,
        model=model,
        loss=copy.deepcopy(run.loss),
        optimizer=optimizer_like(built, model),
        schedule=copy.deepcopy(run.schedule),
        batches=copy.copy(run.batches),
        state=Counters(),
    )
