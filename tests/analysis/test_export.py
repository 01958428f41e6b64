"""Exported graphs keep the digits of columns far from 0, hold thousands of columns, and are refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

ROWS = 200
WORDS = ("experiment=table", "data.path=t.csv", "data.target=y", "data.validation=0", "model.sizes=[8]", "epochs=5")


def table():
    random = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "seconds": random.integers(1_700_000_000, 1_700_086_400, ROWS),
            "kelvin": 293.15 + 0.01 * random.normal(size=ROWS),
            "year": random.integers(2019, 2022, ROWS),
            "city": random.choice(["Bonn", "Kiel", "Ulm"], ROWS),
        }
    )
    hours = (frame["seconds"] - 1_700_000_000) / 3600
    return frame.with_columns(y=hours + 100 * (frame["kelvin"] - 293.15) + (frame["year"] - 2020))


def raw(frame, run):
    """The columns as an exported graph takes them: numbers, and the index of each name."""
    inputs = json.loads((run.path / "preprocess.json").read_text())["inputs"]
    columns = []
    for one in inputs:
        values = frame[one["column"]].to_list()
        columns.append([one["values"].index(name) for name in values] if one["kind"] == "category" else values)
    return np.array(columns, dtype=np.float64).T


def onnx(path, rows):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"raw": rows})[0]


def pt2(path, rows):
    return torch.export.load(path).module()(torch.from_numpy(rows)).numpy()


def predicted(cli):
    assert cli("predict", "run", "--input", "t.csv", "--output", "out.csv").code == 0
    return pl.read_csv("out.csv")["predicted_y"].to_numpy()


@pytest.mark.parametrize(("kind", "call"), [("onnx", onnx), ("pt2", pt2)])
@pytest.mark.parametrize("encode", ["onehot", "index"])
def test_years_seconds_and_kelvin_keep_their_digits(cli, train, kind, call, encode):
    frame = table()
    frame.write_csv("t.csv")
    run = train(*WORDS, f"data.encode={encode}")
    result = cli("export", "run", "--format", kind, "--output", "out")
    assert result.code == 0, result.err
    assert "returns  y, float32" in result.out
    expected = predicted(cli)
    assert np.abs(call(f"out/model.{kind}", raw(frame, run))[:, 0] - expected).max() < 1e-5 * expected.std()


@pytest.mark.parametrize(("kind", "call"), [("onnx", onnx), ("pt2", pt2)])
def test_a_target_far_from_0_keeps_its_digits(cli, train, kind, call):
    frame = table().with_columns(pl.col("y") + 1.7e9)
    frame.write_csv("t.csv")
    run = train(*WORDS)
    result = cli("export", "run", "--format", kind, "--output", "out")
    assert result.code == 0, result.err
    assert "returns  y, float64" in result.out
    expected = predicted(cli)
    found = call(f"out/model.{kind}", raw(frame, run))[:, 0]
    assert found.dtype == np.float64
    assert np.abs(found - expected).max() < 1e-5 * expected.std()


def test_an_array_far_from_0_is_taken_in_float64(cli, train):
    random = np.random.default_rng(0)
    x = 1e6 + random.normal(size=(40, 3))
    np.savez("t.npz", x=x, y=x.sum(1))
    train("data=npz", "data.path=t.npz", "data.standardize=true", "model=linear", "loss=mse", "steps=3")
    result = cli("export", "run", "--format", "onnx", "--output", "out")
    assert result.code == 0, result.err
    assert "takes    raw numbers, float64" in result.out
    np.save("t.npy", x)
    assert cli("predict", "run", "--input", "t.npy", "--output", "out.csv").code == 0
    expected = pl.read_csv("out.csv")["predicted_y"].to_numpy()
    assert np.abs(onnx("out/model.onnx", x)[:, 0] - expected).max() < 1e-5 * expected.std()


def test_thousands_of_columns_take_as_long_as_a_few(cli, train):
    random, columns = np.random.default_rng(0), 5000
    x = random.normal(size=(12, columns)).round(3)
    names = [f"c{index}" for index in range(columns)]
    pl.DataFrame(x, schema=names).with_columns(y=x[:, 0]).write_csv("t.csv")
    run = train(
        "experiment=table", "data.path=t.csv", "data.target=y", "data.validation=0", "model=linear", "batch_size=6"
    )
    result = cli("export", "run", "--format", "onnx", "--output", "out")
    assert result.code == 0, result.err
    assert "c18, c19, ... (5,000 columns, in preprocess.json)" in result.out
    found = onnx("out/model.onnx", raw(pl.read_csv("t.csv"), run))[:, 0]
    np.testing.assert_allclose(found, predicted(cli), atol=1e-5)
    assert Path("out/model.onnx").stat().st_size < 2_000_000


def test_a_check_that_fails_is_told_in_deviations_of_the_target(cli, train, monkeypatch):
    """A difference of a deviation is small beside Unix seconds, and still wrong."""
    table().with_columns(pl.col("y") + 1.7e9).write_csv("t.csv")
    train(*WORDS)
    own = torch.export.load
    monkeypatch.setattr(torch.export, "load", lambda path: Off(own(path)))
    result = cli("export", "run", "--format", "pt2", "--output", "out")
    assert result.code == 1
    assert "the relative error of the exported model is" in result.err
    assert not Path("out").exists()


class Off:
    """A loaded graph whose predictions are off by 1."""

    def __init__(self, loaded):
        self.loaded = loaded

    def module(self):
        return lambda rows: self.loaded.module()(rows) + 1


def test_bfloat16_is_refused_by_onnx_in_one_line(cli, train):
    table().write_csv("t.csv")
    train(*WORDS, "device.dtype=bfloat16")
    result = cli("export", "run", "--format", "onnx", "--output", "out")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "error: --format=onnx: onnxruntime computes no bfloat16 on the CPU; allowed: --format pt2,"
        " --format safetensors\n"
    )
    assert not Path("out").exists()
    for kind in ("pt2", "safetensors"):
        assert cli("export", "run", "--format", kind, "--output", "out").code == 0


def test_an_operation_that_onnx_lacks_is_refused_in_one_line(cli, train, own_part):
    source = (
        "import torch\nfrom torch import nn\n\n\nclass Part(nn.Module):\n"
        "    def __init__(self, inputs: int, outputs: int):\n"
        "        super().__init__()\n        self.layer = nn.Linear(inputs, outputs)\n\n"
        "    def forward(self, x):\n        return self.layer(torch.special.bessel_j0(x))\n"
    )
    own_part("model", "odd", source, "inputs: null\noutputs: null\n")
    train("model=odd", "data.inputs=3", "data.outputs=2", "steps=1")
    result = cli("export", "run", "--format", "onnx", "--output", "out")
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert result.err.startswith("error: --format=onnx: does not hold this model: ")
    assert not Path("out").exists()
    assert cli("export", "run", "--format", "pt2", "--output", "out").code == 0
