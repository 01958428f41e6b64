"""`trainer run`: the numbers of a plain script, and the files it leaves."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Run


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


def test_status_repeats_the_configuration(cli, train):
    def config() -> dict:
        return yaml.safe_load((run.path / "config.yaml").read_text())

    run = train("steps=2", "name=first")
    assert run.status["config"] == config()
    assert "experiment" not in run.status["choices"]
    assert cli("resume", "run", "steps=3", "name=second").code == 0
    assert run.status["config"] == config()
    assert (run.status["config"]["steps"], run.status["name"]) == (3, "second")


def test_a_lost_status_is_made_anew(cli, train):
    run = train("steps=2")
    before = run.status
    (run.path / "status.json").unlink()
    assert cli("resume", "run", "steps=3").code == 0
    assert run.status.keys() == before.keys() - {"created"}  # which nothing else tells
    assert (run.status["format"], run.status["id"]) == (1, "run")


def test_a_run_may_start_from_the_last_one(cli, train):
    first = train("steps=5", name="runs/20260101-000000-bbbb")
    result = cli("run", "init_from=last", "steps=1")
    assert result.code == 0, result.err
    (second,) = (p for p in first.path.parent.glob("2*") if p.name != first.path.name)
    plain = train("steps=6", name="longer")
    assert Run(second).steps[0]["loss"] == plain.steps[5]["loss"]


def test_the_best_weights_outlive_a_failure(cli):
    result = cli("run", "run_dir=run", "experiment=first_network", "data.validation=0.25", "eval_every=1")
    assert result.code == 1
    run = Run(Path("run"))
    best = run.status["best"]["step"]
    assert f"step-{best:012d}" in [p.name for p in run.checkpoints]


def test_another_device_on_resume_keeps_the_kind_of_numbers(cli, train):
    run = train("steps=2", "device.dtype=float64")
    assert cli("resume", "run", "device=cpu", "steps=3").code == 0
    assert run.weights()["linear1.weight"].dtype.itemsize == 8


WATCHING = """
import gc
from torch import nn
SEEN = []
class Part(nn.Linear):
    def forward(self, x):
        SEEN.append(gc.isenabled())
        return super().forward(x)
"""


def test_garbage_is_searched_for_while_a_run_trains_and_after_it(train, own_part):
    """What a model of one's own leaves in circles is given back, whatever start-up does to be quick."""
    own_part("model", "watching", WATCHING, "in_features: 4\nout_features: 10\n")
    train("model=watching", "data.inputs=4", "steps=3")
    assert sys.modules["own_watching"].SEEN[-3:] == [True] * 3
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
