"""Why a run failed: where it began, what was kept of it, and that what is said to help does help."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from conftest import Run
from safetensors.torch import load_file
from torch import nn

SMALL = ("data.inputs=20", "model.hidden=5", "data.samples=24", "data.outputs=2")


def diagnosis(path: str = "run") -> dict:
    return Run(Path(path)).status["diagnosis"]


def script(lr: float, steps: int) -> tuple[list[dict], list[torch.Tensor]]:
    """Losses and norms of a plain script, and its weights before the last step."""
    torch.manual_seed(0)
    x, y = torch.randn(24, 20), torch.randn(24, 2)
    layers = nn.Linear(20, 5), nn.Linear(5, 2)
    weights = [w for layer in layers for w in layer.parameters()]
    optimizer = torch.optim.SGD(weights, lr=lr)
    history = []
    for step in range(1, steps + 1):
        before = [w.detach().clone() for w in weights]
        loss = (layers[1](layers[0](x).clamp(min=0)) - y).pow(2).sum()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.cat([w.grad.flatten() for w in weights]).norm()
        history.append({"step": step, "loss": loss.item(), "norm": norm.item()})
        optimizer.step()
    return history, before


@pytest.mark.parametrize("every", [1, 1000])
def test_a_run_that_diverges_says_where_and_keeps_the_step(cli, every):
    result = cli("run", "run_dir=run", "optim.lr=0.03", f"checkpoint.every={every}", *SMALL)
    assert result.code == 1
    found = diagnosis()
    history, before = script(0.03, found["step"])
    assert found["step"] == Run(Path("run")).status["step"]
    for ours, theirs in zip(found["history"], history[-len(found["history"]) :], strict=True):
        assert ours["step"] == theirs["step"]
        assert (ours["loss"], ours["norm"]) == pytest.approx((theirs["loss"], theirs["norm"]), rel=1e-3)
    (kept,) = Path("run/failure").iterdir()
    weights = load_file(kept / "model.safetensors")
    named = dict(zip(["linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"], before, strict=True))
    for name, w in named.items():
        assert torch.allclose(weights[name], w, rtol=1e-3)
    assert "has the largest output" in result.err
    assert "trainer inspect run" in result.err


def test_what_is_said_to_help_does_help(cli):
    result = cli("run", "run_dir=run", "optim.lr=0.03", *SMALL)
    help_ = diagnosis()["helps"][0]
    assert list(help_["words"]) == ["optim.lr"]
    assert help_["text"] in result.err
    (line,) = [line for line in result.err.splitlines() if "start again" in line]
    words = shlex.split(line[line.index("trainer run") :])[2:]
    assert f"optim.lr={help_['words']['optim.lr']}" in words
    again = cli("run", "run_dir=again", *words)
    assert again.code == 0
    rows = Run(Path("again")).steps
    assert rows[49]["loss"] < rows[0]["loss"]


def test_the_experiment_with_the_right_rate_is_named(cli):
    result = cli("run", "run_dir=run", "model=numpy", "model.init=normal", "optim.lr=1e-3", "steps=20")
    assert result.code == 1
    helps = [one["words"] for one in diagnosis()["helps"]]
    assert helps[0] == {"experiment": "numpy"}
    assert "trainer run model=numpy model.init=normal steps=20 experiment=numpy" in result.err
    assert cli("run", "run_dir=again", "model=numpy", "steps=20", "experiment=numpy").code == 0


EXPLODING = """
import torch


class Exp(torch.nn.Module):
    def forward(self, x):
        return torch.exp(x * 1000)


class Part(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = torch.nn.Linear(inputs, 4)
        self.middle = Exp()
        self.second = torch.nn.Linear(4, outputs)
        with torch.no_grad():
            self.first.weight.zero_()
            self.first.bias.zero_()

    def forward(self, x):
        return self.second(self.middle(self.first(x)))
"""


def test_the_first_layer_that_is_not_finite_is_named(cli, own_part):
    own_part("model", "mine", EXPLODING)
    result = cli("run", "run_dir=run", "model=mine", "data.inputs=3", "data.outputs=2", "data.samples=9", "optim.lr=1")
    assert result.code == 1
    assert diagnosis()["where"] == "middle (Exp) is the first layer whose output is not finite"
    assert "where" in result.err
    shown = json.loads(cli("inspect", "run", "--json").out)
    assert shown["step"]["step"] == diagnosis()["step"]
    assert "problem" in shown["step"]
    assert "middle (Exp) is the first" in cli("inspect", "run").out


def test_the_step_is_replayed_with_the_rows_that_were_kept(cli):
    words = ("model=dynamic", "batch_size=7", "optim=sgd_momentum", "optim.lr=0.1")
    assert cli("run", "run_dir=run", *words, *SMALL).code == 1
    last = diagnosis()["history"][-1]
    status = Run(Path("run")).status
    files = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    shown = json.loads(cli("inspect", "run", "--json").out)["step"]
    assert shown["step"] == last["step"]
    if last["loss"] is not None:
        assert shown["loss"] == pytest.approx(last["loss"])
        assert shown["loss"] == pytest.approx(status["metrics"]["loss"])
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == files


def test_a_run_that_goes_on_forgets_it(cli):
    assert cli("run", "run_dir=run", "optim.lr=0.03", "checkpoint.every=1", *SMALL).code == 1
    assert diagnosis()["from_step"] == 0  # from the last checkpoint it was too late
    assert Path("run/failure").exists()
    assert cli("resume", "run", "max_divergence=1e30", "steps=9").code == 0
    assert diagnosis() is None
    assert not Path("run/failure").exists()


def test_other_failures_are_not_diagnosed(cli, own_part):
    source = "import torch\n\n\nclass Part(torch.nn.Linear):\n    def __init__(self, inputs, outputs):\n"
    source += "        super().__init__(inputs, outputs)\n        self.calls = 0\n\n    def forward(self, x):\n"
    source += "        self.calls += 1\n        if self.calls > 3:\n            raise RuntimeError('mine')\n"
    source += "        return super().forward(x)\n"
    own_part("model", "mine", source)
    assert cli("run", "run_dir=run", "model=mine", "data.inputs=3", "data.outputs=2", "data.samples=9").code == 1
    assert diagnosis() is None


def test_a_sweep_tells_it_of_each_job(cli):
    result = cli("run", "-m", "run_dir=sweep", "optim.lr=0.03,1e-4", *SMALL)
    assert result.code == 1
    assert "takes the loss from" in result.out
    assert diagnosis("sweep/000")["helps"]
    assert "takes the loss from" in cli("show", "sweep/000").out
