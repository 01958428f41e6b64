"""All columns at once become what each alone would: numbers, categories, marks of missing cells."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.features import Features

HOLE = float("nan")
finite = st.floats(-1e9, 1e9, allow_nan=False)
numbers = st.fixed_dictionaries(
    {
        "kind": st.just("number"),
        "mean": finite,
        "deviation": st.floats(1e-6, 1e6),
        "fill": st.none() | finite,
        "indicator": st.booleans(),
    }
)
categories = st.fixed_dictionaries(
    {
        "kind": st.just("category"),
        "values": st.lists(st.text(max_size=2), min_size=1, max_size=4, unique=True),
        "encode": st.sampled_from(["onehot", "index"]),
        "indicator": st.booleans(),
    }
)


def by_hand(one, cell):
    """The features of one cell, with Python's numbers."""
    hole = math.isnan(cell)
    mark = [float(hole)] if one["indicator"] else []
    if one["kind"] == "number":
        value = one["fill"] if hole and one["fill"] is not None else cell
        return [(value - one["mean"]) / one["deviation"], *mark]
    if one["encode"] == "index":
        return [float(len(one["values"])) if hole else cell, *mark]
    return [*(float(cell == code) for code in range(len(one["values"]))), *mark]


@given(st.data(), st.lists(numbers | categories, min_size=1, max_size=6))
def test_each_column_has_the_bits_of_plain_arithmetic(data, columns):
    row = [
        data.draw(
            st.just(HOLE) | (finite if one["kind"] == "number" else st.integers(0, len(one["values"])).map(float))
        )
        for one in columns
    ]
    expected = [number for one, cell in zip(columns, row, strict=True) for number in by_hand(one, cell)]
    found = Features(columns)(torch.tensor([row], dtype=torch.float64))
    assert found.dtype == torch.float64
    assert torch.equal(found[0].nan_to_num(7.25), torch.tensor(expected, dtype=torch.float64).nan_to_num(7.25))


def test_columns_without_a_word_of_marks_have_none():
    one = {"kind": "category", "values": ["a", "b"], "encode": "onehot"}
    assert Features([one])(torch.tensor([[1.0], [2.0], [HOLE]])).tolist() == [[0, 1], [0, 0], [0, 0]]
