"""`trainer ladder`: every rung computes what a plain script computes, and the code is shown as it is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from trainer.commands.ladder import NAMES

RUNGS = ["numpy", "tensor", "autograd", "function", "sequential", "two_layer"]
SMALL = ("data.inputs=20", "model.hidden=5", "data.samples=24", "data.outputs=2", "optim.lr=1e-3")


def plain(steps: int) -> list[float]:
    """Losses of plain descent on two matrices, by hand."""
    torch.manual_seed(0)
    x, y = (torch.randn(24, width, dtype=torch.float64).numpy() for width in (20, 2))
    w1, w2 = (
        torch.empty(i, o, dtype=torch.float64).uniform_(-(i**-0.5), i**-0.5).numpy() for i, o in ((20, 5), (5, 2))
    )
    losses = []
    for _ in range(steps):
        h = x @ w1
        error = np.maximum(h, 0) @ w2 - y
        losses.append(float((error**2).sum()))
        grad_w2 = np.maximum(h, 0).T @ (2 * error)
        grad_w1 = x.T @ np.where(h > 0, 2 * error @ w2.T, 0)
        w1, w2 = w1 - 1e-3 * grad_w1, w2 - 1e-3 * grad_w2
    return losses


@pytest.mark.parametrize("optim", ["sgd", "gd"])
def test_all_rungs_follow_the_trajectory_of_a_plain_script(cli, workdir, optim):
    result = cli("ladder", "steps=60", f"optim={optim}", *SMALL, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [one["model"] for one in found["rungs"]] == RUNGS
    expected = plain(60)
    for one in found["rungs"]:
        assert one["losses"] == pytest.approx(expected, rel=1e-10)
        assert one["update"] == ("by hand" if optim == "gd" else "torch's SGD")
        assert one["seconds_a_step"] > 0
    ends = np.array([one["losses"] for one in found["rungs"]])
    relative = (ends.max(0) - ends.min(0)) / ends.max(0)
    assert found["difference"]["relative"] == pytest.approx(relative.max())
    assert found["difference"]["step"] == relative.argmax() + 1
    assert list(workdir.iterdir()) == []


def test_the_tables_fit_eighty_columns(cli):
    text = cli("ladder", "steps=12", *SMALL).out
    assert all(len(line) < 80 for line in text.splitlines() if "trainer" not in line)
    assert [line.split()[0] for line in text.splitlines() if line.split()[0] in RUNGS] == RUNGS * 2
    assert "step 10" in text
    assert "step 12" in text
    assert "step 100" not in text


def test_what_autograd_takes_over_is_marked(cli):
    lines = cli("ladder", "--source", "autograd").out.splitlines()
    assert "-         grad_w1 = x.T @ grad_h" in lines
    assert (
        "-     def backward_pass(self, grad_prediction: Tensor, saved: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:"
        in lines
    )
    assert "+         return h_relu @ self.w2" in lines
    assert not any("NumpyNet" in line for line in lines)


def test_the_code_of_all_rungs_is_what_runs(cli):
    import inspect

    from trainer import models

    found = json.loads(cli("ladder", "--source", "--json").out)
    assert [one["model"] for one in found] == RUNGS
    classes = [models.NumpyNet, models.TensorNet, models.AutogradNet, models.FunctionNet]
    for one, cls in zip(found, [*classes, models.SequentialNet, models.TwoLayerNet], strict=True):
        there = "\n".join(line for mark, line in one["lines"] if mark != "-")
        assert inspect.getsource(cls).rstrip() in there


def test_lines_of_code_leave_out_what_is_not_code():
    from trainer.commands.ladder import lines_of_code

    code = ["x = f(", "    1,", ")", "def g():", '    return """', "    x", '    """']
    rest = ['"""Text', 'over lines."""', "", "import a", "# remark"]
    source = "\n".join([*rest, *code[:4], '    """Says."""', "", *code[4:], ""])
    assert lines_of_code(source) == len(code)


def test_wrong_words(refused):
    assert "the rungs are the models" in refused("ladder", "model=mlp")
    assert "did you mean function?" in refused("ladder", "--source", "functoin")
    assert "no such setting" in refused("ladder", "bogus=1")


def test_the_help_names_every_rung(cli):
    assert f"  {', '.join(NAMES)}\n" in cli("ladder", "--help").out
