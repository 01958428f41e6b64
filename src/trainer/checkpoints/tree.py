"""Converts nested state (dicts, lists, tuples, tensors, numbers) to JSON plus named tensors and back, bit for bit."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor


def pack(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return `tree` as JSON data and put its tensors, uncopied, into `tensors` under dotted names starting with `name`.

    Subclasses of dict, list and tuple are restored as the plain container.

    Raises:
        TypeError: The tree contains a value that is neither a container, a tensor nor a plain value.
    """
    if isinstance(tree, Tensor):
        while name in tensors:  # {"a.b": ...} beside {"a": {"b": ...}}
            name += "'"
        tensors[name] = tree
        return {"$tensor": name}
    if isinstance(tree, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in tree):
            return {key: pack(value, f"{name}.{key}", tensors) for key, value in tree.items()}
        for key in tree:
            if not isinstance(key, str | int):
                raise TypeError(f"{name} has a key that is a {type(key).__name__}, which a checkpoint can't hold")
        return {"$items": [[key, pack(value, f"{name}.{key}", tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        items = [pack(item, f"{name}.{i}", tensors) for i, item in enumerate(tree)]
        return items if isinstance(tree, list) else {"$tuple": items}
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"$float": repr(float(tree))}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"{name} is a {type(tree).__name__}, which a checkpoint can't hold")


def unpack(data: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the tree from which `pack` made `data` and `tensors`."""
    if isinstance(data, list):
        return [unpack(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    if "$tensor" in data:
        return tensors[data["$tensor"]]
    if "$items" in data:
        return {key: unpack(value, tensors) for key, value in data["$items"]}
    if "$tuple" in data:
        return tuple(unpack(item, tensors) for item in data["$tuple"])
    if "$float" in data:
        return float(data["$float"])
    return {key: unpack(value, tensors) for key, value in data.items()}
