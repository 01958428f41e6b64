"""Resolves `_target_` to a class and checks the arguments against its signature before calling it."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import textwrap
import traceback
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.utils.data import Dataset

from trainer.config import targets
from trainer.config.annotations import describe, fits, misfit
from trainer.config.settings import OBJECT
from trainer.data import Data, Items
from trainer.errors import TrainerError, UsageError, nearest, refusal, unknown
from trainer.loggers import Logger
from trainer.schedules import Schedule
from trainer.text import show

KINDS: dict[str, tuple[type, ...]] = {
    "model": (nn.Module,),
    "data": (Data, Dataset),
    "loss": (nn.Module,),
    "optim": (torch.optim.Optimizer,),
    "schedule": (Schedule,),
    "logger": (Logger,),
}
PUBLIC = {
    nn.Module: "torch.nn.Module",
    torch.optim.Optimizer: "torch.optim.Optimizer",
    Dataset: "torch.utils.data.Dataset",
    Data: "trainer.data.Data",
    Schedule: "trainer.schedules.Schedule",
    Logger: "trainer.loggers.Logger",
}
SUPPLIED = {"optim": ("params",), "schedule": ("steps",), "logger": ("steps",)}  # arguments that the run supplies
WIDTHS = ("model.inputs", "model.outputs")  # null takes the width from the data
Part = TypeVar("Part")
_LONGEST_REASON = 300


def locate(component: dict[str, Any], group: str) -> type[Any]:
    """Return the class named by the `_target_` of a component.

    Args:
        component: The section of the component in the configuration.
        group: The name of that section: a group, or a section of a group (logger.csv).

    Raises:
        UsageError: There is no such class, or it doesn't belong to the group.
    """
    if OBJECT in component:
        reason = "is an object passed to fit() in Python; only fit() can continue this run"
        raise refusal(f"{group}.{OBJECT}={component[OBJECT]}", reason, f"fit({group}=..., resume=RUN)")
    target = component.get("_target_")
    if not isinstance(target, str):
        raise refusal(f"{group}", "selects nothing", f"{group}=OPTION; trainer list {group} shows them")
    module_name, _, class_name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ValueError as error:
        raise refusal(f"{group}._target_={target}", "is not the name of a class in a module") from error
    except (Exception, SystemExit) as error:  # a user's module may raise any exception
        raise refusal(f"{group}._target_={target}", f"can't be imported: {reason_of(error)}") from error
    found = getattr(module, class_name, None)
    kinds = KINDS[_group_of(group)]
    if isinstance(found, type) and targets.is_ours(target) and not found.__module__.startswith(("trainer.", "torch.")):
        raise refusal(f"{group}._target_={target}", "is an alias of another class", f"{found.__module__}.{class_name}")
    if not isinstance(found, type) or not issubclass(found, kinds):
        public = [n for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, kinds)]
        near = nearest(class_name, public)
        base = " or ".join(PUBLIC[kind] for kind in kinds)
        what = f"has no {class_name}" if found is None else f"is not a class derived from {base}"
        raise refusal(
            f"{group}._target_={target}",
            f"{module_name} {what}" if found is None else what,
            (),
            near and f"{module_name}.{near}",
        )
    return found


def class_of(part: Any) -> type[Any]:
    """Return the class of a component that is given as an object or as a class."""
    return part if isinstance(part, type) else type(part)


def _group_of(section: str) -> str:
    return section.partition(".")[0]


def check_arguments(cls: type[Any], component: dict[str, Any], group: str) -> dict[str, Any]:
    """Return the arguments of a component, checked against the signature of its class.

    Raises:
        UsageError: An argument is unknown or missing, or has the wrong type.
    """
    given = {key: value for key, value in component.items() if key not in ("_target_", OBJECT)}
    if issubclass(cls, Dataset):
        given, how = split_arguments(cls, given)
        return {**_checked(cls, given, group), **check_feeding(how)}
    return _checked(cls, given, group, SUPPLIED.get(_group_of(group), ()))


def check_feeding(component: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that control how a Dataset of torch is fed, checked.

    Raises:
        UsageError: A setting is unknown or has the wrong type.
    """
    return _checked(Items, {key: value for key, value in component.items() if key != OBJECT}, "data", ("dataset",))


def split_arguments(cls: type[Any], given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of a Dataset of torch, and those of Items that the Dataset doesn't have itself."""
    return (
        {key: value for key, value in given.items() if taker(cls, key) is cls},
        {key: value for key, value in given.items() if taker(cls, key) is not cls},
    )


def taker(cls: type[Any], key: str) -> type[Any]:
    """Return the class whose constructor takes an argument: Items for settings that control how a Dataset is fed."""
    feeds = issubclass(cls, Dataset) and key in _signature(Items).parameters.keys() - _signature(cls).parameters.keys()
    return Items if feeds else cls


class Argument(NamedTuple):
    """An argument of a constructor.

    Args:
        cls: The class.
        kind: The annotation; Any without one.
        default: The default; `inspect.Parameter.empty` without one.
    """

    cls: type[Any]
    kind: Any
    default: Any


def argument(cls: type[Any], key: str, group: str) -> Argument:
    """Return the constructor argument that a setting of a component sets.

    Raises:
        UsageError: The class has no such argument, or the run supplies it.
    """
    cls = taker(cls, key)
    _require_names(cls, [key], group, SUPPLIED.get(_group_of(group), ()) if cls is not Items else ("dataset",))
    found = _signature(cls).parameters.get(key)
    empty = inspect.Parameter.empty
    return Argument(cls, _annotations(cls).get(key, Any), empty if found is None else found.default)


def _require_names(cls: type[Any], given: Collection[str], group: str, supplied: Collection[str]) -> list[str]:
    """Return the names of a constructor's arguments; refuse unknown names and those that the run supplies."""
    parameters = _signature(cls).parameters
    names = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in given:
        if key in supplied:
            raise refusal(f"{group}.{key}", "is supplied by the run")
        if key not in names and not open_ended:
            allowed = [f"{group}.{name}" for name in names if name not in supplied]
            raise unknown(f"{group}.{key}", f"{cls.__name__} has no argument {key}", f"{group}.{key}", allowed)
    return names


def _checked(cls: type[Any], given: dict[str, Any], group: str, supplied: Collection[str] = ()) -> dict[str, Any]:
    parameters, kinds = _signature(cls).parameters, _annotations(cls)
    names = _require_names(cls, given, group, supplied)
    for key, value in given.items():
        given[key] = fitting(f"{group}.{key}", value, kinds.get(key, Any))
    for name in names:
        needed = parameters[name].default is inspect.Parameter.empty and name not in supplied
        if needed and name not in given and f"{group}.{name}" not in WIDTHS:
            raise refusal(f"{group}.{name}", f"has no value; add {group}.{name}=VALUE")
    return given


def fitting(key: str, value: Any, kind: Any) -> Any:
    """Return the value of an argument, converted to the type of its annotation.

    Raises:
        UsageError: The value has another type.
    """
    if value is None and key in WIDTHS:
        return None
    ok, value = fits(value, kind)
    if value == "???" or (not ok and describe(kind)):
        raise misfit(key, value, kind)
    return value


def _hints(cls: type[Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls.__init__)
    except (NameError, TypeError):
        return {}


# The jobs of a sweep share their classes.
_signature: Any = functools.lru_cache(maxsize=64)(inspect.signature)
_annotations: Any = functools.lru_cache(maxsize=64)(_hints)


def construct(group: str, cls: type[Part], arguments: dict[str, Any], name: str) -> Part:
    """Build a component; an error of its constructor becomes one line that names the key.

    Args:
        group: The group of the component.
        cls: The class.
        arguments: The arguments of the constructor.
        name: The selected option, named in the error if no single argument is to blame.

    Raises:
        UsageError: The constructor raised an error.
    """
    try:
        return cls(**arguments)
    except TrainerError:
        raise
    except Exception as error:
        raise _blamed(group, arguments, name, error) from error


def _blamed(group: str, arguments: dict[str, Any], name: str, error: Exception) -> UsageError:
    """Return a refusal that names the argument that the constructor's error message mentions, if any."""
    reason = reason_of(error)
    given = {key: value for key, value in arguments.items() if key not in SUPPLIED.get(_group_of(group), ())}
    if "can't allocate memory" in reason:
        amount = reason.partition("you tried to allocate ")[2].rstrip(". ").split(". Error")[0]
        reason = f"needs more memory than available: {amount}"
        sizes = {key: _largest(value) for key, value in given.items()}
        largest = max((key for key in sizes if sizes[key]), key=sizes.__getitem__, default=None)
        return refusal(name if largest is None else f"{group}.{largest}={show(given[largest])}", reason)
    if (ours := re.match(r"(\w+)=.*? (must .*)", reason)) and ours[1] in given:
        return refusal(f"{group}.{ours[1]}={show(given[ours[1]])}", ours[2])
    words = re.findall(r"\w{2,}", reason)
    arguments_of = {"learning": "lr", "beta": "betas", "eta": "etas", "epsilon": "eps"}
    candidates = [*words, *(arguments_of.get(word.lower(), "") for word in words)]
    key = next((word for word in candidates if word in given), None)
    return refusal(name if key is None else f"{group}.{key}={show(given[key])}", reason)


def _largest(value: Any) -> int:
    """Return the largest integer in an argument, 0 if there is none."""
    items = value if isinstance(value, list | tuple) else [value]
    return max((item for item in items if type(item) is int), default=0)


def reason_of(error: BaseException) -> str:
    """Return the first line of an error message, with the error's class where that helps the user."""
    lines = str(error).splitlines()
    from_worker = bool(lines) and lines[0].startswith("Caught ")  # a worker of DataLoader puts a traceback first
    line = textwrap.shorten(lines[-1] if from_worker else next(iter(lines), ""), _LONGEST_REASON, placeholder=" ...")
    is_clear = isinstance(error, ValueError | TypeError | RuntimeError | ImportError | OSError | MemoryError)
    return (line if is_clear and line else f"{type(error).__name__}: {line}".rstrip(": ")) + _place_of(error)


def _place_of(error: BaseException) -> str:
    """Return the file and line in the user's code that raised an error; empty if the error comes from elsewhere."""
    here, package = Path.cwd(), Path(__file__).parents[1]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_relative_to(here) and not file.is_relative_to(package) and "site-packages" not in file.parts:
            return f" ({file.relative_to(here)}, line {frame.lineno})"
    return ""


def supplied(cls: type[Any], **values: Any) -> dict[str, Any]:
    """Return the values whose names are arguments of a class's constructor."""
    parameters = _signature(cls).parameters
    return {name: value for name, value in values.items() if name in parameters}
