"""Refuses a run whose files could not be read back because of the limits in files/reading.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from trainer.checkpoints import tensors as tensor_file
from trainer.checkpoints import tree
from trainer.errors import refusal
from trainer.files import plain_json, plain_yaml, reading
from trainer.files.plain_json import as_indented_json as state_json
from trainer.files.plain_json import as_json

_SPARE = 2**20  # bytes left in status.json for progress, and in state.json for generators and counters
_FEW = 30  # containers, too few to be nested too deeply
_SHORT = 2**16  # bytes of a configuration that can't exceed a limit
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (plain_yaml.MOST_DIGITS + 1))


def require_weights(name: str, model: nn.Module) -> None:
    """Refuse a model with more tensors than a checkpoint may hold.

    Raises:
        UsageError: It has more; names the model.
    """
    if (count := len(model.state_dict())) > tensor_file.MOST_TENSORS:
        raise refusal(name, f"has {count:,} tensors, more than the {tensor_file.MOST_TENSORS:,} of a checkpoint")


def require_training(*states: Mapping[str, Any]) -> None:
    """Refuse the states of an optimizer and a schedule that a checkpoint can't hold.

    Raises:
        TypeError: A value has a type that a checkpoint can't hold.
        ValueError: They are too large.
    """
    tensors: dict[str, Any] = {}
    text = state_json(tree.pack(list(states), "training", tensors))
    tensor_file.require_room(tensors)
    if problem := _problem(text, reading.MOST_JSON - _SPARE):
        raise ValueError(f"state.json of a checkpoint {problem}")


def require_code(sources: Mapping[str, bytes]) -> None:
    """Refuse user modules that are too large for a run directory.

    Raises:
        UsageError: They are; names the largest.
    """
    if (size := sum(map(len, sources.values()))) > reading.MOST_CODE:
        largest = max(sources, key=lambda name: len(sources[name]))
        what = f"your own modules have {size:,} bytes together, more than the {reading.MOST_CODE:,} that a run keeps"
        raise refusal(largest, what)


def require_files(config: dict[str, Any], status: dict[str, Any], preprocess: dict[str, Any] | None) -> None:
    """Refuse a run whose config.yaml, status.json or preprocess.json could not be read back.

    Args:
        config: The content of config.yaml.
        status: The content of status.json before training.
        preprocess: The content of preprocess.json.

    Raises:
        UsageError: A file would be too large; names it.
    """
    text = as_json({"config": config})
    if _LONG_NUMBER.search(text) or len(text) > _SHORT or text.count(b"{") + text.count(b"[") > _FEW:
        try:
            plain_yaml.require_readable(config)
        except ValueError as error:
            raise refusal("config.yaml", f"the settings could not be read again: {error}") from error
    require_json("status.json", as_json({**status, "": config}), reading.MOST_JSON - _SPARE)
    if preprocess is not None:
        text = as_json(preprocess, in_ascii=False)
        require_json("preprocess.json", text, reading.MOST_PREPROCESS, reading.MOST_PREPROCESS_VALUES)


def require_json(name: str, text: bytes, most: int = reading.MOST_JSON, values: int = reading.MOST_VALUES) -> None:
    """Refuse the text of a JSON file that could not be read back.

    Raises:
        UsageError: It is too large; names the file.
    """
    if problem := _problem(text, most, values):
        raise refusal(name, f"{problem}: it could not be read again")


def _problem(text: bytes, most: int, values: int = reading.MOST_VALUES) -> str | None:
    if len(text) > most:
        return f"would have {len(text):,} bytes, more than the {most:,} allowed in such a file"
    try:
        plain_json.require_few(text, values=values)
    except reading.Unreadable as error:
        return str(error)
    return None
