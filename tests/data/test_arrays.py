"""Arrays in NumPy's files, read or left where they are."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from safetensors.numpy import load_file

LINEAR = ("model=linear", "loss=auto", "batch_size=4", "steps=6", "device.dtype=float64")


def arrays(rows: int = 20, width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, width)).astype(np.float32)
    return x, x @ np.arange(1, width + 1, dtype=np.float32)


def test_one_file_of_several_and_files_that_stay_give_one_trajectory(train):
    x, y = arrays()
    np.savez("t.npz", x=x, y=y)
    np.save("x.npy", x)
    np.save("y.npy", y)
    words = (*LINEAR, "data.standardize=true")
    read = train("data=npz", "data.path=t.npz", *words)
    stays = train("data=npy", "data.path=x.npy", "data.targets=y.npy", *words, name="stays")
    assert [row["loss"] for row in read.steps] == pytest.approx([row["loss"] for row in stays.steps], rel=1e-12)
    kept = json.loads((read.path / "preprocess.json").read_text())["inputs"][0]
    assert kept["mean"] != x.mean(0).tolist()  # of the rows to train on, not of all
    assert kept["mean"] == pytest.approx(x.mean(0).tolist(), abs=0.5)


def test_training_on_a_file_that_stays_is_plain_descent(train):
    x, y = arrays(rows=8)
    np.save("x.npy", x)
    np.save("y.npy", y)
    words = ("data=npy", "data.path=x.npy", "data.targets=y.npy", "data.validation=0")
    run = train(
        *words, "model=linear", "loss=sse", "optim.lr=0.01", "steps=1", "device.dtype=float64", "checkpoint.keep=9"
    )
    longer = train(
        *words, "model=linear", "loss=sse", "optim.lr=0.01", "steps=2", "device.dtype=float64", name="longer"
    )
    first, second = (load_file(r.checkpoints[-1] / "model.safetensors") for r in (run, longer))
    (weight, bias) = (first[name] for name in sorted(first, reverse=True))
    error = x.astype(float) @ weight.T + bias - y[:, None]
    expected = weight - 0.01 * 2 * error.T @ x.astype(float)
    found = next(value for value in second.values() if value.shape == weight.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_killed_run_on_a_file_goes_on_with_the_same_bits(train, cli):
    x, y = arrays()
    np.save("x.npy", x)
    np.save("y.npy", y)
    words = ("data=npy", "data.path=x.npy", "data.targets=y.npy", *LINEAR[:3])
    whole, run = train(*words, "steps=9", name="whole"), train(*words, "steps=5")
    assert cli("resume", "run", "steps=9").code == 0
    assert run.bits() == whole.bits()


def test_whole_numbers_from_zero_are_classes_and_images_keep_their_shape(train, own_part):
    own_part(
        "model",
        "convolution",
        "from torch import nn\n\n\nclass Part(nn.Sequential):\n"
        "    def __init__(self, outputs: int):\n"
        "        super().__init__(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, outputs))\n",
    )
    random = np.random.default_rng(0)
    np.savez("t.npz", x=random.integers(0, 255, (12, 1, 4, 4), dtype=np.uint8), y=np.arange(12) % 3)
    words = ("data=npz", "data.path=t.npz", "loss=auto", "steps=2")
    run = train("model=convolution", *words, "data.standardize=true")
    assert run.status["choices"]["loss"] == "cross_entropy"
    assert run.status["data"]["classes"] == {"0": 4, "1": 4, "2": 4}
    assert json.loads((run.path / "preprocess.json").read_text())["inputs"][0]["shape"] == [1, 4, 4]


def test_memory_does_not_grow_with_the_file(train):
    rows, width = 20_000, 1000  # 80 MB of a file that is read twice
    x = np.lib.format.open_memmap("x.npy", "w+", np.float32, (rows, width))
    x[:] = 1
    np.save("y.npy", np.ones(rows, np.float32))
    before = peak()
    words = ("data=npy", "data.path=x.npy", "data.targets=y.npy", "data.validation=0.1", "batch_size=500")
    train(*words, "model=linear", "loss=mse", "optim.lr=1e-6", "epochs=2")
    assert peak() - before < 60_000


def peak() -> int:
    """The most memory that this process has had at once since the last call, in KiB."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    Path("/proc/self/clear_refs").write_text("5")
    return int(found[1])


def test_a_file_that_shrinks_ends_the_run_in_words(fork):
    x, y = arrays(rows=4000, width=100)
    np.save("x.npy", x)
    np.save("y.npy", y)
    words = ("data=npy", "data.path=x.npy", "data.targets=y.npy", "model=linear", "loss=mse", "optim.lr=1e-6")

    def shrink() -> None:
        from trainer.training import loop

        training = loop.training

        def training_after_shrinking(*args: object) -> object:
            os.truncate("x.npy", 50_000)
            return training(*args)

        loop.training = training_after_shrinking

    child = fork("run", "run_dir=run", *words, "batch_size=50", "steps=50", prepare=shrink)
    assert child.wait() == 1
    assert "error: x.npy has shrunk since the run started" in child.text
    assert Run(Path("run")).status["state"] == "failed"


X, Y = arrays(rows=6)
BAD = {
    "no such file": ({}, (), r"data\.path=t\.npz: no such file"),
    "no such array": ({"x": X, "z": Y}, (), r"data\.y=y: the file has no such array; allowed: x, z"),
    "rows that differ": ({"x": X, "y": Y[:4]}, (), "there are 6 rows of inputs and 4 of targets"),
    "text": ({"x": X, "y": np.array(["a"] * 6)}, (), "the targets have the dtype <U1"),
    "objects": ({"x": X, "y": np.array([None] * 6)}, (), "is not an .npz file of numbers: Object arrays"),
    "no rows": ({"x": X[:0], "y": Y[:0]}, (), "there are no rows"),
    "a single input": ({"x": np.array(1.0), "y": Y}, (), "the inputs are a single number, not rows"),
    "a single target": ({"x": X, "y": np.array(1.0)}, (), "the targets are a single number, not rows"),
    "a row of inputs": (
        {"x": Y, "y": Y},
        (),
        r"the inputs have the shape \[6\], not rows of numbers",
    ),
    "inputs without numbers": ({"x": X[:, :0], "y": Y}, (), r"the inputs have the shape \[6, 0\]"),
    "nan in x": (
        {"x": np.where(X[4, 1] == X, np.nan, X), "y": Y},
        (),
        "1 of the inputs are not finite, the first in row 4",
    ),
    "inf in y": (
        {"x": X, "y": np.array([1, 2, np.inf, 1, 2, 3])},
        (),
        "1 of the targets are not finite, the first in row 2",
    ),
    "a negative class": (
        {"x": X, "y": np.array([0, 1, -1, 1, 0, 1])},
        ("data.classes=true",),
        "the target of row 2 is -1, not a class index",
    ),
    "a class too large": (
        {"x": X, "y": np.array([0, 1, 5000, 1, 0, 1])},
        ("data.classes=true",),
        "the target of row 2 is 5000, more than the number of rows",
    ),
    "floats for cross-entropy": ({"x": X, "y": Y}, ("loss=cross_entropy",), r"did you mean data\.classes=true\?"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_refused_in_one_line(cli, case):
    content, words, message = BAD[case]
    if content:
        np.savez("t.npz", **content)
    options = {"loss": "auto"} | dict(word.split("=") for word in words)
    result = cli(
        "run",
        "data=npz",
        "data.path=t.npz",
        "model=linear",
        "data.validation=0.5",
        *(f"{k}={v}" for k, v in options.items()),
    )
    assert (result.code, result.out) == (2, "")
    assert re.search(message, result.err), result.err
    assert result.err.count("\n") == 1
    assert not Path("runs").exists()


def test_a_width_that_differs_from_the_models_is_refused(refused):
    np.savez("t.npz", x=X, y=Y)
    before = Path("t.npz").read_bytes()
    error = refused("run", "data=npz", "data.path=t.npz", "model=linear", "model.inputs=5", "loss=mse")
    assert "model.inputs=5: data=npz has 3 inputs" in error
    assert Path("t.npz").read_bytes() == before
