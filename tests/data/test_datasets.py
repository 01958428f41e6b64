"""Datasets of torch: our order, workers, resuming amid an epoch, and what items draw."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Run

NOISY = """
import random

import numpy
import torch
from torch.utils.data import Dataset


class Part(Dataset):
    def __init__(self, samples: int = 20, noise: float = 0.1, fail_at: int = -1):
        self.samples, self.noise, self.fail_at = samples, noise, fail_at
        self.classes = ["even", "odd"]

    def __len__(self):
        return self.samples

    def __getitem__(self, index):
        if index == self.fail_at:
            raise KeyError("no such picture")
        drawn = torch.randn(2) + random.random() + numpy.random.rand()
        return torch.tensor([index % 2, index / self.samples]) + self.noise * drawn, index % 2
"""
BATCHED = """
    def __getitems__(self, indices):
        return [self[index] for index in indices]
"""
ITER = """
    def __iter__(self):
        return iter([])
"""
WORDS = ("data=noisy", "model=mlp", "model.sizes=[8]", "loss=auto", "optim=adam", "batch_size=4")


@pytest.fixture(autouse=True)
def noisy(own_part):
    own_part("data", "noisy", NOISY, "samples: 20\nnoise: 0.1\nvalidation: 0.2\nworkers: 0\n")


def test_workers_change_no_bits(train):
    here = train(*WORDS, "steps=10", name="here")
    there = train(*WORDS, "steps=10", "data.workers=2", name="there")
    assert here.bits() == there.bits()
    assert here.status["rows"] == {"training": 16, "validation": 4}
    assert here.status["choices"]["loss"] == "cross_entropy"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_stopped_amid_an_epoch_goes_on_with_the_same_bits(train, cli, workers):
    words = (*WORDS, f"data.workers={workers}")
    whole, run = train(*words, "steps=11", name="whole"), train(*words, "steps=6")
    assert cli("resume", "run", "steps=11").code == 0
    assert run.bits() == whole.bits()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_that_fetches_batches_is_asked_for_batches(train, cli, own_part, workers):
    own_part("data", "batched", NOISY + BATCHED, "samples: 20\nnoise: 0.1\nworkers: 0\n")
    words = ("data=batched", *WORDS[1:], f"data.workers={workers}")
    whole, run = train(*words, "steps=11", name="whole"), train(*words, "steps=6")
    assert cli("resume", "run", "steps=11").code == 0
    assert run.bits() == whole.bits()
    single = train(*WORDS, "data.validation=0", "steps=11", name="single")
    assert single.steps[0]["loss"] != whole.steps[0]["loss"]  # each item under generators of its own
    quiet = [
        train(f"data={data}", *WORDS[1:], "data.validation=0", "data.noise=0", "steps=11", name=data).bits()
        for data in ("noisy", "batched")
    ]
    assert quiet[0] == quiet[1]


def test_every_item_comes_once_an_epoch_and_is_drawn_anew(train):
    """At a rate of nothing to speak of, the loss of an epoch differs from the next one's only by the noise."""
    run = train(*WORDS[:-1], "batch_size=16", "optim.lr=1e-12", "epochs=2", "data.noise=0.5")
    first, second = (row["loss"] for row in run.steps)
    assert first != second
    quiet = train(*WORDS[:-1], "batch_size=4", "optim.lr=1e-12", "epochs=2", "data.noise=0", name="quiet")
    losses = [row["loss"] for row in quiet.steps]
    assert sum(losses[:4]) == pytest.approx(sum(losses[4:]), rel=1e-6)
    assert losses[:4] != losses[4:]  # another order


def test_the_model_draws_the_same_beside_any_data(train):
    """What items draw does not shift the generators that dropout draws from."""
    words = (*WORDS, "model.dropout=0.5", "data.noise=0", "steps=6")
    assert train(*words, name="a").bits() == train(*words, "data.workers=1", name="b").bits()


def test_an_item_that_fails_ends_the_run_with_its_reason(cli):
    result = cli("run", "run_dir=run", *WORDS, "steps=10", "data.fail_at=7")
    assert result.code == 1
    assert "no such picture" in result.err
    assert Run(Path("run")).status["state"] == "failed"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (NOISY.replace("(Dataset)", "(torch.utils.data.IterableDataset)") + ITER, "is not map-style"),
        (NOISY.replace("return self.samples", "return 0"), "has no items"),
        (NOISY.replace(", index % 2\n", "\n"), "its items are not pairs"),
        (NOISY.replace('self.classes = ["even", "odd"]', "pass"), "data.classes=NUMBER"),
    ],
)
def test_what_can_not_be_fed_is_refused(cli, own_part, source, message):
    own_part("data", "bad", source, "validation: 0.2\n")
    result = cli("run", *WORDS[1:], "data=bad")
    assert result.code == 2
    assert message in result.err
    assert not Path("runs").exists()


def test_wrong_arguments_of_both_are_named(refused):
    assert "data.sample: Part has no argument sample" in refused("run", *WORDS, "data.sample=3")
    assert "data.workers=-1: is out of range" in refused("run", *WORDS, "data.workers=-1")
    assert "data.workers=two: is not a whole number" in refused("run", *WORDS, "data.workers=two")
