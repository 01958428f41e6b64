"""The SHA-256 of plain data, whatever the file looks like that holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

OWN = "sha256"  # the key under which data hold the sum of all the rest of them


def sum_of(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of data as JSON with sorted keys."""
    plain = json.loads(json.dumps(data, default=str))  # all keys are texts then, as in a file
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return data that end with their own sum."""
    rest = {key: value for key, value in data.items() if key != OWN}
    return {**rest, OWN: sum_of(rest)}


def is_sealed(data: Any) -> bool:
    """Say whether data are as they were when they were sealed."""
    return isinstance(data, dict) and OWN in data and sealed(data)[OWN] == data[OWN]
