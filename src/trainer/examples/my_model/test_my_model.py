"""Tests of MyModel; run them with `pytest`."""

from pathlib import Path

import pytest
import torch

from my_model import MyModel
from trainer import fit


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Make trainer find ./configs wherever pytest is started."""
    monkeypatch.chdir(Path(__file__).parent)


def test_the_predictions_have_the_width_of_the_targets():
    assert MyModel(inputs=3, outputs=5)(torch.zeros(2, 3)).shape == (2, 5)


def test_it_learns(tmp_path):
    run = fit("experiment=my_experiment", steps=50, run_dir=tmp_path / "run")
    assert run.metrics["validation_loss"] < run.history[0]["loss"] / 10
