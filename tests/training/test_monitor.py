"""A run that has too few evaluations for its patience or its plateau says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Run

WORDS = ("data.validation=0.25", "data.samples=8", "data.inputs=2", "model.hidden=2", "steps=50")
PLATEAU = ("schedule=plateau", "schedule.patience=3")


def warnings(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("warning: ")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("patience=3", "eval_every=100"), ["patience=3 has no effect: it takes 4 evaluations, and before the last"]),
        (("patience=3", "eval_every=50"), ["last step there are none (one every 50 steps, 50 steps)"]),
        (("patience=3", "eval_every=13"), ["last step there are 3 (one every 13 steps, 50 steps)"]),
        (("patience=3", "eval_every=12"), []),
        ((*PLATEAU, "eval_every=60"), ["schedule=plateau has no effect: it takes 5 evaluations, and before the"]),
        ((*PLATEAU, "eval_every=10"), ["last step there are 4 (one every 10 steps, 50 steps)"]),
        ((*PLATEAU, "eval_every=9"), []),
        ((*PLATEAU, "patience=9", "eval_every=100"), ["patience=9 has no effect", "schedule=plateau has no effect"]),
        (("eval_every=100",), []),
    ],
)
def test_too_few_evaluations_are_told(cli, words, expected):
    for more in ((), ("--dry-run",), ("-m", "seed=0,1", "run_dir=sweep")):
        result = cli("run", *WORDS, *(["run_dir=run"] if not more else []), *words, *more)
        assert result.code == 0, result.err
        found = warnings(result.err)
        assert len(found) == len(expected)
        for text, part in zip(found, expected, strict=True):
            assert part in text


@pytest.mark.parametrize(("every", "acts"), [(12, True), (13, False)])
def test_as_many_are_asked_for_as_are_needed(cli, every, acts):
    """At a rate of 0 nothing improves: the run ends before its last step exactly where nothing is said."""
    words = (*WORDS, "optim.lr=0", f"eval_every={every}")
    result = cli("run", *words, "patience=3", "run_dir=run")
    assert any("no effect" in line for line in warnings(result.err)) is not acts
    assert Run(Path("run")).status["step"] == (48 if acts else 50)


@pytest.mark.parametrize(("every", "acts"), [(9, True), (10, False)])
def test_a_plateau_drops_where_nothing_is_said(cli, every, acts):
    words = (*WORDS, "optim.lr=1e-30", f"eval_every={every}", *PLATEAU)
    result = cli("run", *words, "run_dir=run")
    assert any("no effect" in line for line in warnings(result.err)) is not acts
    assert len({row["lr"] for row in Run(Path("run")).steps}) == (2 if acts else 1)


def test_what_is_left_counts_when_a_run_goes_on(cli):
    assert cli("run", *WORDS, "run_dir=run", "patience=50", "optim.lr=0", "eval_every=10").code == 0
    result = cli("resume", "run", "steps=60", "patience=6")
    assert "patience=6 has no effect: it takes 2 evaluations, and before the last step there are none" in result.err
    result = cli("resume", "run", "steps=100", "patience=6")
    assert "no effect" not in result.err
    assert Run(Path("run")).status["step"] < 100
