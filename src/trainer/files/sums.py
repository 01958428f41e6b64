"""SHA-256 of bytes and of plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

OWN = "sha256"  # the key under which data hold the sum of all other keys


def sha256(content: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sum_of(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data, written as JSON with sorted keys."""
    plain = json.loads(json.dumps(data, default=str))  # turns all keys into strings, as a file does
    return sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return data with their sum added as the last key."""
    rest = {key: value for key, value in data.items() if key != OWN}
    return {**rest, OWN: sum_of(rest)}


def is_sealed(data: Any) -> bool:
    """Return whether data have a sum and it is correct."""
    return isinstance(data, dict) and OWN in data and sealed(data)[OWN] == data[OWN]
