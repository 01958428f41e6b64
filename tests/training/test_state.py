"""Everything a run carries from step to step comes back from a checkpoint bit by bit."""

from __future__ import annotations

import collections
import contextlib
import json
import math
import random

import numpy as np
import pytest
import torch

from trainer import randomness
from trainer.checkpoints import tree as trees
from trainer.schedules import Plateau
from trainer.training.state import Counters

OPTIMIZERS = {
    name: cls
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
}
VARIANTS = {
    "Adam, amsgrad": lambda p: torch.optim.Adam(p, amsgrad=True),
    "RMSprop, all": lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True),
    "LBFGS, line search": lambda p: torch.optim.LBFGS(p, line_search_fn="strong_wolfe"),
    "SGD, momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
}


def round_trip(tree):
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(trees.pack(tree, "tree", tensors), allow_nan=False)
    return trees.unpack(json.loads(text), {name: tensor.clone() for name, tensor in tensors.items()})


def same(one, other):
    """Whether two trees are of the same types and the same bits."""
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor)
            and (one.dtype, one.shape) == (other.dtype, other.shape)
            and one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)  # of floats, repr tells all but one NaN from another


def steps(make, dtype):
    """The state of an optimizer after three steps on a matrix, a vector and a number."""
    torch.manual_seed(0)
    shapes = [(4, 3), (2, 5)] if make is OPTIMIZERS["Muon"] else [(4, 3), (3,), ()]
    weights = [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]
    optimizer = make(weights)

    def closure():
        optimizer.zero_grad()
        loss = sum((w.square() * (1 + i)).sum() for i, w in enumerate(weights))
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    return optimizer.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*OPTIMIZERS, *VARIANTS])
def test_every_optimizers_state_comes_back(name, dtype):
    make = VARIANTS.get(name) or OPTIMIZERS[name]
    if name == "SparseAdam":
        embedding = torch.nn.Embedding(5, 3, sparse=True, dtype=dtype)
        optimizer = make(list(embedding.parameters()))
        embedding(torch.tensor([1, 3])).sum().backward()
        optimizer.step()
        state = optimizer.state_dict()
    else:
        state = steps(make, dtype)
    assert state["state"] or name in ("SGD",)
    assert same(round_trip(state), state)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        [],
        (),
        {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}, "a.b'": torch.ones(2)},
        {1: torch.ones(1), "1": torch.zeros(1)},
        {"$tensor": "x", "y": {"$tuple": [1]}},
        {0: {"$items": []}, True: 2},
        [math.inf, -math.inf, math.nan, -0.0, 5e-324, 0.1, 1e308],
        [2**70, -1, True, False, None, "", "$float", "\ud800 \x00 \u2028"],
        ((1, [2, (3,)]), {"x": (None,)}),
    ],
)
def test_trees_come_back(tree):
    assert same(round_trip(tree), tree)


def test_subclasses_come_back_as_what_they_extend():
    tree = {"d": collections.OrderedDict(a=1), "s": torch.Size([2, 3]), "f": np.float64("inf"), "g": np.float64(0.1)}
    assert round_trip(tree) == {"d": {"a": 1}, "s": (2, 3), "f": math.inf, "g": 0.1}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": [1, {2}]}, r"tree\.a\.1 is a set"),
        ({"a": b""}, r"tree\.a is a bytes"),
        ({"a": np.ones(2)}, r"tree\.a is a ndarray"),
        ({(1, 2): 3}, r"tree has a key that is a tuple"),
        ({0.5: 3}, r"tree has a key that is a float"),
        ({"a": torch.Generator()}, r"tree\.a is a Generator"),
    ],
)
def test_what_cannot_be_held_is_refused_by_name(tree, message):
    with pytest.raises(TypeError, match=message):
        trees.pack(tree, "tree", {})


def draws():
    """Numbers from every global generator, the second of a pair of normal ones among them."""
    numbers = [random.random(), random.gauss(0, 1), random.randint(0, 3)]
    return [*numbers, np.random.rand(), np.random.randn(), *torch.randn(3).tolist(), torch.rand(()).item()]


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_every_generator_comes_back(seed):
    randomness.seed_all(seed)
    draws()  # now each holds half a pair of normal numbers
    state = round_trip(randomness.state_dict())
    expected = [draws() for _ in range(300)]  # past the end of every block of random words
    randomness.seed_all(5)
    randomness.load_state_dict(state)
    assert [draws() for _ in range(300)] == expected


def test_seeding_is_what_a_plain_script_does():
    randomness.seed_all(3)
    found = draws()
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    assert draws() == found


def test_an_isolated_block_moves_nothing_on():
    randomness.seed_all(0)
    expected = [draws() for _ in range(2)]
    randomness.seed_all(0)
    found = [draws()]
    with randomness.isolated(7):
        inside = draws()
    with contextlib.suppress(ZeroDivisionError), randomness.isolated(7):
        assert draws() == inside
        raise ZeroDivisionError
    assert [*found, draws()] == expected


def test_derived_seeds_differ_by_purpose_and_number():
    seeds = {randomness.derived(s, p, n) for s in (0, 1, 2**32 - 1) for p in range(1, 5) for n in range(50)}
    assert len(seeds) == 3 * 4 * 50
    assert randomness.derived(0, randomness.ORDER, 0) == randomness.derived(0, randomness.ORDER, 0)


def test_the_state_of_the_loop_comes_back():
    state = Counters()
    state.step = 6
    state.note_loss(2.5)
    state.note_evaluation({"validation_loss": math.inf}, "validation_loss", "min")
    state.note_evaluation({"validation_loss": 1.5}, "validation_loss", "min")
    other = Counters()
    other.load_state_dict(round_trip(state.state_dict()))
    assert other == state
    assert (other.best_step, other.best_value, other.stale, other.first_loss) == (7, 1.5, 0, 2.5)


@pytest.mark.parametrize("change", [{"later": 1}, {"step": None}])
def test_a_state_of_other_fields_is_refused(change):
    fields = {**Counters().state_dict(), **change}
    if change == {"step": None}:
        del fields["step"]
    with pytest.raises(ValueError, match="the state has"):
        Counters().load_state_dict(fields)


def test_a_plateau_that_has_seen_nothing_comes_back():
    fresh = Plateau()
    assert fresh.best == math.inf
    fresh.load_state_dict(round_trip(Plateau().state_dict()))
    fresh.observe(3.0)
    assert fresh.best == 3.0
