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


def test_the_rate_of_the_experiment_is_named(cli):
    result = cli("run", "run_dir=run", "model=numpy", "model.init=normal", "optim.lr=1e-3", "steps=20")
    assert result.code == 1
    first = diagnosis()["helps"][0]
    assert first["words"] == {"optim.lr": "1e-06"}
    assert first["text"].startswith("optim.lr=1e-06 (as in experiment=numpy): the loss falls from 2.9428")
    assert cli("run", "run_dir=again", "model=numpy", "model.init=normal", "optim.lr=1e-06", "steps=20").code == 0


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


def test_the_step_that_breaks_the_weights_is_the_one_that_is_kept(cli):
    result = cli("run", "run_dir=run", "optim.lr=1e38", *SMALL)
    assert "at step 2" in result.err
    found = diagnosis()
    assert found["step"] == 1
    assert found["where"].startswith("the update makes linear1.weight not finite")
    torch.manual_seed(0)
    torch.randn(24, 20), torch.randn(24, 2)
    first = nn.Linear(20, 5)
    (kept,) = Path("run/failure").iterdir()
    assert torch.equal(load_file(kept / "model.safetensors")["linear1.weight"], first.weight)
    assert cli("run", "run_dir=again", f"optim.lr={found['helps'][0]['words']['optim.lr']}", *SMALL).code == 0


def test_the_step_is_replayed_with_the_rows_that_were_kept(cli):
    words = ("model=dynamic", "batch_size=7", "optim=sgd_momentum", "optim.lr=0.1")
    assert cli("run", "run_dir=run", *words, *SMALL).code == 1
    last = diagnosis()["history"][-1]
    status = Run(Path("run")).status
    files = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    shown = json.loads(cli("inspect", "run", "--json").out)["step"]
    assert shown["step"] == last["step"]
    assert shown["loss"] == pytest.approx(status["metrics"]["loss"])
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == files


def test_a_run_that_goes_on_forgets_it(cli):
    assert cli("run", "run_dir=run", "optim.lr=0.03", "checkpoint.every=1", *SMALL).code == 1
    assert diagnosis()["from_step"] == 0  # from the last checkpoint it was too late
    assert Path("run/failure").exists()
    assert cli("resume", "run", "max_divergence=1e30", "steps=9").code == 0
    assert diagnosis() is None
    assert not Path("run/failure").exists()


OWN = """
import torch


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, grad):
        return {backward}


class Part(torch.nn.Module):
    calls = 0

    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = torch.nn.Linear(inputs, 4)
        self.second = torch.nn.Linear(4, outputs)

    def forward(self, x):
        Part.calls += 1
        scale = {scale}
        return self.second(Wrong.apply(self.first(x))) * scale
"""
FEW = ("model=mine", "data.inputs=3", "data.outputs=2", "data.samples=9")


def test_a_wrong_gradient_is_blamed_and_no_rate(cli, own_part):
    own_part("model", "mine", OWN.format(backward="-1000 * grad", scale="1"))
    result = cli("run", "run_dir=run", *FEW, "optim.lr=1")
    assert result.code == 1
    assert diagnosis()["where"].startswith("the gradient of first.weight, first.bias is not the gradient of the loss")
    assert diagnosis()["helps"] == []
    assert "trainer run" not in result.err.partition("error: ")[2]
    assert "trainer inspect run" in result.err


def test_a_step_that_does_not_fail_again_is_not_shown_as_the_one(cli, own_part):
    scale = "float('nan') if Part.calls == 12 else 1"
    own_part("model", "mine", OWN.format(backward="grad", scale=scale))
    result = cli("run", "run_dir=run", *FEW)
    assert result.code == 1
    assert diagnosis()["where"].startswith("the step does not fail when repeated")
    assert not Path("run/failure").exists()


def test_norms_are_those_before_clipping(cli):
    assert cli("run", "run_dir=run", "optim.lr=10", "clip_norm=100", "max_divergence=1e4", *SMALL).code == 1
    first = diagnosis()["history"][0]
    assert first["step"] == 1
    assert first["norm"] == pytest.approx(script(0.0, 1)[0][0]["norm"], rel=1e-4)


def test_a_huge_number_in_the_data_is_named(cli):
    rows = ["a,b,y", *(f"{n},{n % 3},{n % 5}" for n in range(10))]
    rows[5] = "1e30,1,2"
    Path("huge.csv").write_text("\n".join(rows) + "\n")
    words = (
        "experiment=table",
        "data.path=huge.csv",
        "data.target=y",
        "data.standardize=false",
        "data.validation=0",
        "batch_size=10",
    )
    result = cli("run", "run_dir=run", *words)
    assert result.code == 1
    assert "input 1 of training row 4 is 1e+30" in diagnosis()["where"]


def test_a_failure_stands_in_the_status_before_it_is_looked_into(cli, monkeypatch):
    def interrupted(*arguments: object) -> None:
        assert Run(Path("run")).status["state"] == "failed"
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.analysis.failure._phases", interrupted)
    result = cli("run", "run_dir=run", "optim.lr=0.03", *SMALL)
    assert result.code == 1
    assert "grows without bound" in result.err
    assert Run(Path("run")).status["error"] in result.err


def test_what_was_found_stays_if_the_rest_fails(cli, monkeypatch):
    monkeypatch.setattr(
        "trainer.analysis.failure._keep", lambda *arguments: (_ for _ in ()).throw(OSError(28, "disk full"))
    )
    assert cli("run", "run_dir=run", "optim.lr=0.03", *SMALL).code == 1
    assert "has the largest output" in diagnosis()["where"]
    assert "disk full" in diagnosis()["problem"]


def test_a_link_in_place_of_the_folder_is_not_followed(cli):
    assert cli("run", "run_dir=run", "optim.lr=0.03", "checkpoint.every=1", *SMALL).code == 1
    Path("run/failure").rename("outside")
    Path("run/failure").symlink_to("../outside")
    before = sorted(Path("outside").rglob("*"))
    assert cli("resume", "run").code == 2
    assert sorted(Path("outside").rglob("*")) == before


def test_objects_are_looked_at_where_they_are():
    from trainer import fit
    from trainer.errors import RunFailed

    x = torch.randn(9, 3)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.fill_(1e30)
        net[1].weight.fill_(1e30)
    with pytest.raises(RunFailed) as failed:
        fit(model=net, data=(x, torch.zeros(9, 2)), run_dir="run", quiet=True)
    assert diagnosis()["where"].startswith("1 (Linear) is the first layer whose output is not finite")
    assert any("1 (Linear)" in note for note in failed.value.__notes__)
    assert Path("run/failure").exists()


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
    assert "the loss falls from" in result.out
    assert diagnosis("sweep/000")["helps"]
    assert "the loss falls from" in cli("show", "sweep/000").out
