"""compile=step trains as the uncompiled loop does but for rounding, and resumes with its own bits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Run

from trainer.training import compiled
from trainer.training.loop import take_step

# All that a span may meet: smaller batches, an optimizer's state, a schedule, clipping, evaluations, checkpoints.
WHOLE = (
    *("model=mlp", "model.sizes=[8]", "data.inputs=6", "data.outputs=2", "data.samples=100", "data.validation=0.2"),
    *("loss=mse", "optim=adam", "optim.lr=0.01", "schedule=cosine", "clip_norm=0.5", "batch_size=3", "eval_every=25"),
    *("checkpoint.every=26", "checkpoint.keep=9", "device.threads=1", "steps=120"),
)
DROPOUT = "model=mlp", "model.sizes=[8]", "model.dropout=0.5", "data.inputs=6", "data.outputs=2", "data.samples=20"


def assert_close(ours, reference):
    assert [row["step"] for row in ours] == [row["step"] for row in reference]
    for one, other in zip(ours, reference, strict=True):
        assert one.keys() == other.keys()
        assert one == pytest.approx(other, rel=2e-4, abs=1e-6)


def gone_on(cli, run, step):
    """The run as if it had been killed after its checkpoint of a step, and resumed."""
    again = Run(Path(f"again-{step}"))
    shutil.copytree(run.path, again.path)
    for checkpoint in again.checkpoints:
        if checkpoint.name > f"step-{step:012d}":
            shutil.rmtree(checkpoint)
    (again.path / "status.json").write_text(json.dumps({**again.status, "state": "running"}))
    result = cli("resume", str(again.path))
    assert result.code == 0, result.err
    return again


@pytest.mark.parametrize("unrolled", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_compiled_steps_are_those_of_the_uncompiled_loop_and_resume_exactly(cli, train, monkeypatch, unrolled):
    monkeypatch.setattr(compiled, "UNROLLED", unrolled)
    uncompiled = []
    monkeypatch.setattr(compiled, "take_step", lambda run: uncompiled.append(run.state.step) or take_step(run))
    ours = train(*WHOLE, "compile=step", name="compiled")
    assert 0 < len(uncompiled) < 100
    assert_close(ours.rows, train(*WHOLE, name="plain").rows)
    for step in (26, 52):
        assert gone_on(cli, ours, step).bits() == ours.bits()


@pytest.mark.slow
def test_what_is_drawn_is_what_the_uncompiled_loop_draws(cli, train):
    words = *DROPOUT, "optim=sgd_momentum", "optim.lr=1e-3", "steps=12", "checkpoint.every=5", "checkpoint.keep=9"
    ours, plain = train(*words, "compile=step", name="compiled"), train(*words, name="plain")
    assert_close(ours.rows, plain.rows)
    assert gone_on(cli, ours, 5).bits() == ours.bits()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("model=numpy", "compile=step: torch can't compile it: "),
        ("model=dynamic", "compile=step: the model draws from Python's or NumPy's generator"),
        ("optim=lbfgs model=linear", "compile=step: LBFGS "),
        ("model=product data=none loss=difference", "compile=step: this small model shows its parameters"),
    ],
)
def test_what_cant_be_compiled_says_so_and_trains_as_ever(cli, train, words, reason):
    words = *words.split(), "steps=3"
    result = cli("run", "run_dir=compiled", *words, "compile=step")
    assert result.code == 0
    assert reason in result.err
    assert "training without compilation" in result.err
    assert Run(Path("compiled")).bits() == train(*words, name="plain").bits()
