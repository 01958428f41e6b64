"""metrics.jsonl: which rows it has, and that it is the same file for the same run."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch
from instants import SMALL, trained

from trainer.session.metrics_writer import MetricsFile, cut_back

SUMMED = [word for word in SMALL if not word.startswith("eval_every=")]


def test_a_row_a_step_and_a_row_an_evaluation(cli):
    run = trained(cli, "run", *SMALL)
    assert [row["step"] for row in run.steps] == list(range(1, 24))
    assert [row["step"] for row in run.evaluations] == [4, 8, 12, 16, 20]
    assert [list(row) for row in run.rows[3:5]] == [
        ["step", "epoch", "loss", "lr"],
        ["step", "epoch", "validation_loss"],
    ]
    assert [row["epoch"] for row in run.steps[:11]] == [0] * 5 + [1] * 5 + [2]  # 36 rows in batches of 8
    assert run.evaluations[1]["epoch"] == 1


def test_an_evaluation_ends_each_epoch_unless_told_otherwise(cli):
    run = trained(cli, "run", *SUMMED)
    assert [row["step"] for row in run.evaluations] == [5, 10, 15, 20]


def test_loss_and_rate_are_those_before_the_update_and_parameters_those_after(cli):
    words = ("model=product", "data=none", "steps=3", "optim.lr=0.003", "schedule=cosine")
    rows = trained(cli, "run", *words).steps
    a, b = torch.tensor(3.0), torch.tensor(4.0)
    for k, row in enumerate(rows):
        lr = 0.003 * (1 + math.cos(math.pi * k / 3)) / 2
        assert row["lr"] == pytest.approx(lr)
        assert row["loss"] == pytest.approx((15 - a * b).item() ** 2, rel=1e-5)
        slope = 2 * (a * b - 15)
        a, b = a - lr * slope * b, b - lr * slope * a
        assert row["parameters"] == pytest.approx({"a": a.item(), "b": b.item()}, rel=1e-6)


def test_rows_are_as_frequent_as_asked(cli):
    run = trained(cli, "run", *SMALL, "log_every=5")
    assert [row["step"] for row in run.steps] == [5, 10, 15, 20]
    assert [row["step"] for row in run.evaluations] == [4, 8, 12, 16, 20]


def test_rows_depend_on_nothing_but_the_run(cli):
    """No clock, no name, no process: the same run elsewhere has the same file."""
    one, two = trained(cli, "one", *SMALL), trained(cli, "two", *SMALL, "name=other", "checkpoint.every=3")
    assert (one.path / "metrics.jsonl").read_bytes() == (two.path / "metrics.jsonl").read_bytes()


def test_numbers_that_are_not_finite_are_null(tmp_path):
    file = MetricsFile(tmp_path / "m", 1, torch.nn.Linear(1, 1))
    file({"step": 1, "epoch": 0, "loss": math.nan, "lr": 0.1})
    file({"step": 1, "epoch": 0, "validation_loss": math.inf})
    file.close()
    first, second = map(json.loads, (tmp_path / "m").read_text().splitlines())
    assert first["loss"] is None
    assert first["parameters"].keys() == {"weight", "bias"}
    assert second == {"step": 1, "epoch": 0, "validation_loss": None}


def test_parameters_are_shown_while_they_are_few(tmp_path):
    for width, shown in ((15, True), (16, False)):
        file = MetricsFile(tmp_path / str(width), 1, torch.nn.Linear(width, 1))
        file({"step": 1, "loss": 0.0})
        file.close()
        assert ("parameters" in json.loads((tmp_path / str(width)).read_text())) == shown


def test_closing_twice_and_syncing_write_each_row_once(tmp_path):
    file = MetricsFile(tmp_path / "m", 1, torch.nn.Linear(99, 1))
    file({"step": 1, "loss": 0.5})
    assert file.flush() == os.path.getsize(tmp_path / "m") > 0
    file.sync()
    file({"step": 2, "loss": 0.25})
    file.close()
    file.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "m").read_text().splitlines()] == [1, 2]


def test_rows_are_on_the_disk_within_a_second_or_so(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    file = MetricsFile(tmp_path / "m", 1, torch.nn.Linear(99, 1))
    for step in range(1, 50):
        clock[0] += 0.1
        file({"step": step, "loss": 0.5})
        assert step - (tmp_path / "m").read_bytes().count(b"\n") <= 11
    file.close()


@pytest.mark.parametrize(
    ("there", "length", "kept", "whole"),
    [
        (b"ab\ncd\n", 3, b"ab\n", True),
        (b"ab\ncd\n", 6, b"ab\ncd\n", True),
        (b"ab\ncd\n", 0, b"", True),
        (b"ab\ncd\n", 9, b"ab\ncd\n", False),
        (b"ab\ncd", 6, b"ab\n", False),
        (b"ab", 6, b"", False),
        (b"", 6, b"", False),
        (None, 6, None, False),
        (None, 0, None, True),
    ],
)
def test_cutting_back_never_pads(tmp_path: Path, there, length, kept, whole):
    path = tmp_path / "m"
    if there is not None:
        path.write_bytes(there)
    assert cut_back(path, length) == whole
    assert (path.read_bytes() if path.exists() else None) == kept


@pytest.mark.parametrize("lr", [1e-4, 1e-5, 1, 0.1 + 0.2])
def test_rows_are_written_as_json_writes_them(train, lr):
    """Whichever way a row takes to the file: those of few parameters go through json, the others need not."""
    run = train("data.inputs=4", "steps=3", "data.validation=0.25", f"optim.lr={lr}", "max_divergence=1e300")
    for line in (run.path / "metrics.jsonl").read_text().splitlines():
        assert line == json.dumps(json.loads(line))
        if "loss" in json.loads(line):
            assert list(json.loads(line)) == ["step", "epoch", "loss", "lr"]
