"""Sweep expressions: a list of jobs, or a refusal in one line."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trainer.config import arguments
from trainer.config.catalog import Catalog
from trainer.errors import UsageError


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=range(0,0)", "has no values"),
        ("seed=range(3,0)", "has no values"),
        ("seed=range(0,10,0)", "a step other than 0"),
        ("optim.lr=range(0,1,0.0)", "a step other than 0"),
        ("optim.lr=range(0,inf)", "finite numbers"),
        ("optim.lr=range(0,nan)", "finite numbers"),
        ("seed=range(0,1000000000000)", "max_jobs=1000000000000"),
        ("seed=shuffle(range(0,1000000000000))", "max_jobs=1000000000000"),
        ("optim=glob(zzz*)", "adagrad, adam"),
        ("seed=glob(*)", "optim=glob(...)"),
        ("optim.lr=interval(0,1)", "list the values"),
    ],
)
def test_a_sweep_without_values_or_without_end_is_refused(refused, word, said):
    assert said in refused("run", "-m", word)


def test_a_sweep_of_numbers_is_what_python_s_range_holds():
    (choices,) = [jobs("seed=range(1,8,3)", "max_jobs=3")]
    assert [choice.swept for choice in choices] == [{"seed": str(seed)} for seed in range(1, 8, 3)]


def jobs(*words: str) -> list[arguments.Choice]:
    return arguments.jobs(arguments.split(["-m", *words]), Catalog())


NUMBERS = st.integers(-20, 20).map(str) | st.floats().map(str) | st.sampled_from(["1e999", "-0.0", "null", "a", ""])
PIECES = st.sampled_from([*"()[]{},=:'\"\\ *?$~#+-", "range(", "choice(", "glob(", "shuffle(", "sort(", "interval("])
WORDS = st.lists(PIECES | NUMBERS | st.sampled_from(["adam", "sgd", "*", "exclude=", "reverse=true"]), max_size=7)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["seed", "optim", "optim.lr", "logger", "name"]), pieces=WORDS)
@example(key="seed", pieces=["range(", "1", ")"])
@example(key="seed", pieces=["choice(", ")"])
@example(key="seed", pieces=["glob(", ")"])
@example(key="optim", pieces=["range(", "0", ",", "0", ")"])
@example(key="optim", pieces=["sort(", "sgd", ",", "1", ")"])
@example(key="optim.lr", pieces=["sort(", "1", ",", "a", ")"])
def test_any_expression_is_jobs_or_one_line(key, pieces):
    try:
        found = jobs(f"{key}={''.join(pieces)}")
    except UsageError:  # any other error would be a traceback
        return
    assert found


@settings(max_examples=100, deadline=None)
@given(start=st.integers(-9, 9), stop=st.integers(-9, 9), step=st.integers(-3, 3).filter(bool))
def test_any_range_is_that_of_python(start, stop, step):
    expected = [str(value) for value in range(start, stop, step)]
    try:
        found = [choice.swept["seed"] for choice in jobs(f"seed=range({start},{stop},{step})")]
    except UsageError:
        found = []
    assert found == expected
