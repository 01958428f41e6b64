"""Data sets, the split, and the batches of every step."""

from __future__ import annotations

import random
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer import randomness
from trainer.data import Batches, Data, Digits, IntegerTriples, Pair, Random, Target, Tensors, split
from trainer.training.devices import default_dtype

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def global_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_is_drawn_in_its_dtype_x_first(dtype):
    randomness.seed_all(3)
    with default_dtype(dtype):
        drawn = Random(samples=7, inputs=5, outputs=2)
    torch.manual_seed(3)
    assert torch.equal(drawn.x, torch.randn(7, 5, dtype=DTYPES[dtype]))
    assert torch.equal(drawn.y, torch.randn(7, 2, dtype=DTYPES[dtype]))


def test_pair():
    pair = Pair()
    assert (pair.x.tolist(), pair.y.tolist()) == ([[1, 2, 3]], [[1, 2, 3, 4, 5]])
    assert (pair.rows, pair.inputs, pair.outputs) == (1, 3, 5)


@given(st.integers(-5, 5), st.integers(0, 4), st.integers(1, 30), st.integers(0, 9))
def test_integer_triples_are_distinct_and_in_range(low, width, samples, seed):
    samples = min(samples, (width + 1) ** 3)
    randomness.seed_all(seed)
    triples = IntegerTriples(low, low + width, samples, validation=0.0)
    assert len({tuple(row) for row in triples.x.tolist()}) == samples == triples.rows
    assert low <= triples.x.min()
    assert triples.x.max() <= low + width
    assert [[*row, row[2] + 1, row[2] + 2] for row in triples.x.tolist()] == triples.y.tolist()
    randomness.seed_all(seed)
    assert torch.equal(IntegerTriples(low, low + width, samples, validation=0.0).x, triples.x)


def test_integer_triples_of_a_wide_range_need_no_table_of_all():
    triples = IntegerTriples(-100_000, 100_000, samples=50)
    assert triples.x.abs().max() > 50_000
    assert len(triples.x.unique()) > 140


def test_target_has_no_inputs():
    target = Target(7)
    assert (target.x, target.y.item(), target.rows, target.inputs, target.outputs) == (None, 7.0, 1, None, None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_digits(dtype):
    with default_dtype(dtype):
        digits = Digits()
    assert (digits.x.shape, digits.x.dtype, digits.y.dtype) == ((1797, 64), DTYPES[dtype], torch.int64)
    assert (digits.x.min(), digits.x.max()) == (0, 1)
    assert digits.classes == [*"0123456789"]
    assert (digits.inputs, digits.outputs, digits.validation) == (64, 10, 0.2)


def test_digits_without_scikit_learn_names_the_extra(cli, monkeypatch, workdir):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    result = cli("run", "data=digits")
    assert (result.code, result.err) == (
        2,
        "error: data=digits: needs scikit-learn: pip install scikit-learn (the extra `data`)\n",
    )
    assert not list(workdir.iterdir())


def test_data_of_ones_own_may_come_as_numpy_makes_them():
    numbers = Data(torch.from_numpy(np.ones((4, 2))), torch.from_numpy(np.arange(4.0)))
    assert (numbers.x.dtype, numbers.y.dtype, numbers.y.shape) == (torch.float32, torch.float32, (4, 1))
    words = Data(
        torch.zeros(4, 6, dtype=torch.int64), torch.tensor([0, 1, 1, 0], dtype=torch.uint8), classes=["a", "b"]
    )
    assert (words.x.dtype, words.y.dtype) == (torch.int64, torch.int64)
    images = Data(torch.zeros(4, 3, 8, 8), torch.zeros(4, 2))
    assert (images.inputs, images.outputs) == (192, 2)


@pytest.mark.parametrize(
    ("x", "y", "more", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4, 1), {}, "x has 3 rows and y has 4"),
        (torch.zeros(0, 2), torch.zeros(0, 1), {}, "x has 0 rows"),
        (torch.zeros(3, 2), torch.zeros(3), {"classes": ["a"]}, "y must be indices"),
        (torch.zeros(3, 2), torch.tensor([0, 1, 2]), {"classes": ["a", "b"]}, "y must be indices"),
        (torch.zeros(3, 2), torch.tensor([0, 1, -1]), {"classes": ["a", "b"]}, "y must be indices"),
        (torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.int64), {"classes": ["a"]}, "y must be indices"),
        (torch.zeros(3, 2), torch.zeros(3, 1), {"validation": 1.0}, "validation=1.0 must be at least 0 and below 1"),
    ],
)
def test_data_that_do_not_belong_together_are_refused(x, y, more, message):
    with pytest.raises(ValueError, match=message):
        Data(x, y, **more)


REFUSED = {
    "data.samples=0": "data.samples=0: must be at least 1",
    "data.inputs=0": "data.inputs=0: must be at least 1",
    "data.outputs=-3": "data.outputs=-3: must be at least 1",
    "data.samples=1e15": "data.samples=1000000000000000: needs more memory than available",
    "data.samples=2.5": "data.samples=2.5: is not a whole number",
    "data.validation=1.5": "data.validation=1.5: must be at least 0 and below 1",
    "data.validation=-0.1": "data.validation=-0.1: must be at least 0 and below 1",
    "data.validation=0.001": "must leave at least 1 of the 64 rows on each side; it leaves none for validation",
    "data.validation=0.999": "must leave at least 1 of the 64 rows on each side; it leaves none for training",
    "data.smaples=5": "did you mean data.samples?",
    "model.inputs=7": "model.inputs=7: data=random has 1000 inputs; allowed: 1000, or leave it out",
    "model.outputs=7": "model.outputs=7: data=random has 10 outputs",
    "batch_size=60 data.validation=0.2": "batch_size=60: the data have 51 training rows; allowed: 1 to 51",
    "data=pair data.inputs=[]": "data.inputs=[]: must be a list of at least one number",
    "data=pair data.targets=[]": "data.targets=[]: must be a list of at least one number",
    "data=pair data.inputs=[a]": "data.inputs=[a]: is not a list of numbers",
    "data=integer_triples data.low=5 data.high=-5": "data.high=-5: must be at least low=5",
    "data=integer_triples data.samples=0": "data.samples=0: must be from 1 to 9261, the number of triples",
    "data=integer_triples data.high=-9 data.samples=9": "data.samples=9: must be from 1 to 8",
    "data=none": "model=product with data=none",
    "data=none data.target=null": "data.target=null: needs a value",
    "model=product data=digits": "model=product data=digits: the model takes no inputs and the data have some",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_in_words(refused, words):
    assert REFUSED[words] in refused("run", *words.split())


@given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 5))
def test_the_split_is_disjoint_stable_and_leaves_the_global_generators(rows, fraction, seed):
    if not 0 < round(rows * fraction) < rows:
        with pytest.raises(ValueError, match="must leave at least 1 of"):
            split(rows, fraction, seed)
        return
    before = global_states()
    training, validation = split(rows, fraction, seed)
    assert global_states() == before
    assert sorted([*training.tolist(), *validation.tolist()]) == list(range(rows))
    assert len(validation) == round(rows * fraction)
    for part, again in zip((training, validation), split(rows, fraction, seed), strict=True):
        assert torch.equal(part, again)
        assert all(a < b for a, b in pairwise(part.tolist()))


def test_another_seed_holds_out_other_rows():
    assert not torch.equal(split(100, 0.2, 0)[1], split(100, 0.2, 1)[1])
    assert split(100, 0, 0) == (None, None)


def batches_of(rows, batch_size, accumulate, seed=0, summed=False):
    x = torch.arange(rows, dtype=torch.float32)[:, None]
    return Batches(Tensors(x, -x), batch_size, accumulate, seed, summed)


def rows_of(batches, step):
    """The rows of a step's batches, as the inputs tell."""
    return [[int(row) for row in batch.inputs[0].flatten().tolist()] for batch in batches.at(step)]


SIZES = st.integers(1, 40), st.integers(1, 45), st.integers(1, 5), st.integers(0, 3)


@given(*SIZES, st.booleans())
def test_every_row_comes_once_an_epoch(rows, batch_size, accumulate, seed, summed):
    before = global_states()
    batches = batches_of(rows, batch_size, accumulate, seed, summed)
    for epoch in range(2):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        seen = [rows_of(batches, step) for step in steps]
        assert sorted(row for step in seen for batch in step for row in batch) == list(range(rows))
        assert all(0 < len(batch) <= batch_size for step in seen for batch in step)
        assert all(len(step) <= accumulate for step in seen)
        assert all(len(step) == accumulate for step in seen[:-1])
        for step in steps:
            assert sum(b.share for b in batches.at(step)) == pytest.approx(len(batches.at(step)) if summed else 1)
            for batch in batches.at(step):
                assert torch.equal(batch.targets, -batch.inputs[0])
                assert batch.rows is None or torch.equal(batch.inputs[0].flatten(), batch.rows.float())
                assert batch.share == (
                    1 if summed else len(batch.targets) / sum(len(b.targets) for b in batches.at(step))
                )
    assert global_states() == before


@given(*SIZES, st.lists(st.integers(0, 200), max_size=8))
def test_the_order_is_a_function_of_seed_and_epoch(rows, batch_size, accumulate, seed, visited):
    """Whatever was asked for before: a run that goes on at a step sees what one that never stopped does."""
    batches = batches_of(rows, batch_size, accumulate, seed)
    for step in visited:
        torch.manual_seed(step)
        assert rows_of(batches, step) == rows_of(batches_of(rows, batch_size, accumulate, seed), step)


@given(*SIZES)
def test_accumulated_batches_are_parts_of_the_large_one(rows, batch_size, accumulate, seed):
    small, large = batches_of(rows, batch_size, accumulate, seed), batches_of(rows, batch_size * accumulate, 1, seed)
    assert small.steps_per_epoch == large.steps_per_epoch
    for step in range(small.steps_per_epoch):
        parts, (whole,) = [row for batch in rows_of(small, step) for row in batch], rows_of(large, step)
        assert parts == whole if batch_size * accumulate < rows else sorted(parts) == whole


def test_epochs_and_seeds_have_orders_of_their_own():
    one, other = batches_of(40, 8, 1, seed=0), batches_of(40, 8, 1, seed=1)
    assert rows_of(one, 0) != rows_of(other, 0)
    assert rows_of(one, 0) != rows_of(one, 5)


def test_a_full_batch_keeps_its_order():
    assert rows_of(batches_of(9, 9, 1), 4) == [[*range(9)]]
    assert batches_of(9, 20, 3).at(0)[0].rows is None


@given(st.integers(1, 40), st.integers(1, 45), st.booleans())
def test_evaluation_sees_every_row_once_in_order(rows, batch_size, summed):
    batches = list(batches_of(rows, batch_size, 1, 0, summed).in_order())
    assert [int(row) for batch in batches for row in batch.inputs[0]] == list(range(rows))
    assert sum(batch.share for batch in batches) == pytest.approx(len(batches) if summed else 1)


@given(*SIZES)
def test_a_sample_has_as_few_rows_as_the_smallest_batch_but_at_most_two(rows, batch_size, accumulate, seed):
    batches = batches_of(rows, batch_size, accumulate, seed)
    smallest = min(len(b.targets) for step in range(batches.steps_per_epoch) for b in batches.at(step))
    assert rows_of(batches.sample(), 0) == [[*range(min(smallest, 2))]]


WORDS = (
    "device.dtype=float64",
    "data.samples=32",
    "data.inputs=6",
    "data.outputs=3",
    "model.hidden=5",
    "optim.lr=1e-2",
)


@pytest.mark.parametrize("loss", ["sse", "mse", "huber loss.reduction=sum", "l1"])
@pytest.mark.parametrize("optimizer", ["sgd_momentum", "adam"])
def test_accumulated_batches_make_the_same_steps_as_the_large_one(train, loss, optimizer):
    """32 rows in steps of 12: the last one of an epoch has 8, as 3 + 3 + 2."""
    words = (f"loss={loss}", f"optim={optimizer}", "steps=9", *WORDS)
    large = train(*" ".join(words).split(), "batch_size=12", name="large")
    small = train(*" ".join(words).split(), "batch_size=3", "accumulate=4", name="small")
    assert [r["epoch"] for r in small.steps] == [r["epoch"] for r in large.steps] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [r["loss"] for r in small.steps] == pytest.approx([r["loss"] for r in large.steps], rel=1e-9)
    for name, weights in large.weights().items():
        torch.testing.assert_close(small.weights()[name], weights, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("loss", ["sse", "mse"])
def test_batches_train_as_in_a_plain_script(train, loss):
    run = train(f"loss={loss}", *WORDS, "batch_size=5", "accumulate=2", "steps=4")
    torch.manual_seed(0)
    with default_dtype("float64"):
        x, y = torch.randn(32, 6), torch.randn(32, 3)
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    order = Batches(Tensors(x, y), 5, 2, seed=0, summed=False)
    for step, row in enumerate(run.steps):
        rows = torch.cat([batch.rows for batch in order.at(step)])
        assert len(rows) == (2 if step == 3 else 10)
        errors = (model(x[rows]) - y[rows]).pow(2)
        value = errors.sum() if loss == "sse" else errors.mean()
        assert row["loss"] == pytest.approx(value.item(), rel=1e-9)
        model.zero_grad()
        value.backward()
        with torch.no_grad():
            for w in model.parameters():
                w -= 1e-2 * w.grad
    weights = run.weights()
    for name, w in zip(
        ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"), model.parameters(), strict=True
    ):
        torch.testing.assert_close(weights[name], w.detach())


def test_evaluation_of_many_rows_is_that_of_all_at_once(train, monkeypatch):
    import trainer.training.build

    words = (*WORDS, "data.validation=0.5", "batch_size=4", "steps=4")
    whole = train(*words, "loss=mse", name="whole").evaluations
    monkeypatch.setattr(trainer.training.build, "ALL_ROWS", 5)
    parts = train(*words, "loss=mse", name="parts").evaluations
    assert [row["validation_loss"] for row in parts] == pytest.approx([row["validation_loss"] for row in whole])


def test_a_model_without_inputs_takes_its_data_and_goes_with_every_batch_setting(train):
    assert train("model=product", "accumulate=3", "steps=5", "optim.lr=3e-3").steps[0]["loss"] == 9.0
    assert train("model=product", "data=none", "data.target=12", "steps=1", name="named").steps[0]["loss"] == 0.0


@pytest.mark.parametrize("data", ["pair", "integer_triples batch_size=1", "digits batch_size=100"])
def test_every_data_set_trains(train, data):
    run = train(f"data={data.split()[0]}", *data.split()[1:], "steps=20", "loss=mse", "optim.lr=1e-3")
    assert run.status["state"] == "done"


def test_data_of_ones_own_are_selected_like_ours(train, own_part):
    source = (
        "import numpy, torch\nfrom trainer.data import Data\n"
        "class Part(Data):\n"
        "    def __init__(self, rows: int = 12, validation: float = 0.25):\n"
        "        x = numpy.linspace(0, 1, rows)\n"
        "        super().__init__(torch.from_numpy(x)[:, None], torch.from_numpy(2 * x + 1), validation)\n"
    )
    own_part("data", "line", source, "rows: 20\n")
    run = train("data=line", "model=linear", "loss=mse", "optim.lr=0.5", "steps=200")
    assert run.evaluations[-1]["validation_loss"] < 1e-4
    assert run.status["rows"] == {"training": 15, "validation": 5}
