"""The evaluation after the last step competes for best, and for nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

DIGITS = (
    "model=mlp",
    "model.sizes=[8]",
    "data=digits",
    "loss=cross_entropy",
    "optim=adam",
    "optim.lr=0.05",
    "batch_size=128",
)
SHORT = *DIGITS, "steps=25", "eval_every=10"
WORSE = *DIGITS, "steps=25", "eval_every=10", "monitor=validation_accuracy", "mode=min"


def test_a_better_one_is_the_best_and_what_commands_use(train, cli):
    run = train(*SHORT)
    best, metrics = run.status["best"], run.status["metrics"]
    assert [row["step"] for row in run.evaluations] == [10, 20]
    assert metrics["validation_loss"] < min(row["validation_loss"] for row in run.evaluations)
    assert best == {"step": 25, "metric": "validation_loss", "value": metrics["validation_loss"]}
    facts = json.loads(cli("eval", "run", "--json").out)
    assert (facts["step"], facts["accuracy"]) == (25, pytest.approx(metrics["validation_accuracy"]))
    shown = " ".join(cli("show", "run").out.split())
    assert f"best validation loss {best['value']:.6g} at step 25" in shown
    assert cli("verify", "run").code == 0


def test_pictures_mark_it_beyond_the_last_row(train, cli):
    best = train(*SHORT).status["best"]
    for command in (("plot", "run"), ("show", "run")):
        assert f"best {best['value']:.6g} at step 25" in cli(*command).out
    assert cli("plot", "run", "-o", "curve.svg").code == 0
    assert f"best {best['value']:.6g} at step 25" in Path("curve.svg").read_text()


def test_a_worse_one_is_not(train):
    run = train(*WORSE)
    first = run.evaluations[0]
    assert run.status["best"] == {"step": 10, "metric": "validation_accuracy", "value": first["validation_accuracy"]}
    assert run.status["metrics"]["validation_accuracy"] > first["validation_accuracy"]


def test_without_another_evaluation_it_is_the_best(train):
    run = train(*DIGITS, "steps=5", "eval_every=10")
    assert run.evaluations == []
    assert run.status["best"]["step"] == 5


def test_the_best_before_it_stays_beside_it_while_the_run_is_done(train):
    run = train(*SHORT, "checkpoint.keep=1")
    assert [path.name for path in run.checkpoints] == ["step-000000000020", "step-000000000025"]


@pytest.mark.parametrize("more", ["patience=3", "schedule=plateau"])
def test_a_longer_run_forgets_it(train, cli, more):
    whole = train(*DIGITS, "steps=45", "eval_every=10", "checkpoint.keep=1", more, name="whole")
    train(*SHORT, "checkpoint.keep=1", more)
    result = cli("resume", "run", "steps=45")
    assert result.code == 0, result.err
    run = type(whole)(Path("run"))
    assert run.bits() == whole.bits()
    assert run.status["best"] == whole.status["best"]
    assert [path.name for path in run.checkpoints] == [path.name for path in whole.checkpoints]


def test_sweeps_rank_by_it(cli):
    result = cli("run", "-m", "run_dir=sweep", *SHORT, "seed=0,1")
    assert result.code == 0, result.err
    jobs = json.loads(cli("show", "sweep", "--json").out)["jobs"]
    assert [job["best"]["step"] for job in jobs] == [25, 25]
    assert all(job["best"]["value"] == job["metrics"]["validation_loss"] for job in jobs)
    assert "step 25, the best" in cli("eval", "sweep/best").out.replace("\n", " ")


def test_an_edited_status_does_not_decide_which_checkpoint_is_used(train, cli):
    run = train(*WORSE)
    status = run.status
    status["best"]["step"] = 25
    (run.path / "status.json").write_text(json.dumps(status))
    assert json.loads(cli("eval", "run", "--json").out)["step"] == 10


@pytest.mark.parametrize("edit", [{"step": 25, "value": 0.1}, {"step": 20, "value": 0.1}])
def test_verify_compares_it_with_the_last_evaluation(train, cli, edit):
    run = train(*SHORT)
    status = run.status
    status["best"].update(edit)
    (run.path / "status.json").write_text(json.dumps(status))
    result = cli("verify", "run")
    assert result.code == 1
    assert "has been edited" in result.out + result.err
