"""The ladder of models: every gradient against a reference written by hand here, and the numbers that must come out."""

from __future__ import annotations

import random
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from trainer import models
from trainer.models import (
    MLP,
    AutogradNet,
    DynamicNet,
    FunctionNet,
    LinearNet,
    LinearStack,
    NumpyNet,
    Product,
    SequentialNet,
    TensorNet,
    TwoLayerNet,
)

CONFIGS = Path(__file__).parents[2] / "configs/model"
RUNGS = {"numpy": NumpyNet, "tensor": TensorNet, "autograd": AutogradNet, "function": FunctionNet}
NETS = {
    **RUNGS,
    "sequential": SequentialNet,
    "two_layer": TwoLayerNet,
    "dynamic": DynamicNet,
    "linear_stack": LinearStack,
    "linear": LinearNet,
    "mlp": MLP,
}
BRIDGED = [NumpyNet, TensorNet]


def gradients_by_hand(x, y, w1, w2):
    """The loss (sum of squares) and the gradients of the two-layer ReLU network."""
    h = x @ w1
    prediction = np.maximum(h, 0) @ w2
    grad_prediction = 2 * (prediction - y)
    grad_w2 = np.maximum(h, 0).T @ grad_prediction
    grad_w1 = x.T @ (grad_prediction @ w2.T * (h > 0))
    return ((prediction - y) ** 2).sum(), grad_w1, grad_w2


def plain_script(steps, make_optimizer):
    """Losses of a script that draws x, y, w1, w2 in float64 from seed 0 and hands an optimizer gradients by hand."""
    torch.manual_seed(0)
    shapes = (64, 1000), (64, 10), (1000, 100), (100, 10)
    x, y, w1, w2 = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    optimizer = make_optimizer([w1, w2])

    def closure():
        loss, *grads = gradients_by_hand(x.numpy(), y.numpy(), w1.numpy(), w2.numpy())
        w1.grad, w2.grad = map(torch.from_numpy, grads)
        return loss

    return [float(optimizer.step(closure)) for _ in range(steps)]


def losses(run):
    return [row["loss"] for row in run.steps]


def depths(model, x, passes):
    """How often each of several forward passes uses the middle layer."""
    uses = []
    hook = model.middle_linear.register_forward_hook(lambda *_: uses.append(1))
    counts = []
    for _ in range(passes):
        uses.clear()
        model(x)
        counts.append(len(uses))
    hook.remove()
    return counts


@pytest.mark.parametrize("cls", RUNGS.values())
def test_backward_passes_hold_against_finite_differences(cls):
    torch.manual_seed(0)
    model = cls(5, 3, hidden=4, init="normal").double()
    x = torch.randn(6, 5, dtype=torch.float64)
    weights = [w.detach().requires_grad_() for w in model.parameters()]

    def prediction(w1, w2):
        return torch.func.functional_call(model, {"w1": w1, "w2": w2}, (x,))

    assert torch.autograd.gradcheck(prediction, weights)


@pytest.mark.parametrize("cls", RUNGS.values())
@pytest.mark.parametrize("init", ["linear", "normal"])
def test_gradients_are_those_written_by_hand(cls, init):
    torch.manual_seed(0)
    model = cls(20, 4, hidden=7, init=init).double()
    x, y = torch.randn(9, 20, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    loss, *grads = gradients_by_hand(x.numpy(), y.numpy(), *(w.detach().numpy() for w in model.parameters()))
    found = (model(x) - y).pow(2).sum()
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-12)
    for w, grad in zip(model.parameters(), grads, strict=True):
        np.testing.assert_allclose(w.grad.numpy(), grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cls", [*BRIDGED, FunctionNet])
def test_a_relu_passes_nothing_back_at_zero(cls):
    model = cls(1, 1, hidden=2)
    with torch.no_grad():
        model.w1.zero_()
        model.w2.fill_(1.0)
    model(torch.ones(1, 1)).sum().backward()
    assert model.w1.grad.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("cls", BRIDGED)
def test_hand_written_passes_work_where_autograd_cannot(cls):
    model = cls(5, 3, hidden=4, init="normal").double()
    with torch.inference_mode():
        x, y = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
        arrays = [model.to_array(t) for t in (x, model.w1, model.w2)]
        prediction, saved = model.forward_pass(*arrays)
        found = model.backward_pass(2 * (prediction - model.to_array(y)), saved)
    _, *grads = gradients_by_hand(x.numpy(), y.numpy(), *map(np.asarray, arrays[1:]))
    for one, grad in zip(found, grads, strict=True):
        np.testing.assert_allclose(np.asarray(one), grad, rtol=1e-12, atol=1e-12)


def test_hand_written_tensors_carry_no_history():
    model = TensorNet(5, 3, hidden=4)
    arrays = [model.to_array(t) for t in (torch.randn(6, 5), *model.parameters())]
    prediction, saved = model.forward_pass(*arrays)
    results = [prediction, *saved, *model.backward_pass(torch.ones_like(prediction), saved)]
    assert not any(t.requires_grad for t in results)


def test_numpy_arrays_share_memory_with_the_parameters():
    model = NumpyNet(5, 3, hidden=4)
    array = model.to_array(model.w1)
    with torch.no_grad():
        model.w1.fill_(7.0)
    assert (array == 7.0).all()


@pytest.mark.parametrize("culprit", ["x", "w1", "w2"])
def test_numpy_arrays_cannot_be_written_to(culprit):
    class Careless(NumpyNet):
        def forward_pass(self, x, w1, w2):
            {"x": x, "w1": w1, "w2": w2}[culprit] *= 2
            return super().forward_pass(x, w1, w2)

    with pytest.raises(ValueError, match="read-only"):
        Careless(5, 3)(torch.randn(2, 5))


@pytest.mark.parametrize("cls", BRIDGED)
def test_a_second_derivative_is_refused_instead_of_wrong(cls):
    model = cls(5, 3)
    loss = model(torch.randn(2, 5)).pow(2).sum()
    grad, _ = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("cls", BRIDGED)
def test_a_gradient_of_the_inputs_is_refused_instead_of_missing(cls):
    with pytest.raises(RuntimeError, match=f"{cls.__name__} computes no gradient of its inputs"):
        cls(5, 3)(torch.randn(2, 5, requires_grad=True))


@cache
def descent():
    return plain_script(500, lambda weights: torch.optim.SGD(weights, lr=1e-6))


def test_the_plain_script_gives_the_published_numbers():
    assert descent()[0] == pytest.approx(2.8305e7, rel=1e-4)
    assert descent()[99] == pytest.approx(384.074, rel=1e-5)
    assert descent()[499] == pytest.approx(9.358e-8, rel=1e-3)


@pytest.mark.parametrize("rung", RUNGS)
def test_rungs_follow_the_plain_script_for_500_steps(train, rung):
    run = train(f"model={rung}", "model.init=normal", "optim.lr=1e-6", "device.dtype=float64")
    assert losses(run) == pytest.approx(descent(), rel=1e-8, abs=0)


OPTIMIZERS = {  # what the script uses, what the command says, how close the losses must be
    "adam": (lambda w: torch.optim.Adam(w, lr=1e-2), "optim.lr=1e-2", 1e-8),
    "sgd_momentum": (lambda w: torch.optim.SGD(w, lr=1e-6, momentum=0.9), "optim.lr=1e-6", 1e-8),
    "rmsprop": (lambda w: torch.optim.RMSprop(w, lr=1e-3), "optim.lr=1e-3", 1e-8),
    "adagrad": (lambda w: torch.optim.Adagrad(w, lr=1e-2), "optim.lr=1e-2", 1e-8),
    "lbfgs": (
        lambda w: torch.optim.LBFGS(w, lr=0.1, max_iter=4, history_size=5),
        "optim.lr=0.1 optim.max_iter=4 optim.history_size=5 optim.line_search_fn=null",
        1e-6,
    ),
}


@cache
def reference(optimizer):
    return plain_script(20, OPTIMIZERS[optimizer][0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rung", RUNGS)
def test_rungs_follow_the_plain_script_under_every_optimizer(train, rung, optimizer):
    _, words, tolerance = OPTIMIZERS[optimizer]
    run = train(
        f"model={rung}", "model.init=normal", f"optim={optimizer}", *words.split(), "device.dtype=float64", "steps=20"
    )
    found = losses(run)
    assert found == pytest.approx(reference(optimizer), rel=tolerance, abs=0)
    assert found[-1] < found[0]


@pytest.mark.parametrize(
    ("words", "loss"),
    [
        *[((f"model={rung}", "model.init=normal", "optim.lr=1e-6"), 2.94287e7) for rung in RUNGS],
        (("model=sequential",), 628.284),
        (("model=two_layer",), 628.284),
        (("model=dynamic",), 620.634),
    ],
)
def test_first_loss_with_seed_0(train, words, loss):
    assert train(*words, "steps=1").steps[0]["loss"] == pytest.approx(loss, rel=1e-5)


def test_product_climbs_to_15(train):
    rows = train("model=product", "optim.lr=3e-3", "steps=101").steps
    assert rows[0]["loss"] == 9.0
    assert rows[0]["parameters"] == pytest.approx({"a": 3.0720, "b": 4.0540}, abs=5e-5)
    assert rows[100]["parameters"] == pytest.approx({"a": 3.4505, "b": 4.3472}, abs=5e-5)
    assert rows[100]["parameters"]["a"] * rows[100]["parameters"]["b"] == pytest.approx(15, abs=5e-4)


def test_product_gradients_are_the_other_number():
    model = Product()
    model().backward()
    assert (model.a.grad.item(), model.b.grad.item()) == (4.0, 3.0)


def test_product_starts_from_what_it_is_given(train):
    rows = train("model=product", "model.a=2", "data.target=9", "optim.lr=0.0", "steps=1").steps
    assert rows[0]["parameters"] == {"a": 2.0, "b": 4.0}
    assert rows[0]["loss"] == 1.0


def test_dynamic_trains_as_a_plain_script_does(train):
    random.seed(0)
    torch.manual_seed(0)
    x, y = torch.randn(64, 1000), torch.randn(64, 10)
    first, middle, last = nn.Linear(1000, 100), nn.Linear(100, 100), nn.Linear(100, 10)
    weights = [*first.parameters(), *middle.parameters(), *last.parameters()]
    optimizer = torch.optim.SGD(weights, lr=1e-4, momentum=0.9)
    expected = []
    for _ in range(30):
        h = first(x).clamp(min=0)
        for _ in range(random.randint(0, 3)):
            h = middle(h).clamp(min=0)
        loss = (last(h) - y).pow(2).sum()
        expected.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses(train("model=dynamic", "optim=sgd_momentum", "steps=30")) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cls", [SequentialNet, TwoLayerNet])
def test_modules_hold_two_linear_layers_with_biases(cls):
    model = cls(5, 3, hidden=4)
    x = torch.randn(6, 5)
    w1, b1, w2, b2 = model.parameters()
    torch.testing.assert_close(model(x), (x @ w1.T + b1).clamp(min=0) @ w2.T + b2)


def test_dynamic_draws_its_depth_from_python_random():
    model, x = DynamicNet(5, 3, hidden=4), torch.randn(2, 5)
    random.seed(1)
    expected = [random.randint(0, 3) for _ in range(100)]
    random.seed(1)
    torch_state = torch.get_rng_state()
    assert depths(model, x, 100) == expected
    assert set(expected) == {0, 1, 2, 3}
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_dynamic_shares_one_middle_layer(monkeypatch):
    model, x = DynamicNet(5, 3, hidden=4).double(), torch.randn(2, 5).double()
    assert [tuple(w.shape) for w in model.parameters()] == [(4, 5), (4,), (4, 4), (4,), (3, 4), (3,)]
    monkeypatch.setattr(random, "randint", lambda low, high: high)
    h = model.input_linear(x).clamp(min=0)
    copies = [model.middle_linear.weight.detach().clone().requires_grad_() for _ in range(3)]
    for weight in copies:
        h = F.linear(h, weight, model.middle_linear.bias).clamp(min=0)
    model.output_linear(h).sum().backward()
    model.zero_grad()
    model(x).sum().backward()
    torch.testing.assert_close(model.middle_linear.weight.grad, sum(weight.grad for weight in copies))


@pytest.mark.parametrize("dims", [[3, 2], [3, 2, 5], [20, 30, 30, 40]])
def test_linear_stack_is_a_product_of_its_layers(dims):
    inputs, *sizes, outputs = dims
    model = LinearStack(inputs, outputs, sizes)
    x = torch.randn(7, inputs)
    expected = x
    weights = list(model.parameters())
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        expected = expected @ weight.T + bias
    torch.testing.assert_close(model(x), expected)
    assert [tuple(w.shape) for w in weights[::2]] == list(zip(dims[1:], dims, strict=False))


def test_linear_is_one_layer():
    model, x = LinearNet(5, 3), torch.randn(6, 5)
    weight, bias = model.parameters()
    torch.testing.assert_close(model(x), x @ weight.T + bias)


@pytest.mark.parametrize("model", [LinearNet(12, 3), MLP(12, 3, [4])])
def test_rows_of_any_shape_are_flattened(model):
    images = torch.randn(6, 3, 2, 2)
    torch.testing.assert_close(model(images), model(images.reshape(6, 12)))


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", lambda h: h.clamp(min=0)),
        ("leaky_relu", lambda h: torch.where(h > 0, h, 0.01 * h)),
        ("elu", lambda h: torch.where(h > 0, h, h.exp() - 1)),
        ("gelu", lambda h: h * (1 + torch.erf(h / 2**0.5)) / 2),
        ("silu", lambda h: h / (1 + (-h).exp())),
        ("tanh", lambda h: (h.exp() - (-h).exp()) / (h.exp() + (-h).exp())),
        ("sigmoid", lambda h: 1 / (1 + (-h).exp())),
    ],
)
def test_mlp_applies_its_activation_between_layers(activation, function):
    model, x = MLP(5, 3, [4, 6], activation).double(), torch.randn(7, 5).double()
    w1, b1, w2, b2, w3, b3 = model.parameters()
    h = function(x @ w1.T + b1)
    torch.testing.assert_close(model(x), function(h @ w2.T + b2) @ w3.T + b3)


@pytest.mark.parametrize(("norm", "axis"), [("batch", 0), ("layer", 1)])
def test_mlp_normalizes_before_the_activation(norm, axis):
    model, x = MLP(5, 3, [4], norm=norm).double(), torch.randn(7, 5).double()
    w1, b1, _, _, w2, b2 = model.parameters()
    h = x @ w1.T + b1
    h = (h - h.mean(axis, keepdim=True)) / (h.var(axis, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(model(x), h.clamp(min=0) @ w2.T + b2)


def test_mlp_drops_hidden_numbers_in_training_only():
    torch.manual_seed(0)
    model, x = MLP(5, 400, [300], dropout=0.25), torch.randn(1, 5)
    seen = []
    model.layers[-1].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model(x)
    model.eval()
    model(x)
    dropped, whole = seen
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)
    assert (~kept & (whole != 0)).sum() / (whole != 0).sum() == pytest.approx(0.25, abs=0.08)


def test_mlp_without_hidden_layers_is_linear():
    assert [tuple(w.shape) for w in MLP(5, 3, []).parameters()] == [(3, 5), (3,)]


@pytest.mark.parametrize(
    "make",
    [*(partial(cls, 6, 3) for cls in NETS.values()), partial(MLP, 6, 3, norm="batch"), partial(Product, init="normal")],
)
def test_a_state_dict_carries_a_model_over(make):
    model, other = make(), make()
    inputs = () if make.func is Product else (torch.randn(5, 6),)
    model(*inputs)  # moves running statistics
    other.load_state_dict(model.state_dict())
    predictions = []
    for one in (model, other):
        random.seed(0)
        predictions.append(one.eval()(*inputs))
    assert torch.equal(*predictions)


@pytest.mark.parametrize("cls", NETS.values())
def test_init_normal_is_standard_normal(cls):
    torch.manual_seed(0)
    for parameter in cls(500, 400, init="normal").parameters():
        low, middle, high = parameter.detach().flatten().quantile(torch.tensor([0.1587, 0.5, 0.8413])).tolist()
        spread = 5 / parameter.numel() ** 0.5
        assert (low, middle, high) == pytest.approx((-1, 0, 1), abs=spread)


@pytest.mark.parametrize("cls", NETS.values())
def test_init_linear_is_uniform_within_one_over_the_root_of_the_inputs(cls):
    torch.manual_seed(0)
    model = cls(400, 500)
    weights = [w for w in model.parameters() if w.ndim == 2]
    fan_ins = [w.shape[0] if cls in RUNGS.values() else w.shape[1] for w in weights]
    for weight, fan_in in zip(weights, fan_ins, strict=True):
        bound = fan_in**-0.5
        assert 0.99 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize(("init", "limit"), [("linear", 1.0), ("normal", 6.0)])
def test_product_can_be_drawn(init, limit):
    torch.manual_seed(0)
    drawn = torch.tensor([[w.item() for w in Product(init=init).parameters()] for _ in range(300)])
    assert drawn.abs().max() <= limit
    assert drawn.std(0).tolist() == pytest.approx([{"linear": 3**-0.5, "normal": 1.0}[init]] * 2, rel=0.15)


@pytest.mark.parametrize("cls", NETS.values())
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": 0}, "inputs=0 must be at least 1"),
        ({"outputs": -1}, "outputs=-1 must be at least 1"),
        ({"init": "xavier"}, "init=xavier must be linear or normal"),
    ],
)
def test_constructors_refuse_what_cannot_learn(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        cls(**{"inputs": 4, "outputs": 3, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "swish"}, "activation=swish must be one of relu, "),
        ({"norm": "group"}, "norm=group must be one of none, batch, layer"),
    ],
)
def test_mlp_refuses_words_it_does_not_know(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(4, 3, **arguments)


@pytest.mark.parametrize("option", NETS)
def test_widths_other_than_those_of_the_data_are_refused(cli, option):
    assert_refused(
        cli("run", f"model={option}", "model.inputs=5"), "error: model.inputs=5: data=random has 1000 inputs"
    )
    assert_refused(
        cli("run", f"model={option}", "model.outputs=3"), "error: model.outputs=3: data=random has 10 outputs"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("model=numpy model.hidden=0", "model.hidden=0: must be at least 1"),
        ("model=two_layer model.hidden=-3", "model.hidden=-3: must be at least 1"),
        ("model=linear_stack model.sizes=[8,0]", "model.sizes=[8,0]: must be at least 1"),
        ("model=mlp model.sizes=[0]", "model.sizes=[0]: must be at least 1"),
        ("model=mlp model.sizes=8", "model.sizes=8: is not a list of whole numbers, as in [8,8]"),
        ("model=mlp model.dropout=1.5", "model.dropout=1.5: must be at least 0 and below 1"),
        ("model=mlp model.dropout=-0.1", "model.dropout=-0.1: must be at least 0 and below 1"),
        ("model=mlp model.activation=rel", "did you mean model.activation=relu?"),
        ("model=mlp model.norm=batchnorm", "did you mean model.norm=batch?"),
        ("model=sequential model.init=norml", "did you mean model.init=normal?"),
        ("model=numpy device.dtype=bfloat16", "NumPy has no bfloat16; use device.dtype=float32"),
        ("model=product data=random", "the model takes no inputs and the data have some; allowed: data=none"),
        ("model=two_layer data=none", "the data have none; allowed: model=product with data=none"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(cli, words, message):
    assert_refused(cli("run", *words.split()), message)


def assert_refused(result, message):
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not Path("runs").exists()


def test_numpy_refuses_other_devices_in_words():
    with pytest.raises(ValueError, match="NumPy computes on the CPU, not on meta; use device=cpu"):
        NumpyNet(5, 3).to_array(torch.empty(1, device="meta"))


NUMBERS = ["device.dtype=float64", "device.dtype=bfloat16", "device.amp=true"]


@pytest.mark.parametrize(
    ("option", "words"), sorted({*product([*NETS, "product"], NUMBERS)} - {("numpy", "device.dtype=bfloat16")})
)
def test_every_model_trains_in_other_numbers(train, option, words):
    lr = 3e-3 if option == "product" else 1e-4  # bfloat16 rounds smaller steps of two numbers away
    first, *_, last = losses(train(f"model={option}", words, "steps=5", f"optim.lr={lr}"))
    assert option == "dynamic" or last < first


@pytest.mark.parametrize("rung", ["numpy", "tensor"])
def test_hand_written_passes_stay_in_float32_under_autocast(train, rung):
    plain = train(f"model={rung}", "steps=20", name="plain")
    assert losses(train(f"model={rung}", "steps=20", "device.amp=true", name="amp")) == losses(plain)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_an_option_says_what_it_is_and_names_a_public_class(file):
    comment, *_ = file.read_text().splitlines()
    assert comment.startswith("# ")
    module, _, name = yaml.safe_load(file.read_text())["_target_"].rpartition(".")
    assert module == "trainer.models"
    assert name in models.__all__


def test_every_public_model_is_an_option():
    targets = [yaml.safe_load(file.read_text())["_target_"] for file in CONFIGS.glob("*.yaml")]
    assert sorted(targets) == sorted(f"trainer.models.{name}" for name in models.__all__)
