"""Refuses to begin a run that would write a file which nobody reads again: `reading` has the bounds."""

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

_SPARE = 2**20  # bytes of status.json for how the run goes, and of state.json for generators and the loop
_FEW = 30  # containers, of which no configuration has too many levels
_SHORT = 2**16  # bytes of a configuration that is far from any bound
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (plain_yaml.MOST_DIGITS + 1))


def require_weights(name: str, model: nn.Module) -> None:
    """Refuse a model of more tensors than a checkpoint may hold.

    Raises:
        UsageError: It has more; names the model.
    """
    if (count := len(model.state_dict())) > tensor_file.MOST_TENSORS:
        raise refusal(name, f"has {count:,} tensors, more than the {tensor_file.MOST_TENSORS:,} of a checkpoint")


def require_training(*states: Mapping[str, Any]) -> None:
    """Refuse states of optimizer and schedule that a checkpoint could not hold.

    Raises:
        TypeError: One has something of a kind that a checkpoint can't hold.
        ValueError: They have too much.
    """
    tensors: dict[str, Any] = {}
    text = state_json(tree.pack(list(states), "training", tensors))
    tensor_file.require_room(tensors)
    if problem := _problem(text, reading.MOST_JSON - _SPARE):
        raise ValueError(f"state.json of a checkpoint {problem}")


def require_code(sources: Mapping[str, bytes]) -> None:
    """Refuse more of the user's own modules than a run keeps.

    Raises:
        UsageError: They have more bytes; names the largest.
    """
    if (size := sum(map(len, sources.values()))) > reading.MOST_CODE:
        largest = max(sources, key=lambda name: len(sources[name]))
        what = f"your own modules have {size:,} bytes together, more than the {reading.MOST_CODE:,} that a run keeps"
        raise refusal(largest, what)


def require_files(config: dict[str, Any], status: dict[str, Any], preprocess: dict[str, Any] | None) -> None:
    """Refuse what config.yaml, status.json and preprocess.json of a run can't hold.

    Args:
        config: What config.yaml is to hold.
        status: What status.json holds before the run begins or goes on.
        preprocess: What preprocess.json is to hold.

    Raises:
        UsageError: One would have too much; names it.
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
    """Refuse the text of a JSON file that would not be read again.

    Raises:
        UsageError: It has too much; names the file.
    """
    if problem := _problem(text, most, values):
        raise refusal(name, f"{problem}: it could not be read again")


def _problem(text: bytes, most: int, values: int = reading.MOST_VALUES) -> str | None:
    if len(text) > most:
        return f"would have {len(text):,} bytes, more than the {most:,} that such a file may have"
    try:
        plain_json.require_few(text, values=values)
    except reading.Unreadable as error:
        return str(error)
    return None
