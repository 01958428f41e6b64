"""`from trainer import fit`: the same runs as from the shell, of objects too, in a process that stays as it was."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy
import pytest
import torch
from conftest import Run
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given
from hypothesis import strategies as st
from instants import content
from torch import nn

from trainer import fit
from trainer.config.arguments import parse
from trainer.config.catalog import Catalog
from trainer.data import CSV, Data
from trainer.errors import RunFailed, UsageError
from trainer.models import MLP
from trainer.quoting import word
from trainer.schedules import Cosine
from trainer.session.metrics_writer import MetricsFile

PAGE = (Path(__file__).parents[1] / "docs" / "own.md").read_text()
SMALL = ("data.inputs=6", "data.outputs=2", "data.samples=24")


class Net(nn.Module):
    """With dropout, so that random numbers matter."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 5) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.Dropout(0.2), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def net() -> Net:
    """The same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Net(3, 2)


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of 40 rows."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(40, 3, generator=generator), torch.randn(40, 2, generator=generator)


OWN = {"loss": "mse", "optim": "adam", "batch_size": 8, "data__validation": 0.25, "steps": 12, "quiet": True}


def at_step(patch: pytest.MonkeyPatch, step: int, act) -> None:
    """Do something after the row of a step."""
    original = MetricsFile.__call__

    def call(self, row):
        original(self, row)
        if row["step"] == step and "loss" in row:
            act()

    patch.setattr(MetricsFile, "__call__", call)


WORDS = ("model=dynamic", *SMALL, "data.validation=0.25", "optim=adam", "optim.lr=1e-3", "steps=9", "batch_size=8")


def test_words_train_the_same_bits_as_the_command(train):
    run = fit(*WORDS, run_dir="here")
    there = train(*WORDS, name="there")
    assert Run(run.path).bits() == there.bits()
    here, shell = Run(run.path).status, there.status
    assert here["config"] == shell["config"]
    assert here["choices"] == shell["choices"]
    assert [*here["segments"][0]["overrides"]] == [*WORDS, "run_dir=here"]
    assert here["segments"][0]["command"].startswith("fit('model=dynamic', 'data.inputs=6', ")


def test_values_of_python_are_the_same_settings(train):
    run = fit(
        model="mlp",
        model__sizes=[4, 4],
        model__activation="tanh",
        data__inputs=numpy.int64(6),
        data__samples=24,
        data__outputs=2,
        optim="adam",
        optim__lr=numpy.float64(1e-3),
        optim__betas=(0.8, 0.9),
        patience=None,
        device__deterministic=True,
        name='it\'s a "name", {really}: 1',
        steps=4,
        run_dir=Path("here"),
    )
    quoted = r"""name='it\'s a "name", {really}: 1'"""
    values = ("model.sizes=[4,4]", "model.activation=tanh", "optim.lr=0.001", "optim.betas=[0.8,0.9]")
    there = train("model=mlp", *SMALL, "optim=adam", *values, "device.deterministic=true", quoted, "steps=4", name="b")
    assert run.config == there.status["config"]
    assert Run(run.path).bits() == there.bits()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Hydra's grammar takes none of its own escapes at the end of a line, and a setting holds one line.
    | st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(PLAIN)
def test_every_plain_value_can_be_written_as_a_word(value):
    assert parse(word("name", value), Catalog()).value() == value


def test_what_it_returns(capfd):
    run = fit(*WORDS, run_dir="run")
    files = Run(run.path)
    assert run.path == Path("run").absolute()
    assert (run.state, run.step) == ("done", 9)
    assert run.history == files.rows
    assert run.metrics == files.status["metrics"]
    assert run.best == files.status["best"]
    assert run.config["optim"]["lr"] == 1e-3
    assert repr(run).startswith("<done at step 9: loss ")
    assert repr(run).endswith("; run>")
    assert not run.model.training
    last, best = files.weights(), Run(run.path).path / f"checkpoints/step-{run.best['step']:012d}"
    assert all(torch.equal(value, last[name]) for name, value in run.model.state_dict().items())
    kept = run.best_model.state_dict()
    from safetensors.torch import load_file

    assert all(torch.equal(value, kept[name]) for name, value in load_file(best / "model.safetensors").items())
    out, err = capfd.readouterr()
    assert err.startswith("dynamic  ")
    assert out.startswith("done  9 steps in ")
    assert "trainer resume run steps=18" in out


def test_quiet_is_quiet(capfd):
    fit(*WORDS, quiet=True)
    assert capfd.readouterr() == ("", "")


def test_without_validation_data_there_is_no_best():
    run = fit(*SMALL, steps=2, quiet=True)
    assert run.best is None
    assert all(torch.equal(a, b) for a, b in zip(run.best_model.parameters(), run.model.parameters(), strict=True))


def test_objects_train_as_a_plain_loop_does():
    x, y = rows()
    model, plain = net().double(), net().double()
    run = fit(model=model, data=(x.double(), y.double()), loss="mse", optim="sgd", optim__lr=0.1, steps=5, seed=3)
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(plain(x.double()), y.double())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert run.model is model
    assert [row["loss"] for row in run.history] == losses
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert run.config["device"]["dtype"] == "float64"  # as the model is


def test_the_run_says_what_it_was_given():
    fit(model=net(), data=rows(), run_dir="run", **OWN)
    run = Run(Path("run"))
    config = run.status["config"]
    assert config["model"] == {"_object_": f"{__name__}.Net"}
    assert re.fullmatch(r"arrays \[40,3\] and \[40,2\], SHA-256 \w{64}", config["data"]["_object_"])
    assert config["data"]["validation"] == 0.25
    assert config["loss"]["_target_"] == "torch.nn.MSELoss"
    assert (run.status["choices"]["model"], run.status["choices"]["data"]) == ("Net", "arrays")
    assert run.status["segments"][0]["command"].endswith(", model=Net, data=arrays)")
    assert f"{Path(__file__).name}" in run.status["code"]


def test_a_class_is_built_after_the_seed_and_takes_its_widths_from_the_data():
    run = fit(model=nn.Linear, model__in_features=3, model__out_features=2, data=rows(), steps=2, quiet=True)
    assert run.config["model"]["_target_"] == "torch.nn.Linear"
    torch.manual_seed(0)
    first = torch.nn.functional.mse_loss(nn.Linear(3, 2)(rows()[0]), rows()[1], reduction="sum").item()
    assert run.history[0]["loss"] == first

    class Local(Net):
        pass

    run = fit(model=Local, model__hidden=4, data=rows(), steps=2, quiet=True)
    assert run.model.layers[0].weight.shape == (4, 3)
    name = f"{__name__}.{Local.__qualname__}"
    assert run.config["model"] == {"_object_": name, "inputs": 3, "outputs": 2, "hidden": 4}
    with pytest.raises(UsageError, match=r"model\.depth: Local has no argument depth"):
        fit(model=Local, model__depth=4, data=rows())


@pytest.mark.parametrize("cls", [Net, MLP], ids=lambda cls: cls.__name__)
def test_a_class_goes_on_with_what_was_set_for_it(cls):
    words = {"model": cls, "data": rows(), "quiet": True}
    run = fit(run_dir="run", steps=2, **words)
    assert run.config["model"]["inputs"] == 3
    assert fit(resume="run", steps=4, **words).step == 4
    assert fit(run_dir="run", resume=True, steps=6, **words).step == 6
    assert fit(resume=run, steps=8, quiet=True).config["model"] == run.config["model"]


def test_every_part_may_be_an_object():
    x, y = rows()
    model = net()
    groups = [{"params": model.layers[0].parameters()}, {"params": model.layers[3].parameters(), "lr": 0.5}]
    run = fit(
        model=model,
        data=Data(x, y, validation=0.25),
        loss=nn.HuberLoss(delta=0.7),
        optim=torch.optim.SGD(groups, lr=0.25),
        schedule=Cosine(8),
        steps=8,
        quiet=True,
    )
    assert run.history[0]["lr"] == 0.25
    assert run.config["optim"]["_object_"] == "torch.optim.SGD"
    assert run.config["optim"]["lr"] == 0.25
    assert run.config["schedule"] == {"_object_": "trainer.schedules.Cosine"}
    assert [row["loss"] for row in run.history if "loss" in row][-1] < run.history[0]["loss"]
    further = fit(resume=run, steps=12, quiet=True)
    assert (further.step, further.path) == (12, run.path)


@pytest.mark.parametrize("optim", [torch.optim.LBFGS, torch.optim.Adam], ids=lambda cls: cls.__name__)
def test_an_optimizer_keeps_its_weights_wherever_it_likes(optim):
    model = net()
    run = fit(model=model, data=rows(), loss=nn.MSELoss(), optim=optim(model.parameters(), lr=0.01), steps=30)
    assert run.history[-1]["loss"] < run.history[0]["loss"]


@pytest.mark.parametrize(
    "targets", [[0, 2, 1, 2] * 10, numpy.array([0, 2, 1, 2] * 10), torch.tensor([0, 2, 1, 2] * 10)]
)
def test_whole_numbers_are_classes_where_the_loss_wants_classes(targets):
    x, _ = rows()
    run = fit(model=Net(3, 3), data=(x.numpy(), targets), loss="cross_entropy", data__validation=0.25, steps=3)
    assert "validation_accuracy" in run.metrics
    run = fit(model=Net(3, 1), data=(x, targets), loss="mse", steps=3)
    assert (run.model(x) - torch.as_tensor(targets)[:, None]).shape == (40, 1)


def test_texts_are_classes():
    x, _ = rows()
    run = fit(model=Net, data=(x, ["red", "green", "blue", "red"] * 10), loss="cross_entropy", steps=3)
    assert run.model(x).shape == (40, 3)


def test_a_read_only_array_is_left_alone():
    x, y = (part.numpy() for part in rows())
    x.flags.writeable = False
    assert fit(model=Net, data=(x, y), loss="mse", steps=2).step == 2


def test_a_dataset_of_torch_is_fed_as_asked():
    x, y = rows()
    dataset = torch.utils.data.TensorDataset(x, y)
    own = {**OWN, "data__workers": 0}
    run = fit(model=net(), data=dataset, run_dir="run", **own)
    assert run.config["data"] == {"_object_": "torch.utils.data.TensorDataset", "validation": 0.25, "workers": 0}
    assert Run(run.path).bits() == Run(fit(model=net(), data=(x, y), run_dir="pair", **OWN).path).bits()
    assert fit(resume=run, steps=14, quiet=True).step == 14
    with pytest.raises(UsageError, match=r"data\.nan: Items has no argument nan"):
        fit(model=net(), data=dataset, data__nan="error")


def test_data_made_of_a_file_can_be_used_again():
    Path("rows.csv").write_text("a,b,price\n" + "".join(f"{i % 7},{i % 3},{i % 5}\n" for i in range(40)))
    houses = CSV("rows.csv", target="price")
    first = fit(model="mlp", data=houses, loss="mse", steps=3, quiet=True)
    second = fit(model="mlp", data=houses, loss="mse", steps=3, quiet=True)
    assert first.history == second.history
    assert first.config["data"] == {"_object_": "trainer.data.CSV of rows.csv"}
    assert (first.path / "preprocess.json").exists()
    assert fit(resume=first, steps=5, quiet=True).step == 5


def test_a_dict_names_a_class_and_its_arguments():
    run = fit(model={"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}, data=rows(), steps=2)
    assert run.config["model"] == {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optim": "adm"}, "optim=adm: no such optim; .*; did you mean optim=adam\\?"),
        ({"lr": 0.1}, "lr=0.1: no such setting; did you mean optim.lr=0.1\\?"),
        ({"optim__lr": -1}, "optim.lr=-1: "),
        ({"steps": 0}, "steps=0: is out of range; allowed: at least 1"),
        (
            {"model": len},
            "model=len: is not a torch.nn.Module; allowed: the name of an option, a torch.nn.Module, or a subclass$",
        ),
        ({"loss": nn.functional.mse_loss}, "loss=mse_loss: is not a torch.nn.Module"),
        ({"data": 3}, "data=int: is not a trainer.data.Data or torch.utils.data.Dataset; .*or a pair of arrays"),
        ({"data": (torch.zeros(3, 2), torch.zeros(4))}, "x has 3 rows and y has 4"),
        ({"data": (torch.zeros(0, 2), torch.zeros(0))}, "at least 1"),
        ({"data": (["a", "b"], [1.0, 2.0])}, "x must be numbers"),
        ({"model": Net(9, 1), "data": rows()}, "a training step fails: mat1 and mat2"),
        ({"model": Net(3, 1), "data": rows()}, r"model=Net .*: the model's predictions have the shape \[2, 1\], the"),
        ({"model": Net(3, 2), "model__hidden": 3, "data": rows()}, "model.hidden=3: the model is an object"),
        ({"data": Data(*rows()), "data__validation": 0.5}, "data.validation=0.5: the data is an object"),
        ({"optim": torch.optim.SGD(Net(3, 2).parameters())}, "optim=SGD: optimizes weights that don't belong to the"),
        ({"run_dir": "taken"}, "run_dir=taken: exists and is not empty"),
        ({"resume": True}, "resume=true: which run\\?"),
        ({"resume": "nothing"}, "nothing: no such run"),
        (
            {"resume": "sweep"},
            "resume='sweep': is a sweep of several jobs; allowed: 'sweep/best', 'sweep/000', 'sweep/001'",
        ),
        ({"seed": "0,1"}, "seed=0,1: is not a whole number"),
    ],
)
def test_what_is_wrong_is_an_exception_and_creates_nothing(cli, workdir, settings, said):
    Path("taken").mkdir()
    Path("taken/file").touch()
    if settings.get("resume") == "sweep":
        assert cli("run", "-m", "run_dir=sweep", "seed=0,1", "steps=1", *SMALL).code == 0
    before = content(workdir)
    with pytest.raises(
        UsageError, match=f"^({re.escape(said) if '[' in said and chr(92) not in said else said}|.*{said})"
    ):
        fit(**settings)
    assert content(workdir) == before


def test_a_word_twice_and_several_values_are_refused():
    with pytest.raises(UsageError, match=r"seed: is given twice: seed=1 and seed=2"):
        fit("seed=1", seed=2)
    with pytest.raises(UsageError, match=r"seed=1,2: several values"):
        fit("seed=1,2")
    with pytest.raises(UsageError, match="--dry-run: is not key=value"):
        fit("--dry-run")


def test_a_failure_is_an_exception_that_says_what_one_may_do():
    with pytest.raises(RunFailed, match="falls without bound") as failed:
        fit("experiment=runaway", run_dir="run", quiet=True)
    assert any(re.search(r"^  run +run$", note, re.MULTILINE) for note in failed.value.__notes__)
    assert Run(Path("run")).status["state"] == "failed"
    with pytest.raises(RunFailed) as failed:
        fit(model=net(), data=rows(), optim__lr=1e9, run_dir="own", checkpoint__every=1, max_divergence=1, quiet=True)
    assert any("fit(model=..., data=..., resume='own', optim__lr=1e+08)" in note for note in failed.value.__notes__)


def test_an_interrupt_saves_and_returns_and_what_goes_on_ends_the_same(monkeypatch, capfd):
    straight = fit(model=net(), data=rows(), run_dir="straight", **OWN)
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: signal.raise_signal(signal.SIGINT))
        run = fit(model=net(), data=rows(), run_dir="run", **{**OWN, "quiet": False})
    assert (run.state, run.step) == ("stopped", 5)
    assert "fit(model=..., data=..., resume='run')" in capfd.readouterr().out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert fit(resume=run, quiet=True).state == "done"
    assert Run(run.path).bits() == Run(straight.path).bits()


def test_a_second_interrupt_raises_and_what_was_saved_goes_on(monkeypatch):
    straight = fit(model=net(), data=rows(), run_dir="straight", **OWN)

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        at_step(patch, 5, twice)
        with pytest.raises(KeyboardInterrupt):
            fit(model=net(), data=rows(), run_dir="run", checkpoint__every=4, **OWN)
    # A model that stands elsewhere by now: the weights come from the checkpoint, at step 0 as well.
    again = fit(model=Net(3, 2), data=rows(), resume="run", quiet=True)
    assert (again.state, again.step) == ("done", 12)
    assert Run(again.path).bits() == Run(straight.path).bits()


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_with_the_weights_it_had(monkeypatch):
    straight = fit(model=net(), data=rows(), run_dir="straight", **OWN)

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        at_step(patch, 3, twice)
        with pytest.raises(KeyboardInterrupt):
            fit(model=net(), data=rows(), run_dir="run", **OWN)
    assert Run(fit(model=Net(3, 2), data=rows(), resume="run", quiet=True).path).bits() == Run(straight.path).bits()


def test_other_signals_stop_the_run_and_then_do_what_they_did(monkeypatch):
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        at_step(monkeypatch, 5, lambda: signal.raise_signal(signal.SIGTERM))
        run = fit(*SMALL, steps=9, quiet=True)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (run.state, run.step, received) == ("stopped", 5, [signal.SIGTERM])


def test_resume_takes_what_the_command_takes_and_what_fit_returned(cli, monkeypatch):
    run = fit(*WORDS, run_dir="run", quiet=True)
    assert fit(resume="run", steps=12, quiet=True).step == 12
    assert fit(resume=Path("run"), steps=14, quiet=True).step == 14
    assert fit("optim.lr=1e-4", resume=run, steps=16, quiet=True).config["optim"]["lr"] == 1e-4
    assert cli("resume", "run", "steps=18").code == 0
    status = Run(Path("run")).status
    assert [segment["from_step"] for segment in status["segments"]] == [0, 9, 12, 14, 16]
    with pytest.raises(UsageError, match=r"seed=1: would make it a different run \(it has 0\)"):
        fit(resume="run", seed=1)
    assert cli("reproduce", "run").code == 0
    Path("runs").mkdir()
    first = fit(*SMALL, steps=2, quiet=True)
    assert fit(resume="last", steps=3, quiet=True).path == first.path
    assert fit(resume=first.path.name[-4:], steps=4, quiet=True).path == first.path


def test_a_complete_run_is_left_as_it_is(capfd):
    run = fit(*WORDS, run_dir="run", quiet=True)
    before = content(run.path)
    again = fit(resume=run)
    assert capfd.readouterr().out.startswith("run is complete at step 9\n")
    assert content(run.path) == before
    assert again.history == run.history
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), run.model.parameters(), strict=True))


def test_resume_true_begins_or_goes_on(monkeypatch):
    """What a notebook's cell needs that is run again."""
    straight = fit(model=net(), data=rows(), run_dir="straight", **OWN)
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: signal.raise_signal(signal.SIGINT))
        assert fit(model=net(), data=rows(), run_dir="run", resume=True, **OWN).state == "stopped"
    for _ in range(2):
        run = fit(model=net(), data=rows(), run_dir="run", resume=True, **OWN)
        assert (run.state, run.step) == ("done", 12)
        assert Run(run.path).bits() == Run(straight.path).bits()
    assert len(Run(run.path).status["segments"]) == 2


def test_objects_go_on_with_the_same_data_and_a_model_that_fits():
    fit(model=net(), data=rows(), run_dir="run", **OWN)
    x, y = rows()
    with pytest.raises(UsageError, match=r"data\._object_=arrays .* would make it a different run \(it has arrays"):
        fit(model=net(), data=(x, y + 1), resume="run", steps=20)
    with pytest.raises(
        UsageError, match=r"the weights do not fit the model: layers.0.weight: \[5, 3\] in the checkpoint"
    ):
        fit(model=Net(3, 2, hidden=6), data=(x, y), resume="run", steps=20)
    with pytest.raises(UsageError, match=r"model\._object_=.*\.Net: is an object passed to fit\(\)"):
        fit(data=(x, y), resume="run", steps=20)
    assert fit(model=net(), data=(x, y), resume="run", steps=20, quiet=True).config["data"]["validation"] == 0.25


def test_the_command_says_that_it_cannot_go_on_with_objects(cli):
    fit(model=net(), data=rows(), run_dir="run", **OWN)
    before = content(Path("run"))
    for command in (("resume", "run", "steps=20"), ("reproduce", "run")):
        result = cli(*command)
        assert result.code == 2
        assert "an object passed to fit() in Python; only fit() can continue this run" in result.err
        assert "fit(model=..., resume=RUN)" in result.err
    assert content(Path("run")) == before
    assert cli("verify", "run").code == 0
    result = cli("runs", "run", "--by", "loss")
    assert result.code == 0, result.err


def test_its_weights_start_other_runs(cli):
    fit(model="linear", data=rows(), run_dir="run", steps=3, quiet=True)
    result = cli("run", "model=linear", "data.inputs=3", "data.outputs=2", "init_from=run", "steps=2")
    assert result.code == 0, result.err


def test_the_process_stays_as_it_was():
    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), numpy.random.rand(), torch.rand(1)
    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(1)
    hydra = GlobalHydra.instance().hydra = object()  # as in an application of Hydra's
    path, folder, handlers = sys.path[:], os.getcwd(), [signal.getsignal(number) for number in (2, 15)]
    try:
        fit(*SMALL, "device.threads=2", "device.dtype=float64", "device.deterministic=true", "steps=2", quiet=True)
        assert GlobalHydra.instance().hydra is hydra
    finally:
        GlobalHydra.instance().clear()
    assert (random.random(), numpy.random.rand(), torch.rand(1)) == expected
    assert (sys.path, os.getcwd()) == (path, folder)
    assert [signal.getsignal(number) for number in (2, 15)] == handlers
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()


def test_threads_are_those_of_now_and_not_of_the_first_call():
    try:
        torch.set_num_threads(2)
        assert fit(*SMALL, steps=1, quiet=True).config["device"]["threads"] == 2
    finally:
        torch.set_num_threads(1)
    assert fit(*SMALL, steps=1, quiet=True).config["device"]["threads"] == 1


def test_it_works_in_a_thread_and_leaves_signals_alone():
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(*WORDS, run_dir="run", quiet=True)))
    thread.start()
    thread.join()
    assert Run(found[0].path).bits() == Run(fit(*WORDS, run_dir="other", quiet=True).path).bits()


def test_own_options_and_modules_of_the_working_directory(own_part):
    own_part("model", "twice", "from torch import nn\nclass Part(nn.Linear):\n    pass\n", "in_features: 6\n")
    run = fit("model=twice", *SMALL, model__out_features=2, steps=2, quiet=True)
    assert [*Run(run.path).status["code"]] == ["own_twice.py"]
    Path("configs/model/twice.yaml").write_text("_target_: own_twice.Part\nin_features: six\n")
    with pytest.raises(UsageError, match=r"in_features=six.* \(in configs/model/twice.yaml\)$"):
        fit("model=twice", *SMALL, model__out_features=2)


def test_importing_trainer_does_not_import_torch():
    code = "import sys, trainer; print('torch' in sys.modules); from trainer import fit; print(fit.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\ntrainer.api\n", done.stderr
    with pytest.raises(ImportError):
        from trainer import nothing  # noqa: F401


def test_the_readme_s_example_runs():
    section = PAGE[PAGE.index("## From Python") :]
    for code in re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        names: dict[str, object] = {}
        exec(code, names)
        assert names["run"].state == "done"
