"""Components passed to `fit` as objects, classes or arrays, and their sections in the configuration."""

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
from trainer.training.instantiate import KINDS, PUBLIC, class_of, locate

_PACKAGES = ("torch", "trainer")  # packages that publish a class under a shorter name than its module's
_DTYPES = {torch.float64: "float64", torch.bfloat16: "bfloat16"}


class Objects:
    """The components that `fit` was given.

    Args:
        given: By group, an object, a class, a dict with a `_target_`, or, for data, a pair of arrays.

    Raises:
        UsageError: A component has another type.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        is_pair = isinstance(given.get("data"), tuple | list) and len(given["data"]) == 2
        self._given = {**given, "data": ArrayPair(*given["data"])} if is_pair else dict(given)
        self.sections = {group: _section(group, part) for group, part in self._given.items()}

    @property
    def names(self) -> dict[str, str]:
        """Display names of the components, by group."""
        return {group: _display_name(part) for group, part in self._given.items()}

    @property
    def dtype(self) -> str | None:
        """The dtype of a model passed as an object if it is float64 or bfloat16, else None."""
        model = self._given.get("model")
        weights = model.parameters() if isinstance(model, nn.Module) else ()
        return next((_DTYPES[w.dtype] for w in weights if w.dtype in _DTYPES), None)

    def parts(self, settings: Settings) -> dict[str, Any]:
        """Return the components that the configuration can't build, by group: objects, and classes to construct.

        Raises:
            UsageError: A setting was given for a component that is already an object.
        """
        parts = {group: part for group, part in self._given.items() if OBJECT in self.sections[group]}
        for group, part in parts.items():
            if isinstance(part, ArrayPair):
                loss = class_of(parts["loss"]) if "loss" in parts else locate(settings.loss, "loss")
                parts[group] = part.data(issubclass(loss, (*OVER_CLASSES, Auto)))
            elif not isinstance(part, type | Dataset):  # settings control how a Dataset is fed
                _require_untouched(group, self.sections[group], getattr(settings, group))
        return parts


class ArrayPair(NamedTuple):
    """Data as a pair of arrays.

    Args:
        x: Inputs (rows, ...), or None.
        y: Targets (rows, ...): numbers, class indices or class names.
    """

    x: Any
    y: Any

    def data(self, of_classes: bool) -> type[Data]:
        """Return a class of data with these rows; `of_classes` takes integer targets for class indices."""
        x, y = self

        class Arrays(Data):
            def __init__(self, validation: float = 0.0) -> None:
                targets, classes = _targets(y, of_classes)
                super().__init__(None if x is None else _tensor(x), targets, validation, classes)

        return Arrays

    def __str__(self) -> str:
        """Return the shapes and the SHA-256, which show on resume whether the arrays are the same."""
        shapes = " and ".join(show(list(numpy.shape(values))) for values in self)
        return f"arrays {shapes}, SHA-256 {_sha256(*self)}"


def _section(group: str, part: Any) -> dict[str, Any]:
    """Return the section of a component in the configuration."""
    if isinstance(part, Mapping) and "_target_" in part:
        return {str(key): value for key, value in part.items()}
    if isinstance(part, ArrayPair):
        return {OBJECT: str(part)}
    if isinstance(part, type) and issubclass(part, KINDS[group]):
        name = _public_name(part)
        widths = {w: None for w in ("inputs", "outputs") if group == "model" and w in signature(part).parameters}
        return {"_target_" if _found(name) is part else OBJECT: name, **widths}
    if isinstance(part, Data):  # status.json records the SHA-256 of files
        rows = f" of {', '.join(map(str, part.files))}" if part.files else f", SHA-256 {_sha256(*part.content())}"
        return {OBJECT: _public_name(type(part)) + rows}
    if isinstance(part, torch.optim.Optimizer):
        plain = {k: v for k, v in part.defaults.items() if v is None or isinstance(v, bool | int | float | str | tuple)}
        return {OBJECT: _public_name(type(part)), **{k: [*v] if isinstance(v, tuple) else v for k, v in plain.items()}}
    if isinstance(part, KINDS[group]):
        return {OBJECT: _public_name(type(part))}
    base = " or ".join(PUBLIC[kind] for kind in KINDS[group])
    what, pair = getattr(part, "__name__", type(part).__name__), ", or a pair of arrays" * (group == "data")
    raise refusal(f"{group}={what}", f"is not a {base}", f"the name of an option, a {base}, or a subclass{pair}")


def _display_name(part: Any) -> str:
    if isinstance(part, ArrayPair):
        return "arrays"
    if isinstance(part, Mapping):
        return str(part["_target_"]).rpartition(".")[2]
    return class_of(part).__name__


def _require_untouched(group: str, section: dict[str, Any], settings: dict[str, Any]) -> None:
    for key, value in settings.items():
        if value != section.get(key):
            raise refusal(f"{group}.{key}={show(value)}", f"the {group} is an object", "setting it on the object")


def _public_name(cls: type) -> str:
    """Return the dotted name of a class; for classes of torch and trainer, the shortest public one."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    parts = cls.__module__.split(".")
    if parts[0] not in _PACKAGES:
        return name
    shorter = (".".join([*parts[:depth], cls.__qualname__]) for depth in range(2, len(parts)))
    return next((one for one in shorter if _found(one) is cls), name)


def _found(name: str) -> Any:
    """Return the object that another process would find under a dotted name; None if there is none."""
    module, _, attribute = name.rpartition(".")
    if module == "__main__":
        return None
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None


def _sha256(*arrays: Any) -> str:
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
