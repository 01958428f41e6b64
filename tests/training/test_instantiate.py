"""Errors of a user's own code name its file and line; those of the package do not, wherever one stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import UsageError
from trainer.training.instantiate import construct, reason_of

ROOT = Path(__file__).parents[2]


def refuse(value: int) -> None:
    raise ValueError(f"value={value} must be positive")


def test_the_user_s_own_line_is_named(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match="must be positive") as caught:
        refuse(-1)
    line = refuse.__code__.co_firstlineno + 1
    assert reason_of(caught.value) == f"value=-1 must be positive (tests/training/test_instantiate.py, line {line})"


def test_a_line_of_the_package_is_not(monkeypatch):
    from trainer.models import MLP

    monkeypatch.chdir(ROOT)
    with pytest.raises(UsageError) as caught:
        construct("model", MLP, {"inputs": 3, "outputs": 1, "sizes": [0]}, "model=mlp")
    assert ".py" not in str(caught.value)
