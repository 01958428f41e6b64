"""Every optimizer of torch.optim has a config that trains as torch's class does; gd and L-BFGS keep their promises."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import trainer.optimizers
from trainer.config import arguments
from trainer.config.catalog import Catalog
from trainer.config.compose import compose_jobs
from trainer.launch.resume import as_composed
from trainer.optimizers import LBFGS, GradientDescent

CONFIGS = {
    file.stem: yaml.safe_load(file.read_text())
    for file in sorted((Path(__file__).parents[1] / "configs/optim").glob("*.yaml"))
}
TORCH = {
    name: cls
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
}
SMALL = ("data.samples=16", "data.inputs=20", "data.outputs=3", "model.hidden=8")


def class_of(name):
    """The class of torch.optim behind a config; plain descent is torch's SGD without momentum."""
    name = CONFIGS[name]["_target_"].rpartition(".")[2]
    return torch.optim.SGD if name == "GradientDescent" else TORCH[name]


def test_every_optimizer_of_torch_has_a_config():
    assert {class_of(name) for name in CONFIGS} == set(TORCH.values())
    ours = {cls.__name__ for cls in vars(trainer.optimizers).values() if inspect.isclass(cls)} & set(TORCH)
    for name, config in CONFIGS.items():
        module = "trainer.optimizers" if name == "gd" or class_of(name).__name__ in ours else "torch.optim"
        assert config["_target_"].startswith(module), name


@pytest.mark.parametrize("name", ["gd", "sgd", "sgd_momentum", "nesterov", "adam", "adamw", "nadam", "radam", "adamax"])
def test_one_learning_rate_serves_the_ladder(name):
    assert CONFIGS[name]["lr"] == 1e-4


def two_layers():
    return nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3))


class Matrices(nn.Module):
    """Two layers without biases, drawn as `model=autograd` draws them."""

    def __init__(self):
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(20, 8).uniform_(-(20**-0.5), 20**-0.5))
        self.w2 = nn.Parameter(torch.empty(8, 3).uniform_(-(8**-0.5), 8**-0.5))

    def forward(self, x):
        return (x @ self.w1).clamp(min=0) @ self.w2


def plain_script(steps, make_model, optimizer_class, **arguments):
    """Losses of a script that draws data and a model from seed 0 and trains."""
    torch.manual_seed(0)
    x, y = torch.randn(16, 20), torch.randn(16, 3)
    model = make_model()
    optimizer = optimizer_class(model.parameters(), **arguments)

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - y).pow(2).sum()
        loss.backward()
        return loss.detach()

    return [float(optimizer.step(closure)) for _ in range(steps)]


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"sparse_adam"}))
def test_each_config_trains_as_a_plain_script_does(train, name):
    model, make_model = ("autograd", Matrices) if name == "muon" else ("two_layer", two_layers)
    found = [row["loss"] for row in train(f"model={model}", f"optim={name}", *SMALL, "steps=20").steps]
    arguments = {key: value for key, value in CONFIGS[name].items() if key != "_target_"}
    assert found == pytest.approx(plain_script(20, make_model, class_of(name), **arguments), rel=1e-4)
    assert found[-1] < found[0]


SPARSE = """
import torch
from torch import nn
from trainer.data import Data

class Table(nn.Module):
    def __init__(self, outputs: int):
        super().__init__()
        self.rows = nn.Embedding(50, outputs, sparse=True)

    def forward(self, x):
        return self.rows(x).sum(1)

class Words(Data):
    def __init__(self):
        super().__init__(torch.randint(50, (32, 4)), torch.randn(32, 3))
"""


@pytest.mark.parametrize("words", ["optim=sparse_adam optim.lr=0.1", "optim=sgd", "optim=gd clip_norm=1"])
def test_sparse_gradients_train(train, words):
    Path("my_sparse.py").write_text(SPARSE)
    for group, target in (("model", "Table"), ("data", "Words")):
        Path("configs", group).mkdir(parents=True)
        Path("configs", group, "sparse.yaml").write_text(f"_target_: my_sparse.{target}\n")
    losses = [row["loss"] for row in train("model=sparse", "data=sparse", *words.split(), "steps=30").steps]
    sys.modules.pop("my_sparse")
    assert losses[-1] < losses[0]


REFUSED = {
    "optim=muon": "model=two_layer optim=muon: Muon only supports 2D parameters whereas we found a parameter",
    "optim=muon model=product": "model=product optim=muon: Muon only supports 2D parameters",
    "optim=sparse_adam": "optim=sparse_adam data=random: a training step fails: SparseAdam does not support dense",
    "optim=adam optim.foo=1": "optim.foo: Adam has no argument foo; allowed: optim.amsgrad, ",
    "optim=adam optim.amsgrd=true": "did you mean optim.amsgrad?",
    "optim=adam optim.amsgrad=1": "optim.amsgrad=1: is not true or false",
    "optim=adam optim.params=1": "optim.params: is supplied by the run",
    "optim=adam optim.betas=[0.9]": "optim.betas=[0.9]: is not a list",
    "optim=adam optim.betas=[1.5,0.9]": "optim.betas=[1.5,0.9]: Invalid beta parameter at index 0: 1.5",
    "optim=adam optim.eps=-1": "optim.eps=-1: Invalid epsilon value",
    "optim=gd optim.lr=-1": "optim.lr=-1: must be at least 0",
    "optim=sgd optim.lr=-1": "optim.lr=-1: Invalid learning rate",
    "optim=adagrad optim.lr_decay=-1": "optim.lr_decay=-1: Invalid lr_decay value",
    "optim=nesterov optim.momentum=0": "optim.momentum=0: Nesterov momentum requires a momentum",
    "optim=rprop optim.etas=[2,1]": "optim.etas=[2,1]: Invalid eta values",
    "optim=lbfgs optim.line_search_fn=wolfe": "only 'strong_wolfe' is supported",
    "optim=sgd optim.differentiable=true": "a training step fails",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_in_words(refused, words):
    assert REFUSED[words] in refused("run", *words.split())


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("adam", {"amsgrad": True}),
        ("sgd_momentum", {"dampening": 0.5}),
        ("nadam", {"decoupled_weight_decay": True, "weight_decay": 0.1}),
        ("adafactor", {"eps": [None, 0.01]}),
    ],
)
def test_arguments_that_no_file_names_are_taken_from_the_signature(train, name, extra):
    written = {True: "true", None: "null"}
    shown = {
        key: "[null,0.01]" if isinstance(value, list) else written.get(value, value) for key, value in extra.items()
    }
    words = [f"optim.{key}={value}" for key, value in shown.items()]
    found = [row["loss"] for row in train(f"optim={name}", *words, "optim.lr=1e-2", *SMALL, "steps=10").steps]
    arguments = {**CONFIGS[name], **extra, "lr": 1e-2}
    del arguments["_target_"]
    assert found == pytest.approx(plain_script(10, two_layers, class_of(name), **arguments), rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_gd_follows_sgd_bit_for_bit(train, dtype):
    words = ("steps=50", "batch_size=5", f"device.dtype={dtype}", "optim.lr=1e-3", *SMALL)
    assert train("optim=gd", *words, name="gd").bits() == train("optim=sgd", *words, name="sgd").bits()


def test_gd_sets_the_gradients_to_zero():
    w, unused = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.ones(1))
    optimizer = GradientDescent([w, unused], lr=0.5)

    def closure():
        loss = (w**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 5.0
    assert w.tolist() == [0.0, 0.0]
    assert w.grad.tolist() == [0.0, 0.0]
    assert unused.grad is None
    (3 * w).sum().backward()
    assert optimizer.step() is None
    assert w.tolist() == [-1.5, -1.5]


class Bowl:
    """A problem for L-BFGS, whose evaluation can be made to fail."""

    def __init__(self):
        torch.manual_seed(0)
        self.weights = [nn.Parameter(torch.randn(n, dtype=torch.float64)) for n in (6, 2)]
        self.fails_in = -1

    def __call__(self):
        self.fails_in -= 1
        if self.fails_in == 0:
            raise RuntimeError("not finite")
        w, b = self.weights
        w.grad = b.grad = None
        loss = (torch.logspace(-2, 2, 6, dtype=torch.float64) * w**2).sum() + (w.cos().sum() - b).pow(2).sum()
        loss.backward()
        return loss.item()


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
@pytest.mark.parametrize("finished", [0, 4])
def test_lbfgs_steps_as_torch_does_also_after_a_step_that_failed(line_search, finished):
    arguments = {"lr": 0.5, "max_iter": 4, "history_size": 3, "line_search_fn": line_search}
    bowl, reference = Bowl(), Bowl()
    optimizer, torchs = LBFGS(bowl.weights, **arguments), torch.optim.LBFGS(reference.weights, **arguments)
    losses = [optimizer.step(bowl) for _ in range(finished)]
    before = copy.deepcopy(optimizer.state_dict()), [w.tolist() for w in bowl.weights]
    bowl.fails_in = 3
    with pytest.raises(RuntimeError, match="not finite"):
        optimizer.step(bowl)
    assert_same(optimizer.state_dict(), before[0])
    assert [w.tolist() for w in bowl.weights] == before[1]
    losses += [optimizer.step(bowl) for _ in range(4)]
    assert losses == [torchs.step(reference) for _ in range(finished + 4)]
    assert [w.tolist() for w in bowl.weights] == [w.tolist() for w in reference.weights]


def assert_same(one, other):
    """Compare nested state to the last bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() - {"al"} == other.keys() - {"al"}  # torch's scratch space
        for key in one.keys() - {"al"}:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


@pytest.mark.parametrize("size", [2, 200])
def test_lbfgs_resumes_with_another_history_size(train, cli, size):
    run = train("optim=lbfgs", "optim.max_iter=4", "optim.lr=0.1", *SMALL, "steps=3")
    assert cli("resume", "run", "steps=6", f"optim.history_size={size}").code == 0
    losses = [row["loss"] for row in run.steps]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 6


def test_a_run_from_before_an_option_named_a_default_goes_on_with_what_it_had():
    catalog = Catalog()

    def composed(*words):
        (job,) = compose_jobs(arguments.jobs(arguments.split(["optim=lbfgs", *words]), catalog), catalog)
        return job

    job = composed()
    old = {key: value for key, value in job.settings.optim.items() if not key.startswith("tolerance_")}
    assert len(old) == len(job.settings.optim) - 2
    stored = dataclasses.replace(job.settings, optim=old)
    assert as_composed(stored, job).optim == old
    typed = composed("optim.tolerance_grad=0")
    assert as_composed(stored, typed).optim == {**old, "tolerance_grad": 0}


def test_a_run_that_lbfgs_cannot_go_on_with_keeps_its_last_good_weights(cli):
    words = ("optim=lbfgs", "optim.line_search_fn=null", "device.dtype=float32", *SMALL)
    result = cli("run", "run_dir=run", "optim.lr=1e30", "on_nonfinite=skip", "max_skips=3", "steps=20", *words)
    assert result.code == 1
    assert "the weights are those before that step" in result.err
