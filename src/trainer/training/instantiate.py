"""Turns a `_target_` into a class, here alone, and checks its arguments against the signature before it is called."""

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
# Arguments that come from the run, not the config.
SUPPLIED = {"optim": ("params",), "schedule": ("steps",), "logger": ("steps",)}
WIDTHS = ("model.inputs", "model.outputs")  # are taken from the data where they have no value
Part = TypeVar("Part")
_LONGEST_REASON = 300


def locate(component: dict[str, Any], group: str) -> type[Any]:
    """Return the class that a component's `_target_` names.

    Args:
        component: The section that the configuration has of it.
        group: The name of that section: its group, or a section of the group.

    Raises:
        UsageError: There is none of that name, or it is not of the group's kind.
    """
    if OBJECT in component:
        reason = "is an object that was handed to fit() in Python, which alone can go on with it"
        raise refusal(f"{group}.{OBJECT}={component[OBJECT]}", reason, f"fit({group}=..., resume=RUN)")
    target = component.get("_target_")
    if not isinstance(target, str):
        raise refusal(f"{group}", "selects nothing", f"{group}=OPTION; trainer list {group} shows them")
    module_name, _, class_name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ValueError as error:
        raise refusal(f"{group}._target_={target}", "is not the name of a class in a module") from error
    except (Exception, SystemExit) as error:  # a module of the user's may raise anything
        raise refusal(f"{group}._target_={target}", f"can't be imported: {reason_of(error)}") from error
    found = getattr(module, class_name, None)
    kinds = KINDS[_kind(group)]
    if isinstance(found, type) and targets.is_ours(target) and not found.__module__.startswith(("trainer.", "torch.")):
        raise refusal(
            f"{group}._target_={target}", "is another class's second name", f"{found.__module__}.{class_name}"
        )
    if not isinstance(found, type) or not issubclass(found, kinds):
        public = [n for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, kinds)]
        near = nearest(class_name, public)
        base = " or ".join(PUBLIC[kind] for kind in kinds)
        what = f"has no {class_name}" if found is None else f"is no class derived from {base}"
        raise refusal(
            f"{group}._target_={target}",
            f"{module_name} {what}" if found is None else what,
            (),
            near and f"{module_name}.{near}",
        )
    return found


def _kind(section: str) -> str:
    """Return the group that a section is of."""
    return section.partition(".")[0]


def check_arguments(cls: type[Any], component: dict[str, Any], group: str) -> dict[str, Any]:
    """Return the arguments of a component, checked against the signature of its class.

    Raises:
        UsageError: The class takes no such argument, or one of another type, or one is missing.
    """
    given = {key: value for key, value in component.items() if key not in ("_target_", OBJECT)}
    if issubclass(cls, Dataset):
        given, how = split_arguments(cls, given)
        return {**_checked(cls, given, group), **check_feeding(how)}
    return _checked(cls, given, group, SUPPLIED.get(_kind(group), ()))


def check_feeding(component: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that say how a Dataset of torch is fed, checked.

    Raises:
        UsageError: There is no such setting, or its value is of another type.
    """
    return _checked(Items, {key: value for key, value in component.items() if key != OBJECT}, "data", ("dataset",))


def split_arguments(cls: type[Any], given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of a Dataset of torch, and those that say how it is fed, unless it has them itself."""
    return (
        {key: value for key, value in given.items() if taker(cls, key) is cls},
        {key: value for key, value in given.items() if taker(cls, key) is not cls},
    )


def taker(cls: type[Any], key: str) -> type[Any]:
    """Return the class whose constructor takes an argument: another one if it says how a Dataset of torch is fed."""
    feeds = issubclass(cls, Dataset) and key in _signature(Items).parameters.keys() - _signature(cls).parameters.keys()
    return Items if feeds else cls


class Argument(NamedTuple):
    """An argument of a constructor.

    Args:
        cls: Its class.
        kind: Its annotation, Any where there is none.
        default: Its default, `inspect.Parameter.empty` where there is none.
    """

    cls: type[Any]
    kind: Any
    default: Any


def argument(cls: type[Any], key: str, group: str) -> Argument:
    """Return what a setting of a component is to its constructor.

    Raises:
        UsageError: The class takes no such argument, or not from the configuration.
    """
    cls = taker(cls, key)
    _require_names(cls, [key], group, SUPPLIED.get(_kind(group), ()) if cls is not Items else ("dataset",))
    found = _signature(cls).parameters.get(key)
    empty = inspect.Parameter.empty
    return Argument(cls, _annotations(cls).get(key, Any), empty if found is None else found.default)


def _require_names(cls: type[Any], given: Collection[str], group: str, supplied: Collection[str]) -> list[str]:
    """Return the names of a constructor's arguments, refusing others and those that come from the run."""
    parameters = _signature(cls).parameters
    names = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in given:
        if key in supplied:
            raise refusal(f"{group}.{key}", "comes from the run itself")
        if key not in names and not open_ended:
            allowed = [f"{group}.{name}" for name in names if name not in supplied]
            raise unknown(f"{group}.{key}", f"{cls.__name__} takes no {key}", f"{group}.{key}", allowed)
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
    """Return the value of an argument, converted to what its annotation asks for.

    Raises:
        UsageError: It is of another type.
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


# The jobs of a sweep have the same classes.
_signature: Any = functools.lru_cache(maxsize=64)(inspect.signature)
_annotations: Any = functools.lru_cache(maxsize=64)(_hints)


def construct(group: str, cls: type[Part], arguments: dict[str, Any], name: str) -> Part:
    """Build a component, turning what its constructor refuses into one line that names the key.

    Args:
        group: The component's group.
        cls: Its class.
        arguments: What to call it with.
        name: What the user selected, to be named where no single argument is to blame.

    Raises:
        UsageError: The constructor raised.
    """
    try:
        return cls(**arguments)
    except TrainerError:
        raise
    except Exception as error:
        raise _blamed(group, arguments, name, error) from error


def _blamed(group: str, arguments: dict[str, Any], name: str, error: Exception) -> UsageError:
    """Refuse the argument that the message of a constructor's error is about, as far as one can tell."""
    reason = reason_of(error)
    given = {key: value for key, value in arguments.items() if key not in SUPPLIED.get(_kind(group), ())}
    if "can't allocate memory" in reason:
        amount = reason.partition("you tried to allocate ")[2].rstrip(". ").split(". Error")[0]
        reason = f"needs more memory than there is: {amount}"
        sizes = {key: _largest(value) for key, value in given.items()}
        largest = max((key for key in sizes if sizes[key]), key=sizes.__getitem__, default=None)
        return refusal(name if largest is None else f"{group}.{largest}={show(given[largest])}", reason)
    if (ours := re.match(r"(\w+)=.*? (must .*)", reason)) and ours[1] in given:
        return refusal(f"{group}.{ours[1]}={show(given[ours[1]])}", ours[2])
    words = re.findall(r"\w{2,}", reason)
    spoken = {"learning": "lr", "beta": "betas", "eta": "etas", "epsilon": "eps"}
    said = [*words, *(spoken.get(word.lower(), "") for word in words)]
    key = next((word for word in said if word in given), None)
    return refusal(name if key is None else f"{group}.{key}={show(given[key])}", reason)


def _largest(value: Any) -> int:
    """Return the largest whole number in an argument, 0 if it has none."""
    items = value if isinstance(value, list | tuple) else [value]
    return max((item for item in items if type(item) is int), default=0)


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's message, with its class where that tells the user something."""
    lines = str(error).splitlines()
    told = lines[-1] if lines and lines[0].startswith("Caught ") else next(iter(lines), "")  # by a worker of DataLoader
    line = textwrap.shorten(told, _LONGEST_REASON, placeholder=" ...")
    is_told = isinstance(error, ValueError | TypeError | RuntimeError | ImportError | OSError | MemoryError)
    return (line if is_told and line else f"{type(error).__name__}: {line}".rstrip(": ")) + _place_of(error)


def _place_of(error: BaseException) -> str:
    """Return the file and line in the user's own code that an error comes from; empty if it comes from elsewhere."""
    here, package = Path.cwd(), Path(__file__).parents[1]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_relative_to(here) and not file.is_relative_to(package) and "site-packages" not in file.parts:
            return f" ({file.relative_to(here)}, line {frame.lineno})"
    return ""


def supplied(cls: type[Any], **values: Any) -> dict[str, Any]:
    """Return those values that the constructor of a class asks for by name."""
    parameters = _signature(cls).parameters
    return {name: value for name, value in values.items() if name in parameters}
