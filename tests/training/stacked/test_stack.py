"""Jobs that are trained as one: each must be the run that it would have been alone."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import Run, wait_until
from faults import default_handlers
from safetensors.torch import load_file

from trainer.config import arguments
from trainer.config.compose import compose_jobs
from trainer.session.prepare import prepare
from trainer.training.stacked import eligible

TOGETHER = ("hydra/launcher=vectorized",)
SMALL = ("data.inputs=20", "model.hidden=5", "data.samples=24", "data.outputs=2")
TOLERANCE = {"float32": 1e-3, "float64": 1e-7}


@pytest.fixture(autouse=True)
def as_many_as_possible(monkeypatch):
    """What is measured to be the fastest must not decide what is tested."""
    monkeypatch.setattr("trainer.training.stacked.eligible.best_size", lambda built, count, same_rows: (count, 0.5))


def jobs(path: str) -> list[Run]:
    return [Run(p) for p in sorted(Path(path).iterdir()) if p.name.isdigit()]


def states(path: str) -> list[str]:
    return [run.status["state"] for run in jobs(path)]


def agree(one: Run, other: Run, tolerance: float = TOLERANCE["float64"]) -> None:
    """The same rows, and the same numbers in them as far as two orders of summing up allow."""
    assert len(one.rows) == len(other.rows)
    first = other.steps[0]["loss"]
    for a, b in zip(one.rows, other.rows, strict=True):
        assert a.keys() == b.keys()
        assert (a["step"], a["epoch"], a.get("lr")) == (b["step"], b["epoch"], b.get("lr"))
        for key in a.keys() & {"loss", "validation_loss", "validation_accuracy"}:
            assert abs(a[key] - b[key]) <= tolerance * max(abs(b[key]), 1e-3 * abs(first)), (key, a, b)


@pytest.fixture
def both(cli):
    """Train the same sweep together and singly, and compare all rows; return the jobs trained together."""

    def call(*words: str, code: int = 0, dtype: str = "float64") -> list[Run]:
        words = (*(SMALL if all("model=" not in word for word in words) else ()), f"device.dtype={dtype}", *words)
        result = cli("run", "-m", "run_dir=together", *TOGETHER, *words)
        assert result.code == code, result.err
        assert "trained together" in result.err
        assert "separately" not in result.err
        assert cli("run", "-m", "run_dir=singly", "hydra/launcher=local", *words).code == code
        assert states("together") == states("singly")
        for one, other in zip(jobs("together"), jobs("singly"), strict=True):
            agree(one, other, TOLERANCE[dtype])
        return jobs("together")

    return call


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("float64", ("optim=gd", "optim.lr=1e-4,1e-3")),
        ("float64", ("optim=sgd", "optim.lr=1e-4,1e-3", "optim.weight_decay=0,0.1")),
        ("float32", ("optim=sgd", "optim.lr=1e-4,1e-3", "seed=0,1")),
        ("float64", ("optim=sgd_momentum", "optim.momentum=0,0.9", "+optim.dampening=0,0.1")),
        ("float32", ("optim=sgd_momentum", "optim.momentum=0.5,0.9", "optim.weight_decay=0,0.01")),
        ("float32", ("optim=sgd", "clip_norm=null,10", "seed=0,1")),
        ("float64", ("optim=sgd", "clip_norm=1,2", "seed=0,1")),
        ("float64", ("optim=nesterov", "optim.momentum=0.5,0.9", "+optim.maximize=false")),
        ("float64", ("optim=sgd,sgd_momentum", "seed=0,1")),
        ("float64", ("optim=adam", "optim.betas=[0.9,0.999],[0.5,0.9]", "optim.weight_decay=0,0.1")),
        ("float32", ("optim=adam", "optim.lr=1e-4,1e-3", "seed=0,1")),
        ("float64", ("optim=adam", "optim.amsgrad=true", "optim.eps=1e-8,1e-3", "optim.lr=1e-2")),
        ("float64", ("optim=adamw", "optim.lr=1e-4,1e-3", "optim.weight_decay=0.01,0.5")),
    ],
)
def test_losses_are_those_of_single_runs(both, dtype, words):
    both(*words, "steps=200", dtype=dtype)


@pytest.mark.parametrize(
    "words",
    [
        ("batch_size=5", "data.validation=0.25"),
        ("batch_size=5", "accumulate=2", "data.validation=0.25", "loss=mse"),
        ("clip_norm=null,1,30",),
        ("schedule=warmup_cosine", "schedule.warmup=5,20"),
        ("schedule=constant,step,one_cycle",),
        ("schedule=plateau", "schedule.patience=1", "data.validation=0.25", "optim.lr=3e-3"),
        ("steps=10,60,35", "optim=adam", "optim.lr=1e-2"),
        ("model=autograd", "model.hidden=5"),
        ("model=mlp", "model.sizes=[6]", "model.norm=layer"),
        ("model=product", "data=none", "clip_norm=null,1", "optim=adam", "optim.lr=0.01,0.1"),
    ],
)
def test_whatever_else_a_run_does(both, words):
    both(*words, "seed=0,1", *(() if "steps=10,60,35" in words else ("steps=40",)))


def test_losses_are_those_of_a_plain_script(cli):
    """Trained together with another learning rate and another momentum."""
    words = ("data.samples=16", "optim=sgd_momentum", "optim.lr=1e-4,1e-3", "optim.momentum=0.9,0.5", "steps=200")
    assert cli("run", "-m", "run_dir=sweep", *TOGETHER, "model=sequential", "device.dtype=float64", *words).code == 0
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        x, y = torch.randn(16, 1000), torch.randn(16, 10)
        model = torch.nn.Sequential(torch.nn.Linear(1000, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10))
    finally:
        torch.set_default_dtype(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    losses = []
    for _ in range(200):
        loss = (model(x) - y).pow(2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    found = next(run for run in jobs("sweep") if run.status["swept"] == {"optim.lr": "0.001", "optim.momentum": "0.9"})
    for row, loss in zip(found.steps, losses, strict=True):
        assert abs(row["loss"] - loss) <= 1e-7 * max(loss, 1e-3 * losses[0])


@pytest.mark.parametrize("size", [2, 3])
def test_the_number_of_jobs_at_a_time_does_not_matter(both, monkeypatch, size):
    monkeypatch.setattr("trainer.training.stacked.eligible.best_size", lambda built, count, same_rows: (size, 0.5))
    both("seed=range(5)", "steps=40", "optim=adam", "batch_size=7")


def test_the_size_is_measured_and_nothing_moves(monkeypatch):
    monkeypatch.undo()
    split = arguments.split([*SMALL])
    (job,) = compose_jobs(arguments.jobs(split, split.catalog()), split.catalog())
    built = prepare(job.settings, job.choices)
    before, weights = torch.get_rng_state(), [w.clone() for w in built.run.weights]
    size, share = eligible.best_size(built, 7, same_rows=False)
    assert size in (1, 4, 7)
    assert share > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(weights, built.run.weights, strict=True))
    assert built.run.state.step == 0


@pytest.mark.parametrize("optim", ["sgd", "sgd_momentum", "adam"])
def test_a_checkpoint_is_that_of_a_single_run(both, optim):
    """The same names, shapes, dtypes and counters; what was drawn is the same to the bit."""
    for one in both(f"optim={optim}", "seed=0,1", "steps=20", "checkpoint.every=8"):
        other = Run(Path("singly") / one.path.name)
        assert [path.name for path in one.checkpoints] == [path.name for path in other.checkpoints]
        for mine, theirs in zip(one.checkpoints, other.checkpoints, strict=True):
            for name in ("model.safetensors", "training.safetensors"):
                a, b = load_file(mine / name), load_file(theirs / name)
                assert {k: (v.shape, v.dtype) for k, v in a.items()} == {k: (v.shape, v.dtype) for k, v in b.items()}
                for key, value in a.items():
                    torch.testing.assert_close(value, b[key], rtol=1e-6, atol=1e-9)
                    if "generators" in key or key.endswith("step"):
                        assert torch.equal(value, b[key])
            a, b = (json.loads((path / "state.json").read_text()) for path in (mine, theirs))
            for state in (a, b):
                state["training"]["metrics_bytes"] = None
                for loss in ("loss", "first_loss"):
                    state["training"]["state"][loss] = None
            assert a == b


@pytest.mark.parametrize("optim", ["sgd_momentum", "adam"])
def test_a_job_is_resumed_alone_or_with_the_others(cli, optim):
    words = (*SMALL, f"optim={optim}", "seed=0,1,2", "batch_size=7", "device.dtype=float64", "steps=40")
    assert cli("run", "-m", "run_dir=straight", "hydra/launcher=local", *words).code == 0
    assert cli("run", "-m", "run_dir=sweep", *TOGETHER, *words, "checkpoint.every=11").code == 0
    for number, kept in enumerate([22, 33, 33]):  # as if it had been killed then
        path = Path(f"sweep/00{number}")
        for folder in path.glob("checkpoints/step-*"):
            if int(folder.name[-4:]) > kept:
                shutil.rmtree(folder)
        status = json.loads((path / "status.json").read_text())
        (path / "status.json").write_text(json.dumps({**status, "state": "running"}))
    for part in ("sweep/002", "sweep"):
        assert cli("resume", part).code == 0
    assert states("sweep") == ["done"] * 3
    for one, other in zip(jobs("sweep"), jobs("straight"), strict=True):
        agree(one, other)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_all_jobs(cli, fork, number, monkeypatch):
    """Those that train have stopped, those whose turn had not come wait, and all go on to what they would have been."""
    monkeypatch.setattr("trainer.training.stacked.eligible.best_size", lambda built, count, same_rows: (2, 0.5))
    words = (*SMALL, "seed=0,1,2,3", "device.dtype=float64", "log_every=100")
    child = fork("run", "-m", "run_dir=sweep", *TOGETHER, *words, "steps=10000000", prepare=default_handlers)
    wait_until(lambda: Path("sweep/001/metrics.jsonl").exists() and "running" in states("sweep"))
    child.kill(number)
    assert child.wait() == 128 + number
    assert states("sweep") == ["stopped", "stopped", "waiting", "waiting"]
    for run in jobs("sweep")[:2]:
        assert run.status["step"] == int(run.checkpoints[-1].name[-12:])


def test_a_job_that_fails_fails_alone(cli):
    """With the words that it would have failed with by itself."""
    words = (*SMALL, "optim.lr=1e-4,1e30,1e3,1e-5", "steps=30", "device.dtype=float32", "max_divergence=1e12")
    assert cli("run", "-m", "run_dir=singly", "hydra/launcher=local", *words).code == 1
    assert cli("run", "-m", "run_dir=together", *TOGETHER, *words).code == 1
    assert states("together") == ["done", "failed", "failed", "done"]
    errors = [[str(run.status["error"]).replace("nan", "inf") for run in jobs(p)] for p in ("together", "singly")]
    assert errors[0] == errors[1]
    assert "the weights are those before that step" in jobs("together")[1].status["error"]
    for one, other in zip(jobs("together"), jobs("singly"), strict=True):
        if one.status["state"] == "done":
            agree(one, other, 1e-3)


def test_numbers_that_are_not_finite_are_left_out_of_one_job(cli, own_part):
    """A job without a spoilt row goes on as if it were alone; the other skips the steps that meet it."""
    source = (
        "import torch\nfrom trainer.data import Data\n\n\nclass Part(Data):\n    def __init__(self):\n"
        "        x, y = torch.randn(8, 3), torch.randn(8, 2)\n"
        "        if torch.initial_seed() == 1:\n            x[5] = torch.nan\n"
        "        super().__init__(x, y)\n"
    )
    own_part("data", "spoilt", source)
    words = ("data=spoilt", "model=linear_stack", "seed=0,1,2", "steps=12", "batch_size=2", "on_nonfinite=skip")
    assert cli("run", "-m", "run_dir=singly", "hydra/launcher=local", *words).code == 0
    assert cli("run", "-m", "run_dir=together", *TOGETHER, *words).code == 0
    for one, other in zip(jobs("together"), jobs("singly"), strict=True):
        assert [row["loss"] is None for row in one.steps] == [row["loss"] is None for row in other.steps]
        assert one.status["skipped"] == other.status["skipped"] == (3 if one.path.name == "001" else 0)
        assert one.status["metrics"]["loss"] == pytest.approx(other.status["metrics"]["loss"], rel=1e-4)


def test_jobs_end_when_their_patience_does(both):
    runs = both("data.validation=0.25", "optim.lr=1e-2,1e-3,1e-4", "patience=3", "steps=150", "optim=adam")
    assert len({run.status["step"] for run in runs}) > 1


def test_each_job_has_a_log_of_its_own(both):
    for run in both("seed=0,1", "steps=10,20", "data.validation=0.25", "eval_every=10"):
        lines = (run.path / "trainer.log").read_text().splitlines()
        steps = run.status["steps"]
        assert [line.split("INFO ")[1].split(":")[0] for line in lines] == [
            f"starts from step 0 of {steps}",
            *(f"step {step}" for step in range(10, steps + 1, 10)),
            f"done at step {steps}",
        ]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("model=mlp", "model.dropout=0.5"), "model=mlp draws random numbers"),
        (("model=mlp", "model.norm=batch"), "model=mlp has buffers, such as running averages"),
        (("model=dynamic",), "model=dynamic draws random numbers"),
        (("model=numpy",), "model=numpy computes its gradients by hand"),
        (("model=function",), "model=function can't be batched"),
        (("model=two_layer", "optim=rmsprop"), "optim=rmsprop has no batched update"),
        (("model=two_layer", "device.amp=true"), "device.amp=true"),
        (("model=product", "data=none", "compile=step"), "compile=step compiles the step of one run"),
    ],
)
def test_what_cannot_be_batched_says_why(cli, words, why):
    words = ("seed=0,1", "steps=3", *words)
    result = cli("run", "-m", "run_dir=together", *TOGETHER, *words)
    assert result.code == 0, result.err
    assert f"2 jobs (000, 001) are trained separately: {why}" in result.err
    assert cli("run", "-m", "run_dir=singly", "hydra/launcher=local", *words).code == 0
    assert [run.bits() for run in jobs("together")] == [run.bits() for run in jobs("singly")]


def test_jobs_that_differ_in_more_are_trained_with_their_like(cli):
    words = ("data.inputs=20", "model=two_layer,sequential,dynamic", "optim.lr=1e-4,1e-5", "steps=5")
    result = cli("run", "-m", "run_dir=sweep", *TOGETHER, *words)
    assert result.code == 0, result.err
    assert "2 jobs (000, 001) are trained together, 2 at a time" in result.err
    assert "2 jobs (002, 003) are trained together, 2 at a time" in result.err
    assert "2 jobs (004, 005) are trained separately: model=dynamic draws random numbers" in result.err
    assert states("sweep") == ["done"] * 6
    alone = cli("run", "-m", "run_dir=alone", *TOGETHER, "data.inputs=20", "model.hidden=4,5", "steps=5")
    assert "job 000 is trained separately: no other job differs from it only in numbers" in alone.err


def test_reproducing_a_job_says_why_it_differs(cli):
    words = ("model=sequential", "optim.lr=1e-4,3e-5", "seed=0,1", "steps=50")
    assert cli("run", "-m", "run_dir=sweep", *TOGETHER, *words).code == 0
    result = cli("reproduce", "sweep/001")
    assert result.code == 1
    assert "it was trained in one program with other jobs, which rounds differently" in result.out
