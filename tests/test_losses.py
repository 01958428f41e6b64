"""Losses against their formulas in NumPy, and the form in which each takes the targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from trainer.data import Data, split
from trainer.losses import SumOfSquares, form_of, is_sum


def log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def huber(error, delta):
    size = np.abs(error)
    return np.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta))


def bce(logits, targets):
    probability = 1 / (1 + np.exp(-logits))
    return -(targets * np.log(probability) + (1 - targets) * np.log(1 - probability))


OVER_NUMBERS = {  # predictions p and targets y of one shape
    "loss=sse": lambda p, y: ((p - y) ** 2).sum(),
    "loss=mse": lambda p, y: ((p - y) ** 2).mean(),
    "loss=mse loss.reduction=sum": lambda p, y: ((p - y) ** 2).sum(),
    "loss=l1": lambda p, y: np.abs(p - y).mean(),
    "loss=huber": lambda p, y: huber(p - y, 1.0).mean(),
    "loss=huber loss.delta=0.3": lambda p, y: huber(p - y, 0.3).mean(),
    "loss=difference": lambda p, y: y.sum() - p.sum(),
    "loss=difference loss.target=12": lambda p, y: 12 - p.sum(),
}
OVER_CLASSES = {  # predictions p, and targets y with 1 at the right class
    "loss=cross_entropy": lambda p, y: -(y * log_softmax(p)).sum(1).mean(),
    "loss=cross_entropy loss.reduction=sum": lambda p, y: -(y * log_softmax(p)).sum(),
    "loss=cross_entropy loss.label_smoothing=0.1": lambda p, y: -((0.9 * y + 0.01) * log_softmax(p)).sum(1).mean(),
    "loss=bce": lambda p, y: bce(p, y).mean(),
    "loss=bce loss.reduction=sum": lambda p, y: bce(p, y).sum(),
    **OVER_NUMBERS,
}


def two_layers(x, hidden, outputs):
    """The predictions of `model=two_layer` before its first step, when drawn next."""
    first, second = nn.Linear(x.shape[1], hidden).double(), nn.Linear(hidden, outputs).double()
    w1, b1, w2, b2 = (w.detach().numpy() for w in (first.weight, first.bias, second.weight, second.bias))
    return np.maximum(x.numpy() @ w1.T + b1, 0) @ w2.T + b2


@pytest.mark.parametrize("words", OVER_NUMBERS)
def test_losses_over_numbers(train, words):
    torch.manual_seed(0)
    x, y = torch.randn(8, 5), torch.randn(8, 3)
    expected = OVER_NUMBERS[words](two_layers(x, 4, 3), y.numpy())
    run = train(*words.split(), "data.samples=8", "data.inputs=5", "data.outputs=3", "model.hidden=4", "steps=1")
    assert run.steps[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("words", OVER_CLASSES)
def test_losses_over_classes(train, words):
    digits = load_digits()
    torch.manual_seed(0)
    expected = OVER_CLASSES[words](two_layers(torch.from_numpy(digits.data / 16), 4, 10), np.eye(10)[digits.target])
    run = train(*words.split(), "data=digits", "data.validation=0", "model.hidden=4", "steps=1")
    assert run.steps[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("words", [("data.target=15",), ("data.target=3", "loss.target=15")])
def test_difference_reads_3_at_12_with_target_15(train, words):
    assert train("model=product", "loss=difference", *words, "steps=1").steps[0]["loss"] == 3.0


def test_difference_has_no_minimum_and_is_stopped(cli):
    result = cli("run", "loss=difference", "optim.lr=1", "run_dir=run")
    assert result.code == 1
    assert "the loss falls without bound: this loss has no minimum" in result.err


def test_accuracy_is_the_fraction_of_right_classes(train):
    run = train("data=digits", "loss=cross_entropy", "optim.lr=0.5", "steps=40", "model.hidden=20")
    weights = {name: w.numpy() for name, w in run.weights().items()}
    digits = load_digits()
    held_out = split(1797, 0.2, seed=0)[1].numpy()
    hidden = np.maximum(digits.data[held_out] / 16 @ weights["linear1.weight"].T + weights["linear1.bias"], 0)
    logits = hidden @ weights["linear2.weight"].T + weights["linear2.bias"]
    right = (logits.argmax(1) == digits.target[held_out]).mean()
    assert 0.3 < right < 1
    last = run.evaluations[-1]
    assert last["validation_accuracy"] == pytest.approx(right, abs=1e-9)
    expected = OVER_CLASSES["loss=cross_entropy"](logits, np.eye(10)[digits.target[held_out]])
    assert last["validation_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", ["sse", "bce"])
def test_accuracy_does_not_ask_which_loss_it_is(train, loss):
    run = train("data=digits", f"loss={loss}", "steps=2", "model.hidden=4")
    assert all(0 <= row["validation_accuracy"] <= 1 for row in run.evaluations)


REFUSED = {
    "loss=cross_entropy": "loss=cross_entropy data=random: needs class targets, but the targets are numbers",
    "loss=cross_entropy model=product": "loss=cross_entropy data=none: needs class targets",
    "loss=bce": "loss=bce data=random: needs targets between 0 and 1, but they range from -",
    "loss=bce model=product": "loss=bce data=none: needs targets between 0 and 1",
    "loss=mse loss.reduction=none": "the loss must be one number",
    "loss=mse loss.reduction=average": "average is not a valid value for reduction",
    "loss=huber loss.delta=0": "huber_loss does not support non-positive values for delta",
    "loss=huber loss.detla=1": "did you mean loss.delta?",
    "data=digits loss=cross_entropy loss.label_smoothing=2": "label_smoothing must be between 0.0 and 1.0",
    "loss=difference loss.target=high": "loss.target=high: is not a number or null",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_in_words(refused, words):
    assert REFUSED[words] in refused("run", *words.split())


def test_targets_become_what_the_loss_takes():
    classes = Data(torch.zeros(3, 2), torch.tensor([1, 0, 2], dtype=torch.int32), classes=["a", "b", "c"])
    assert form_of(nn.CrossEntropyLoss(), 3)(classes.y).tolist() == [1, 0, 2]
    assert form_of(nn.CrossEntropyLoss(), 3)(classes.y).dtype == torch.int64
    for loss in (SumOfSquares(), nn.BCELoss()):
        assert form_of(loss, 3)(classes.y).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
        assert form_of(loss, 3)(classes.y).dtype == torch.float32
    counts = Data(torch.zeros(3, 2), torch.tensor([1, 0, 2]))
    assert form_of(nn.MSELoss(), None)(counts.y).tolist() == [[1.0], [0.0], [2.0]]
    assert form_of(nn.PoissonNLLLoss(), None)(counts.y).dtype == torch.int64  # from outside: as the data have them


def test_sums_are_told_from_means():
    assert is_sum(SumOfSquares())
    assert is_sum(nn.MSELoss(reduction="sum"))
    assert not is_sum(nn.MSELoss())
    assert not is_sum(nn.Identity())
