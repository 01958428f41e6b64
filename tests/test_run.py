"""`trainer run`: the numbers of a plain script, and the files it leaves."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(("step", "loss"), [(1, 628.284), (100, 3.56985)])
def test_seed_0_reproduces_a_plain_script(train, step, loss):
    assert train("steps=100").steps[step - 1]["loss"] == pytest.approx(loss, rel=1e-5)


def test_the_same_command_gives_the_same_bits(train):
    words = ("steps=20", "batch_size=16", "data.validation=0.25")
    assert train(*words, name="one").bits() == train(*words, name="two").bits()


def test_a_run_directory_holds_what_it_promises(train):
    run = train("steps=20")
    assert {p.name for p in run.path.iterdir()} >= {"config.yaml", "status.json", "metrics.jsonl", "trainer.log"}
    assert [p.name for p in run.checkpoints] == ["step-000000000020"]
    files = {"model.safetensors", "training.safetensors", "state.json", "manifest.json"}
    assert {p.name for p in run.checkpoints[0].iterdir()} == files
    assert run.status["state"] == "done"
    assert run.status["format"] == 1
    assert run.status["choices"]["model"] == "two_layer"
