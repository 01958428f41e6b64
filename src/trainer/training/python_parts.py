"""Parts that Python code hands over as objects, classes or arrays, and what the configuration says of them."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from inspect import signature
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from trainer.config.settings import OBJECT, Settings
from trainer.data import Data
from trainer.errors import refusal
from trainer.losses import OVER_CLASSES, Auto
from trainer.text import show
from trainer.training.instantiate import KINDS, PUBLIC, locate

_PACKAGES = ("torch", "trainer")  # their classes have a public name above the module that they are written in
_DTYPES = {torch.float64: "float64", torch.bfloat16: "bfloat16"}


class Objects:
    """What `fit` was given for groups besides the names of options.

    Args:
        given: An object, a class, a dict with a `_target_`, or, of data, a pair of arrays, by group.

    Raises:
        UsageError: One is of another kind.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        is_pair = isinstance(given.get("data"), tuple | list) and len(given["data"]) == 2
        self._given = {**given, "data": Pair(*given["data"])} if is_pair else dict(given)
        self.sections = {group: _section(group, part) for group, part in self._given.items()}

    @property
    def names(self) -> dict[str, str]:
        """What the parts are called, by group."""
        return {group: _called(part) for group, part in self._given.items()}

    @property
    def dtype(self) -> str | None:
        """The floating type of a model that is there already, where that is not the default one."""
        model = self._given.get("model")
        weights = model.parameters() if isinstance(model, nn.Module) else ()
        return next((_DTYPES[w.dtype] for w in weights if w.dtype in _DTYPES), None)

    def parts(self, settings: Settings) -> dict[str, Any]:
        """Return what the configuration can't make, by group: parts that are there, and classes to make them of.

        Raises:
            UsageError: A setting was typed for a part that is there already.
        """
        parts = {group: part for group, part in self._given.items() if OBJECT in self.sections[group]}
        for group, part in parts.items():
            if isinstance(part, Pair):
                loss = parts["loss"] if "loss" in parts else locate(settings.loss, "loss")
                kind = loss if isinstance(loss, type) else type(loss)
                parts[group] = part.data(issubclass(kind, (*OVER_CLASSES, Auto)))
            elif not isinstance(part, type | Dataset):  # a Dataset is fed as the settings say
                _require_untouched(group, self.sections[group], getattr(settings, group))
        return parts


class Pair(NamedTuple):
    """Data as arrays.

    Args:
        x: Inputs (rows, ...), or None.
        y: Targets (rows, ...): numbers, indices of classes, or their names.
    """

    x: Any
    y: Any

    def data(self, of_classes: bool) -> type[Data]:
        """Return a class of data that hold these rows, with whole numbers as indices of classes or as numbers."""
        x, y = self

        class Arrays(Data):
            def __init__(self, validation: float = 0.0) -> None:
                targets, classes = _targets(y, of_classes)
                super().__init__(None if x is None else _tensor(x), targets, validation, classes)

        return Arrays

    def __str__(self) -> str:
        """Return the shapes and the SHA-256, so that others in their place are noticed when a run goes on."""
        shapes = " and ".join(show(list(numpy.shape(values))) for values in self)
        return f"arrays {shapes}, SHA-256 {_sum(*self)}"


def _section(group: str, part: Any) -> dict[str, Any]:
    """Return what the configuration says of a part."""
    if isinstance(part, Mapping) and "_target_" in part:
        return {str(key): value for key, value in part.items()}
    if isinstance(part, Pair):
        return {OBJECT: str(part)}
    if isinstance(part, type) and issubclass(part, KINDS[group]):
        name = _public_name(part)
        widths = {w: None for w in ("inputs", "outputs") if group == "model" and w in signature(part).parameters}
        return {"_target_" if _found(name) is part else OBJECT: name, **widths}
    if isinstance(part, Data):  # of files status.json keeps the SHA-256
        rows = f" of {', '.join(map(str, part.files))}" if part.files else f", SHA-256 {_sum(*part.content())}"
        return {OBJECT: _public_name(type(part)) + rows}
    if isinstance(part, torch.optim.Optimizer):
        plain = {k: v for k, v in part.defaults.items() if v is None or isinstance(v, bool | int | float | str | tuple)}
        return {OBJECT: _public_name(type(part)), **{k: [*v] if isinstance(v, tuple) else v for k, v in plain.items()}}
    if isinstance(part, KINDS[group]):
        return {OBJECT: _public_name(type(part))}
    base = " or ".join(PUBLIC[kind] for kind in KINDS[group])
    what, pair = getattr(part, "__name__", type(part).__name__), ", or a pair of arrays" * (group == "data")
    raise refusal(f"{group}={what}", f"is no {base}", f"the name of an option, a {base}, or a class of it{pair}")


def _called(part: Any) -> str:
    if isinstance(part, Pair):
        return "arrays"
    if isinstance(part, Mapping):
        return str(part["_target_"]).rpartition(".")[2]
    return (part if isinstance(part, type) else type(part)).__name__


def _require_untouched(group: str, section: dict[str, Any], settings: dict[str, Any]) -> None:
    for key, value in settings.items():
        if value != section.get(key):
            raise refusal(f"{group}.{key}={show(value)}", f"the {group} is an object already", "to set it there")


def _public_name(cls: type) -> str:
    """Return the dotted name of a class, of torch's and ours the shortest that there is."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    parts = cls.__module__.split(".")
    if parts[0] not in _PACKAGES:
        return name
    shorter = (".".join([*parts[:depth], cls.__qualname__]) for depth in range(2, len(parts)))
    return next((one for one in shorter if _found(one) is cls), name)


def _found(name: str) -> Any:
    """Return what another process would find under a dotted name; None if nothing."""
    module, _, attribute = name.rpartition(".")
    if module == "__main__":
        return None
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None


def _sum(*arrays: Any) -> str:
    found = hashlib.sha256()
    for values in arrays:
        if isinstance(values, Tensor):
            array = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            found.update(f"{values.dtype} {list(values.shape)}".encode())
        else:
            array = numpy.ascontiguousarray(values)
            found.update(f"{array.dtype} {array.shape}".encode())
        found.update(repr(array.tolist()).encode() if array.dtype == object else array.tobytes())
    return found.hexdigest()


def _targets(y: Any, of_classes: bool) -> tuple[Tensor, list[str] | None]:
    if not isinstance(y, Tensor) and numpy.asarray(y).dtype.kind in "OUS":
        names, indices = numpy.unique(numpy.asarray(y).astype(str), return_inverse=True)
        return torch.from_numpy(indices), names.tolist()
    targets = _tensor(y)
    if targets.is_floating_point():
        return targets, None
    if of_classes and targets.ndim == 1 and len(targets):
        return targets, [str(index) for index in range(int(targets.max()) + 1)]
    return targets.to(torch.get_default_dtype()), None


def _tensor(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    array = numpy.asarray(values)
    if array.dtype.kind in "OUS":
        raise ValueError(f"x must be numbers, not {array.dtype}")
    return torch.from_numpy(array if array.flags.writeable else array.copy())
