"""The experiments: each runs, whole or shortened, and shows what the top of its file says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import Result, Run
from safetensors.numpy import load_file

FILES = {file.stem: file for file in (Path(__file__).parents[1] / "configs/experiment").glob("*.yaml")}


@dataclass
class Row:
    """What an experiment must show."""

    holds: Callable[[Run, Result], None]
    words: tuple[str, ...] = ()
    code: int = 0


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in run.steps]


def falls(first: float, below: float, at_100: float | None = None) -> Callable[[Run, Result], None]:
    """The loss starts at `first`, reads `at_100` at step 100, and stays under `below` for the last ten of 500 steps."""

    def holds(run: Run, result: Result) -> None:
        found = losses(run)
        assert found[0] == pytest.approx(first, rel=1e-5)
        assert at_100 is None or found[99] == pytest.approx(at_100, rel=1e-5)
        assert max(found[490:]) < below
        assert len(found) == 500

    return holds


def product(run: Run, result: Result) -> None:
    rows = run.steps
    assert rows[0]["loss"] == 9
    assert rows[0]["parameters"] == pytest.approx({"a": 3.0720, "b": 4.0540}, abs=5e-5)
    assert rows[100]["parameters"] == pytest.approx({"a": 3.4505, "b": 4.3472}, abs=5e-5)


def product_to_15(run: Run, result: Result) -> None:
    product(run, result)
    numbers = run.steps[-1]["parameters"]
    assert numbers["a"] * numbers["b"] == pytest.approx(15, rel=0, abs=1e-13)


def runaway(run: Run, result: Result) -> None:
    found = losses(run)
    assert found[0] == 3
    assert found[100] == pytest.approx(-7, abs=0.5)
    assert found[499] == pytest.approx(-228, abs=1)
    assert len(found) == pytest.approx(2070, abs=10)
    stopped_in_words(run, result)


def first_network(run: Run, result: Result) -> None:
    assert len(losses(run)) <= 4
    assert re.search(r"It is -1\.\d+e\+14 at step 4", result.err)
    stopped_in_words(run, result)


def stopped_in_words(run: Run, result: Result) -> None:
    """The guard ends the run with one line that says why, long before the loss is -inf."""
    assert np.isfinite(np.array(losses(run), dtype=float)).all()
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "falls without bound" in errors[0]
    assert "no minimum" in errors[0]
    assert "inf" not in errors[0]
    assert run.status["state"] == "failed"
    assert run.status["error"] in errors[0]


def linear_stack_for_1000_steps(run: Run, result: Result) -> None:
    """The first steps are those of plain descent on two matrices; one of the slow tests goes all the way."""
    torch.manual_seed(0)
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(2, 5)
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in (*first.parameters(), *second.parameters()))
    x, y, expected = np.array([1.0, 2, 3]), np.array([1.0, 2, 3, 4, 5]), []
    for _ in range(1000):
        h = w1 @ x + b1
        error = w2 @ h + b2 - y
        expected.append(error @ error)
        grad_h = w2.T @ (2 * error)
        w2, b2 = w2 - 1e-6 * np.outer(2 * error, h), b2 - 1e-6 * 2 * error
        w1, b1 = w1 - 1e-6 * np.outer(grad_h, x), b1 - 1e-6 * grad_h
    assert [row["step"] for row in run.steps] == [*range(100, 1001, 100)]
    assert losses(run) == pytest.approx(expected[99::100], rel=1e-4)
    assert expected[0] == pytest.approx(50.2, abs=0.05)


def predict(checkpoint: Path, x: np.ndarray) -> np.ndarray:
    """The predictions of a linear stack, computed from its file alone."""
    weights = load_file(checkpoint / "model.safetensors")
    for layer in range(len(weights) // 2):
        x = x @ weights[f"layers.{layer}.weight"].T + weights[f"layers.{layer}.bias"]
    return x


def vector_to_vector(run: Run, result: Result) -> None:
    prediction = predict(run.checkpoints[-1], np.array([1, 2, 3], dtype=np.float32))
    assert np.abs(prediction - [1, 2, 3, 4, 5]).max() < 1e-4


def integer_triples(run: Run, result: Result) -> None:
    assert run.evaluations[-1]["validation_loss"] < 1e-8
    near = np.stack(np.meshgrid(*[np.arange(-10, 11)] * 3), axis=-1).reshape(-1, 3)  # 400 of these it has seen
    far = np.random.default_rng(0).integers(-100, 101, size=(5000, 3))
    far = far[np.abs(far).max(axis=1) > 10]
    corners = 100 * np.stack(np.meshgrid(*[[-1, 1]] * 3), axis=-1).reshape(-1, 3)
    x = np.concatenate([near, far, corners]).astype(np.float32)
    a, b, c = x.T
    y = np.stack([a, b, c, c + 1, c + 2], axis=1)
    for checkpoint in run.checkpoints:  # the best one and the last
        assert np.abs(predict(checkpoint, x) - y).max() < 0.01


def digits(run: Run, result: Result) -> None:
    assert run.status["rows"] == {"training": 1438, "validation": 359}
    assert run.evaluations[-1]["validation_accuracy"] >= 0.97
    assert "validation accuracy" in result.out


def write_houses() -> None:
    """A table whose price depends on its other columns and a little noise."""
    random = np.random.default_rng(0)
    area, rooms, city = random.uniform(30, 200, 500), random.integers(1, 8, 500), random.integers(0, 3, 500)
    price = 1000 * area + 5000 * rooms + 30_000 * city + random.normal(0, 8000, 500)
    rows = zip(area, rooms, city, price, strict=True)
    lines = [f"{a:.1f},{r},{['Kiel', 'Bonn', 'Ulm'][c]},{p:.0f}" for a, r, c, p in rows]
    Path("houses.csv").write_text("\n".join(["area,rooms,city,price", *lines]))


def table(run: Run, result: Result) -> None:
    assert run.evaluations[-1]["validation_loss"] < 0.05  # of a variance of 1, of which noise is 0.02
    assert run.status["choices"]["loss"] == "mse"


HAND_WRITTEN = Row(falls(2.94287e7, below=1e-4))
ROWS = {
    "numpy": HAND_WRITTEN,
    "tensor": HAND_WRITTEN,
    "autograd": HAND_WRITTEN,
    "function": HAND_WRITTEN,
    "sequential": Row(falls(628.284, below=1e-4)),
    "sequential_adam": Row(falls(628.284, below=1e-5)),
    "two_layer": Row(falls(628.284, below=1e-4, at_100=3.56985)),
    "dynamic": Row(falls(620.634, below=2)),
    "product": Row(product),
    "product_to_15": Row(product_to_15),
    "runaway": Row(runaway, code=1),
    "linear_stack": Row(linear_stack_for_1000_steps, words=("steps=1000",)),
    "vector_to_vector": Row(vector_to_vector),
    "integer_triples": Row(integer_triples),
    "first_network": Row(first_network, code=1),
    "digits": Row(digits),
    "table": Row(table, words=("data.path=houses.csv", "data.target=price", "epochs=20")),
}


def test_every_experiment_has_a_row_above():
    assert FILES.keys() == ROWS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_an_experiment_shows_what_it_says(cli, name):
    row = ROWS[name]
    write_houses()
    result = cli("run", f"experiment={name}", "run_dir=run", "device=cpu", *row.words)
    assert result.code == row.code, result.err
    row.holds(Run(Path("run")), result)


@pytest.mark.parametrize("name", FILES)
def test_an_experiment_opens_with_what_it_is_its_command_result_and_duration(name):
    lines = FILES[name].read_text().splitlines()
    head = lines[: lines.index("defaults:")]
    assert head[0] == "# @package _global_"
    assert re.match(r"# [A-Z].+", head[1])
    command = head[2].removeprefix("# Command: ")
    assert command == " ".join([f"trainer run experiment={name}", *command.split()[3:]])
    assert head[3].startswith("# Result: ")
    assert all(line.startswith("#   ") for line in head[4:-1])
    assert re.match(r"# Duration: (about|less than) (a second|\d+ seconds|a minute) on 2 cores$", head[-1])


@pytest.mark.parametrize("name", FILES)
def test_an_experiment_names_what_it_trains_and_at_what_rate(name):
    """Its numbers must not depend on what is selected by default."""
    content = yaml.safe_load(FILES[name].read_text())
    selected = {key for line in content["defaults"] for key in line}
    assert {"override /model", "override /optim"} <= selected
    assert isinstance(content["optim"]["lr"], float)


@pytest.mark.parametrize("name", ["numpy", "tensor", "autograd", "function"])
def test_the_hand_written_rungs_in_float64(train, name):
    steps = 500 if name == "tensor" else 100
    found = losses(train(f"experiment={name}", "device=cpu", "device.dtype=float64", f"steps={steps}"))
    assert found[0] == pytest.approx(2.8305e7, rel=1e-4)
    assert found[99] == pytest.approx(384.074, rel=1e-5)
    assert steps == 100 or found[499] == pytest.approx(9.358e-8, rel=1e-3)


def test_a_rate_that_outlives_its_optimizer_is_said_in_one_line(cli):
    def remarks(*words):
        result = cli("run", "experiment=tensor", "device=cpu", "steps=1", *words)
        assert result.code == 0, result.err
        return [line for line in result.err.splitlines() if "experiment=tensor" in line and "optim.lr" in line]

    (remark,) = remarks("optim=adam")
    assert "1e-06" in remark
    assert "optim=adam" in remark
    assert remarks() == remarks("optim=sgd") == remarks("optim=adam", "optim.lr=1e-3") == []


def test_a_loss_with_a_minimum_takes_the_runaway_to_15(train):
    numbers = train("experiment=runaway", "loss=sse", "device=cpu", "steps=200").steps[-1]["parameters"]
    assert numbers["a"] * numbers["b"] == pytest.approx(15, abs=1e-4)


def test_integer_triples_do_not_fit_through_two_numbers(train):
    """At best one of three numbers of variance (21^2 - 1) / 12 is lost, from one of five outputs."""
    run = train("experiment=integer_triples", "model.sizes=[2]", "device=cpu", "steps=600")
    assert run.steps[-1]["loss"] > 3
    assert min(row["validation_loss"] for row in run.evaluations) > 0.7 * (21**2 - 1) / 12 / 5


@pytest.mark.slow
def test_the_original_rate_of_linear_stack_gets_close_in_100000_steps(train):
    run = train("experiment=linear_stack", "device=cpu")
    assert 0.02 < losses(run)[-1] ** 0.5 < 0.6
    assert losses(run)[-1] == pytest.approx(0.0009, abs=0.0001)


def test_what_an_experiment_sets_for_a_swapped_option_goes_with_it(cli):
    result = cli("run", "experiment=first_network", "loss=mse", "steps=2")
    assert result.code == 0, result.err
    assert "loss.target=12.0 is set by experiment=first_network" in result.err.replace("=12 ", "=12.0 ")
    assert "loss=mse has no such setting" in result.err
