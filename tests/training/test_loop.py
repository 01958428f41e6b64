"""The loop does what a plain torch script does: clipping, patience, skipping, stopping, evaluating, and its cadence."""

from __future__ import annotations

import json
import math
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run
from torch import nn

from trainer.data import Batches, Tensors
from trainer.schedules import Constant
from trainer.training import loop

NUMBERS = "model=linear", "data.inputs=4", "data.outputs=3", "data.samples=16"
HOLEY = """
import torch
from trainer.data import Data

class Holey(Data):
    def __init__(self, bad: list[int], rows: int = 12) -> None:
        x, y = torch.randn(rows, 2), torch.randn(rows, 1)
        x[bad] = torch.nan
        super().__init__(x, y)
"""


@pytest.fixture
def holey():
    """Data of one's own, data=mine, with NaN in the rows data.bad."""
    Path("my_data.py").write_text(HOLEY)
    Path("configs/data").mkdir(parents=True)
    Path("configs/data/mine.yaml").write_text("# Rows with holes\n_target_: my_data.Holey\nbad: []\n")
    yield "data=mine", "model=linear", "loss=mse", "optim.lr=0.1", "device.dtype=float64"
    sys.modules.pop("my_data", None)


def permutation(rows, purpose, number, seed=0):
    """The order of an epoch (purpose 1) or of the split (purpose 2)."""
    drawn = np.random.SeedSequence([seed, purpose, number]).generate_state(1, np.uint64)
    return torch.randperm(rows, generator=torch.Generator().manual_seed(int(drawn[0]))).tolist()


def order(rows, batch_size, steps):
    """The rows of each step."""
    batches = []
    for epoch in range(steps):
        shuffled = permutation(rows, 1, epoch)
        batches += [shuffled[i : i + batch_size] for i in range(0, rows, batch_size)]
    return batches[:steps]


def parts(samples=16, inputs=4, outputs=3):
    """Data and a linear model, drawn as a script in float64 would."""
    torch.manual_seed(0)
    x, y = (torch.randn(samples, width, dtype=torch.float64) for width in (inputs, outputs))
    return x, y, nn.Linear(inputs, outputs, dtype=torch.float64)


def assert_weights(run, model, which=-1):
    assert run.weights(which)["linear.weight"].dtype == torch.float64
    torch.testing.assert_close(run.weights(which)["linear.weight"], model.weight.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(run.weights(which)["linear.bias"], model.bias.detach(), rtol=0, atol=1e-12)


# Clipping


@pytest.mark.parametrize(
    ("clip_norm", "kinds"),
    [("1e-3", {"above"}), ("0.25", {"above", "below"}), ("1e3", {"below"})],
)
def test_clipped_steps_are_those_of_a_plain_script(train, clip_norm, kinds):
    words = "loss=mse", "optim=sgd_momentum", "optim.lr=0.05", "steps=60", "device.dtype=float64"
    run = train(*NUMBERS, *words, f"clip_norm={clip_norm}")
    x, y, model = parts()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    seen = set()
    for row in run.steps:
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), float(clip_norm))
        seen.add("above" if norm > float(clip_norm) else "below")
        optimizer.step()
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-12)
    assert seen == kinds
    assert_weights(run, model)


def test_what_is_clipped_is_the_sum_over_the_batches_of_a_step(train):
    words = "loss=mse", "optim.lr=0.1", "steps=10", "device.dtype=float64", "batch_size=4", "accumulate=2"
    run = train(*NUMBERS, *words, "clip_norm=0.3")
    x, y, model = parts()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clipped = 0
    for rows in order(16, 8, 10):
        optimizer.zero_grad()
        ((model(x[rows]) - y[rows]) ** 2).mean().backward()
        clipped += int(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3) > 0.3)
        optimizer.step()
    assert clipped
    assert_weights(run, model)


# Patience


WORSENING = "model=linear", "data.inputs=4", "data.samples=20", "data.validation=0.3", "optim.lr=0.05"
OVERFITTING = "model=linear", "data.inputs=12", "data.samples=20", "data.validation=0.4", "loss=mse", "optim.lr=0.02"
NOISY = "model=linear", "data.inputs=3", "data.samples=60", "data.validation=0.4", "batch_size=4", "optim.lr=0.01"
ACCURACY = "model=mlp", "data=digits", "loss=cross_entropy", "batch_size=64", "optim=adam", "optim.lr=0.01"


@pytest.mark.parametrize("eval_every", [1, 3])
@pytest.mark.parametrize(
    ("words", "metric", "patience"),
    [
        (WORSENING, "validation_loss", 1),
        (WORSENING, "validation_loss", 4),
        (OVERFITTING, "validation_loss", 3),
        (NOISY, "validation_loss", 3),
        (ACCURACY, "validation_accuracy", 3),
    ],
)
def test_patience_ends_at_that_evaluation_without_improvement(cli, train, words, metric, patience, eval_every):
    words = *words, "steps=120" if words != WORSENING else "steps=20", f"eval_every={eval_every}", f"monitor={metric}"
    endless = train(*words, "max_divergence=1e30", name="endless")
    sign = -1 if metric == "validation_accuracy" else 1
    best, stale, end = math.inf, 0, None
    for row in endless.evaluations:
        stale = 0 if sign * row[metric] < best else stale + 1
        best = min(best, sign * row[metric])
        if stale == patience:
            end = row["step"]
            break
    assert end is not None  # and before the last step, so that it was patience
    assert end < endless.status["step"]
    result = cli("run", "run_dir=patient", *words, "max_divergence=1e30", f"patience={patience}")
    run = Run(Path("patient"))
    assert (result.code, run.status["state"]) == (0, "done")
    assert f"{patience} evaluations without improvement" in result.out
    assert run.steps[-1]["step"] == run.evaluations[-1]["step"] == run.status["step"] == end
    assert run.rows == endless.rows[: len(run.rows)]
    assert run.status["best"]["value"] == sign * best
    if words[: len(WORSENING)] != WORSENING:  # it improved for a while
        assert run.status["best"]["step"] > eval_every


def test_a_run_that_improves_is_never_out_of_patience(cli):
    words = "model=linear", "data=integer_triples", "loss=mse", "optim.lr=1e-3", "steps=30", "eval_every=1"
    result = cli("run", "run_dir=run", *words, "patience=1")
    assert result.code == 0
    assert "without improvement" not in result.out
    assert Run(Path("run")).status["step"] == 30


# Losses that are not finite


def plain(bad, batches):
    """A script that leaves out the steps whose rows are bad; returns its model and its losses."""
    torch.manual_seed(0)
    x, y = torch.randn(12, 2, dtype=torch.float64), torch.randn(12, 1, dtype=torch.float64)
    model = nn.Linear(2, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for rows in batches:
        if set(rows) & set(bad):
            losses.append(None)
            continue
        optimizer.zero_grad()
        loss = ((model(x[rows]) - y[rows]) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize("step", [2, 3])
def test_stop_names_step_epoch_and_rows_and_saves_what_was_good(cli, holey, step):
    batches = order(12, 4, step)
    bad = batches[-1][2]
    words = "batch_size=4", "steps=20", "checkpoint.every=1", f"data.bad=[{bad}]"
    result = cli("run", "run_dir=run", *holey, *words, "on_nonfinite=stop")
    run = Run(Path("run"))
    assert result.code == 1, result.err
    assert run.status["state"] == "failed"
    rows = ", ".join(map(str, batches[-1]))
    assert f"the loss is nan at step {step}, epoch 0, rows {rows};" in result.err
    assert str(bad) in rows.split(", ")
    assert [row["step"] for row in run.steps] == list(range(1, step))
    assert run.checkpoints[-1].name.endswith(f"{step - 1:05d}")
    assert all(w.isfinite().all() for w in run.weights().values())
    model, _ = plain([bad], batches)
    assert_weights(run, model)


def test_stop_names_a_later_epoch(cli, holey):
    result = cli("run", "run_dir=run", *holey, "batch_size=4", "steps=5", "data.bad=[7]", "on_nonfinite=skip")
    assert result.code == 0, result.err
    step = next(number for number, rows in enumerate(order(12, 4, 9), 1) if number > 5 and 7 in rows)
    result = cli("resume", "run", "steps=9", "on_nonfinite=stop")
    assert result.code == 1
    assert f"at step {step}, epoch {(step - 1) // 3}, rows " in result.err


def test_skipped_steps_are_null_and_leave_no_trace(train, holey):
    run = train(*holey, "batch_size=4", "steps=20", "data.bad=[7]", "on_nonfinite=skip", "max_skips=2")
    batches = order(12, 4, 20)
    model, losses = plain([7], batches)
    assert losses.count(None) >= 6
    assert [row["step"] for row in run.steps] == list(range(1, 21))
    for row, loss in zip(run.steps, losses, strict=True):
        assert row["loss"] == (None if loss is None else pytest.approx(loss, rel=1e-12))
    assert_weights(run, model)


@pytest.mark.parametrize("max_skips", [1, 2, 3])
def test_one_more_skip_in_a_row_than_allowed_fails(cli, holey, max_skips):
    bad = [0, 2, 3, 5, 8, 10]
    batches = order(12, 1, 200)
    in_a_row, end = 0, 0
    while in_a_row <= max_skips:
        in_a_row = in_a_row + 1 if batches[end][0] in bad else 0
        end += 1
    assert any(rows[0] in bad for rows in batches[: end - max_skips - 1])  # some before, which were allowed
    words = "batch_size=1", "steps=200", f"data.bad={bad}".replace(" ", ""), "on_nonfinite=skip"
    result = cli("run", "run_dir=run", *holey, *words, f"max_skips={max_skips}")
    run = Run(Path("run"))
    assert (result.code, run.status["state"]) == (1, "failed")
    assert f"at step {end}, epoch {(end - 1) // 12}, rows {batches[end - 1][0]};" in result.err
    assert [row["loss"] is None for row in run.steps] == [rows[0] in bad for rows in batches[: end - 1]]


# Losses that run away


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ((*NUMBERS, "optim.lr=0.05"), 100),
        (("model=product", "loss=difference", "data.target=11.5", "optim.lr=0.05"), 100),
        (("model=product", "loss=difference", "data.target=40", "optim.lr=0.05"), 3),
    ],
    ids=["grows", "falls from below 1", "falls from above 1"],
)
def test_the_first_loss_beyond_the_bound_ends_the_run(cli, words, limit):
    result = cli("run", "run_dir=run", *words, "steps=1000", f"max_divergence={limit}")
    run = Run(Path("run"))
    losses = [abs(row["loss"]) for row in run.steps]
    bound = limit * max(1.0, losses[0])
    assert len(losses) > 2
    assert [loss > bound for loss in losses] == [False] * (len(losses) - 1) + [True]
    assert (result.code, run.status["state"]) == (1, "failed")
    assert f"at step {len(losses)}," in result.err
    assert f"max_divergence={limit}" in result.err


def test_a_loss_at_the_bound_goes_on(cli):
    words = "model=product", "loss=difference", "data.target=11.5", "optim.lr=0.05", "steps=1000"
    assert cli("run", "run_dir=first", *words, "max_divergence=100").code == 1
    bound = abs(Run(Path("first")).steps[-2]["loss"])
    assert cli("run", "run_dir=second", *words, f"max_divergence={bound!r}").code == 1
    assert Run(Path("second")).steps == Run(Path("first")).steps


# Evaluation


def test_dropout_is_off_in_evaluation(train):
    data = "data.inputs=6", "data.outputs=2", "data.samples=40", "data.validation=0.25"
    words = "model=mlp", "model.sizes=[32]", "model.dropout=0.5", "loss=mse", "optim.lr=0.05"
    run = train(*words, *data, "steps=5", "eval_every=1", "checkpoint.every=1", "checkpoint.keep=5")
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randn(40, 2)
    held_out = sorted(permutation(40, 2, 0)[:10])
    assert len(run.checkpoints) == len(run.evaluations) == 5
    for which, row in enumerate(run.evaluations):
        w = run.weights(which)
        hidden = (x[held_out] @ w["layers.0.weight"].T + w["layers.0.bias"]).clamp(min=0)
        prediction = hidden @ w["layers.4.weight"].T + w["layers.4.bias"]
        assert row["validation_loss"] == pytest.approx(((prediction - y[held_out]) ** 2).mean().item(), rel=1e-5)


class Watched(nn.Module):
    """Notes for every pass whether it is one of training, and whether gradients are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(2, 1), nn.Dropout(0.5)
        self.passes: list[tuple[bool, bool, bool]] = []

    def forward(self, x):
        self.passes.append((self.training, self.dropout.training, torch.is_grad_enabled()))
        return self.linear(self.dropout(x))


def test_training_mode_is_back_after_evaluation():
    model = Watched().eval()
    x, y = torch.randn(6, 2), torch.randn(6, 1)
    run = loop.Learner(
        model=model,
        loss=nn.MSELoss(),
        optimizer=torch.optim.SGD([{"params": [*model.parameters()], "initial_lr": 0.1}], lr=0.1),
        schedule=Constant(),
        batches=Batches(Tensors(x, y), 6, 1, 0, False),
        validation=Batches(Tensors(x, y), 3, 1, 0, False),  # two passes an evaluation
        autocast=nullcontext(),
        steps=5,
        eval_every=2,
    )
    rows = []
    assert loop.fit(run, [rows.append], lambda due: None, lambda: False) == "complete"
    training, evaluation = [(True,) * 3], [(False,) * 3] * 2
    assert model.passes == 2 * (2 * training + evaluation) + training
    assert model.training
    assert model.dropout.training
    assert [("loss" in row, row["step"]) for row in rows] == [
        *[(True, 1), (True, 2), (False, 2)],
        *[(True, 3), (True, 4), (False, 4), (True, 5)],
    ]


@pytest.mark.parametrize("model", ["mlp model.dropout=0.5", "mlp model.norm=batch", "dynamic"])
@pytest.mark.parametrize("batch_size", ["8", "null"])
def test_how_often_one_evaluates_leaves_the_training_bit_identical(train, model, batch_size):
    data = "data.inputs=6", "data.outputs=2", "data.samples=40", "data.validation=0.25", f"batch_size={batch_size}"
    words = f"model={model}".split()
    runs = [
        train(*words, *data, "optim.lr=1e-3", "steps=30", f"eval_every={every}", name=f"every{every}")
        for every in (1, 7, 1000)
    ]
    assert [len(run.evaluations) for run in runs] == [30, 4, 0]
    assert runs[0].steps == runs[1].steps == runs[2].steps
    assert runs[0].bits()[0] == runs[1].bits()[0] == runs[2].bits()[0]
    assert runs[1].evaluations == [row for row in runs[0].evaluations if row["step"] % 7 == 0]


# Cadence


@pytest.mark.parametrize(
    ("words", "steps", "evaluations"),
    [
        ((), range(1, 11), [4, 8]),  # every epoch
        (("eval_every=3",), range(1, 11), [3, 6, 9]),
        (("eval_every=10",), range(1, 11), [10]),
        (("eval_every=11",), range(1, 11), []),
        (("log_every=4",), [4, 8], [4, 8]),
        (("log_every=3", "eval_every=5"), [3, 6, 9], [5, 10]),
        (("log_every=10", "eval_every=1"), [10], range(1, 11)),
        (("log_every=11", "eval_every=11"), [], []),
        (("log_every=2", "eval_every=6", "accumulate=2"), [2, 4, 6, 8, 10], [6]),
        (("accumulate=2",), range(1, 11), [2, 4, 6, 8, 10]),
    ],
)
def test_rows_stand_at_exactly_their_steps(train, words, steps, evaluations):
    data = "data.inputs=4", "data.samples=20", "data.validation=0.2", "batch_size=4", "optim.lr=1e-3"
    run = train("model=linear", *data, "steps=10", *words)
    assert [row["step"] for row in run.steps] == [*steps]
    assert [row["step"] for row in run.evaluations] == [*evaluations]
    places = [(row["step"], "validation_loss" in row) for row in run.rows]
    assert places == sorted(places)  # an evaluation stands after the step it follows
    steps_per_epoch = 2 if "accumulate=2" in words else 4
    assert all(row["epoch"] == (row["step"] - 1) // steps_per_epoch for row in run.rows)
    assert run.status["step"] == 10


def test_the_rate_in_a_row_is_the_one_of_its_update(train):
    words = "loss=mse", "schedule=cosine", "optim.lr=0.2", "steps=12", "device.dtype=float64"
    run = train(*NUMBERS, *words)
    x, y, model = parts()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    assert run.steps[0]["lr"] == 0.2
    for row in run.steps:
        assert row["lr"] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.zero_grad()
        ((model(x) - y) ** 2).mean().backward()
        optimizer.step()
        schedule.step()
    assert row["lr"] > 0
    assert_weights(run, model)


def test_a_run_that_skipped_steps_says_so(cli):
    result = cli("run", "run_dir=run", "on_nonfinite=skip", "optim.lr=1e10", "steps=10")
    assert result.code == 0, result.err
    null = [json.loads(line)["loss"] for line in Path("run/metrics.jsonl").read_text().splitlines()].count(None)
    assert null > 0
    assert f"{null} of 10 steps" in result.out
    assert "-> not finite" in result.out
    status = json.loads(Path("run/status.json").read_text())
    assert (status["skipped"], status["metrics"]["loss"]) == (null, None)
