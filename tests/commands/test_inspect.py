"""`trainer inspect`: numbers against a plain script's, wrong gradients found, graphs of what autograd keeps."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from conftest import Run
from torch import nn

SMALL = ("data.inputs=20", "model.hidden=5", "data.samples=24", "data.outputs=2")


@pytest.fixture
def inspected(cli):
    """Return what `trainer inspect WORDS --json` prints."""

    def call(*words: str):
        result = cli("inspect", *words, "--json")
        found = json.loads(result.out)
        wrong = isinstance(found, dict) and found.get("step", {}).get("check", {}).get("wrong")
        assert result.code == (1 if wrong else 0)
        return found

    return call


def test_the_arithmetic_of_two_numbers(inspected, cli, workdir):
    found = inspected("experiment=product")
    step = found["step"]
    assert (found["prediction"]["values"], found["targets"]["values"], step["loss"]) == (12.0, 15.0, 9.0)
    a, b = step["weights"]
    assert (a["of_the_prediction"]["values"], b["of_the_prediction"]["values"]) == (4.0, 3.0)
    assert (a["gradient"]["values"], b["gradient"]["values"]) == (-24.0, -18.0)
    assert (a["after"]["values"], b["after"]["values"]) == pytest.approx((3.072, 4.054))
    assert step["loss_after"] == pytest.approx((15 - 3.072 * 4.054) ** 2, rel=1e-5)
    text = cli("inspect", "experiment=product").out
    for number in ("3.0720", "4.0540", "-24.000", "-18.000", "0.054000", "loss        9\n"):
        assert number in text
    assert list(workdir.iterdir()) == []


def test_the_step_is_that_of_a_plain_script(inspected):
    found = inspected("model=two_layer", "optim=sgd_momentum", "optim.lr=1e-3", *SMALL)
    torch.manual_seed(0)
    x, y = torch.randn(24, 20), torch.randn(24, 2)
    first, second = nn.Linear(20, 5), nn.Linear(5, 2)
    weights = [*first.parameters(), *second.parameters()]
    optimizer = torch.optim.SGD(weights, lr=1e-3, momentum=0.9)
    loss = (second(first(x).clamp(min=0)) - y).pow(2).sum()
    loss.backward()
    before = [w.detach().clone() for w in weights]
    optimizer.step()
    step = found["step"]
    assert step["loss"] == pytest.approx(loss.item(), rel=1e-6)
    norm = torch.cat([w.grad.flatten() for w in weights]).norm()
    assert step["norm"] == pytest.approx(norm.item(), rel=1e-5)
    for one, w, old in zip(step["weights"], weights, before, strict=True):
        assert one["gradient"]["mean"] == pytest.approx(w.grad.mean().item(), rel=1e-4, abs=1e-6)
        assert one["gradient"]["largest"] == pytest.approx(w.grad.max().item(), rel=1e-5)
        assert one["update"]["smallest"] == pytest.approx((w - old).min().item(), rel=1e-3)
    after = (second(first(x).clamp(min=0)) - y).pow(2).sum()
    assert step["loss_after"] == pytest.approx(after.item(), rel=1e-5)
    assert [one["name"] for one in found["layers"]] == ["linear1", "linear2", ""]
    assert [(one["inputs"], one["outputs"]) for one in found["layers"][:2]] == [
        ([[24, 20]], [24, 5]),
        ([[24, 5]], [24, 2]),
    ]
    assert found["numbers"] == 20 * 5 + 5 + 5 * 2 + 2
    assert found["bytes"] == 4 * found["numbers"]


def test_clipping_is_told(inspected, cli):
    assert inspected(*SMALL)["step"]["clipped_to"] is None
    step = inspected("clip_norm=0.5", *SMALL)["step"]
    assert step["clipped_to"] == 0.5
    assert step["norm"] > 0.5
    assert "clipped to 0.5" in cli("inspect", "clip_norm=0.5", *SMALL).out


RELU = """
import torch


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        return h.clamp(min=0)

    @staticmethod
    def backward(ctx, grad):
        (h,) = ctx.saved_tensors
        return {backward}


class Part(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = torch.nn.Linear(inputs, 4)
        self.second = torch.nn.Linear(4, outputs)

    def forward(self, x):
        return self.second(Own.apply(self.first(x)))
"""


@pytest.mark.parametrize(
    ("backward", "wrong"), [("torch.where(h > 0, grad, 0)", []), ("grad", ["first.weight", "first.bias"])]
)
def test_a_gradient_that_is_not_that_of_the_loss_is_found(inspected, cli, own_part, backward, wrong):
    own_part("model", "mine", RELU.format(backward=backward))
    words = ("model=mine", "data.inputs=6", "data.outputs=2", "data.samples=9")
    check = inspected(*words)["step"]["check"]
    assert check["wrong"] == wrong
    differences = {one["name"]: one["difference"] for one in check["differences"]}
    assert [name for name, difference in differences.items() if difference > 1e-3] == wrong
    assert all(difference < 1e-5 for name, difference in differences.items() if name not in wrong)
    text = cli("inspect", *words).out
    assert ("wrong: the gradient of first.weight, first.bias does not match the loss" in text) == bool(wrong)


@pytest.mark.parametrize("model", ["numpy", "tensor", "autograd", "function", "sequential", "dynamic", "mlp"])
def test_the_gradients_of_every_model_are_checked(inspected, model):
    differences = inspected(f"model={model}", "data.inputs=20", "data.samples=24", "data.outputs=2")["step"]["check"]
    assert all(one["difference"] < 1e-4 for one in differences["differences"])


def test_of_a_run_it_is_the_next_step(inspected, train, cli):
    train("steps=5", "model=dynamic", "optim=adam", *SMALL)
    files = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    found = inspected("run")
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == files
    assert cli("resume", "run", "steps=6").code == 0
    assert found["step"]["step"] == 6
    assert found["step"]["loss"] == Run(Path("run")).steps[-1]["loss"]
    weights = Run(Path("run")).weights()
    for one in found["step"]["weights"]:
        assert one["after"]["largest"] == weights[one["name"]].max().item()


def test_a_layer_that_is_used_again_is_counted(inspected):
    found = inspected("model=dynamic", *SMALL)
    torch.manual_seed(0)
    random.seed(0)
    uses = random.randint(0, 3)
    assert [one["use"] for one in found["layers"] if one["name"] == "middle_linear"] == list(range(1, uses + 1))


def test_the_graph_of_a_product(cli):
    result = cli("inspect", "experiment=product", "--graph")
    assert result.code == 0
    assert [line.strip("├└─ ") for line in result.out.splitlines()[1:4]] == ["Mul", "a  1 number", "b  1 number"]


def test_passes_of_random_depth_differ_and_share_a_layer(inspected, cli):
    passes = inspected("model=dynamic", "--graph", *SMALL)
    torch.manual_seed(0)
    random.seed(0)
    uses = [random.randint(0, 3) for _ in passes]
    assert len(passes) > 1
    for one, count in zip(passes, uses, strict=True):
        (middle,) = [node["number"] for node in one["nodes"] if node["name"] == "middle_linear.bias"] or [None]
        assert sum(middle in node["inputs"] for node in one["nodes"]) == count
    assert len(inspected("model=two_layer", "--graph", *SMALL)) == 1
    text = cli("inspect", "model=dynamic", "--graph", *SMALL).out
    drawn = {count for count in uses if count > 1}
    assert text.count("middle_linear.bias  5, one of ") == sum(drawn)
    assert all(f"middle_linear.bias  5, one of {count} uses" in text for count in drawn)


def test_the_graph_goes_into_a_file(cli, refused, monkeypatch):
    pytest.importorskip("graphviz")
    assert cli("inspect", "experiment=product", "--graph", "-o", "graph.gv").code == 0
    source = Path("graph.gv").read_text()
    assert source.count("->") == 2
    Path("graph.gv").unlink()
    assert "allowed: *.svg, *.pdf, *.png, *.gv" in refused("inspect", "--graph", "-o", "graph.txt")
    monkeypatch.setenv("PATH", "")
    assert "-o graph.gv does not need it" in refused("inspect", "--graph", "-o", "graph.svg")


def test_wrong_words(refused):
    assert "only works with --graph" in refused("inspect", "-o", "graph.svg")
    assert "only works with a run" in refused("inspect", "--checkpoint=last")
    assert "no such model" in refused("inspect", "model=dynamc")
    assert "several values" in refused("inspect", "seed=0,1")
