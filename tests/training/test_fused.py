"""Updates without the bookkeeping leave the bits and the state that `optimizer.step` leaves."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, Muon, Optimizer, RMSprop, SparseAdam

from trainer import optimizers
from trainer.training import fused, torch_private

SHIPPED = {
    file.stem: yaml.safe_load(file.read_text()) for file in (Path(__file__).parents[2] / "configs/optim").glob("*.yaml")
}

CASES: list[tuple[type[torch.optim.Optimizer], dict[str, object]]] = [
    (SGD, {"fused": True}),
    (SGD, {}),
    (SGD, {"weight_decay": 0.01, "maximize": True}),
    (SGD, {"foreach": True}),
    (SGD, {"momentum": 0.9}),
    (SGD, {"momentum": 0.9, "fused": True}),
    (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "fused": True}),
    (SGD, {"momentum": 0.9, "dampening": 0.5, "maximize": True, "fused": True}),
    (Adam, {"fused": True}),
    (Adam, {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.01, "amsgrad": True, "fused": True}),
    (AdamW, {"maximize": True, "fused": True}),
    (AdamW, {"amsgrad": True, "fused": True}),
    (Adagrad, {"lr_decay": 0.01, "weight_decay": 0.01, "fused": True}),
    (Adagrad, {"maximize": True, "initial_accumulator_value": 0.1, "fused": True}),
]


def parts(cls, settings, dtype):
    """A model whose second half has settings of its own, and whose last weight never gets a gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(37, 53), nn.Tanh(), nn.Linear(53, 7), nn.Linear(1, 1)).to(dtype)
    groups = [{"params": list(model[0].parameters())}, {"params": list(model[2:].parameters()), "lr": 0.003}]
    return model, cls(groups, lr=0.01, **settings), torch.randn(19, 37, dtype=dtype), torch.randn(19, 7, dtype=dtype)


def train(cls, settings, dtype, step: Callable[..., float]):
    model, optimizer, x, y = parts(cls, settings, dtype)
    losses = []
    for number in range(60):
        for group, lr in zip(optimizer.param_groups, (0.01, 0.003), strict=True):
            group["lr"] = lr / (1 + number / 30)

        def gradients() -> float:
            optimizer.zero_grad()
            loss = (model[:3](x) - y).square().mean()
            loss.backward()
            return loss.item()

        losses.append(step(optimizer, gradients))
    return losses, [*model.parameters()], optimizer.state_dict()


def assert_same(one, other):
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("cls", "settings"), CASES)
def test_bits_and_state_are_those_of_torch(cls, settings, dtype):
    if cls is SGD and "momentum" in settings and "fused" in settings and dtype == torch.bfloat16:
        pytest.skip("torch's own kernel gives other bits each time")
    ours = train(cls, settings, dtype, fused.step)
    assert_same(ours, train(cls, settings, dtype, lambda optimizer, closure: optimizer.step(closure)))
    assert ours[0][-1] < ours[0][0] or settings.get("maximize") or dtype == torch.bfloat16


@pytest.fixture
def fresh():
    """Let what was found out about the installed torch be found out again, before and after."""
    caches = (fused._agrees, torch_private._checks, torch_private.undecorated)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def shipped(name, dtype):
    """An optimizer with the settings of its file, over a small model that it can train, and a closure."""
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in SHIPPED[name].items()}
    module, _, target = settings.pop("_target_").rpartition(".")
    cls = getattr(optimizers if module == "trainer.optimizers" else torch.optim, target)
    torch.manual_seed(0)
    x, y = torch.randn(19, 37, dtype=dtype), torch.randn(19, 7, dtype=dtype)
    bias = cls is not Muon
    model = nn.Sequential(nn.Linear(37, 53, bias=bias), nn.Tanh(), nn.Linear(53, 7, bias=bias)).to(dtype)
    if cls is SparseAdam:
        x, model = torch.randint(37, (19,)), nn.Sequential(nn.Embedding(37, 7, sparse=True)).to(dtype)
    optimizer = cls(model.parameters(), **settings)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss.item()

    return model, optimizer, closure


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_shipped_optimizer_has_the_bits_and_the_state_of_its_own_step(name, dtype):
    found = []
    for step in (fused.step, lambda optimizer, closure: float(optimizer.step(closure))):
        model, optimizer, closure = shipped(name, dtype)
        losses = []
        for number in range(8):
            for group in optimizer.param_groups:
                group["lr"] = SHIPPED[name]["lr"] / (1 + number / 4)
            losses.append(step(optimizer, closure))
        found.append((losses, [*model.parameters()], optimizer.state_dict()))
    assert_same(*found)
    assert found[0][0][-1] < found[0][0][0]


def used(monkeypatch, name="_fused_sgd_"):
    """Count the calls of a private function of torch."""
    calls, own = [], getattr(torch, name)
    monkeypatch.setattr(torch, name, lambda *args, **options: calls.append(1) or own(*args, **options))
    return calls


def counting_hook(monkeypatch):
    """Count the steps that are taken with torch's bookkeeping, which calls this at the end of each."""
    calls = []
    monkeypatch.setattr(Optimizer, "_optimizer_step_code", lambda self: calls.append(1))
    return calls


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - {"lbfgs"}))
def test_no_bookkeeping_of_torch_runs_for_shipped_optimizers(name, monkeypatch):
    _, optimizer, closure = shipped(name, torch.float32)
    calls = counting_hook(monkeypatch)
    for _ in range(3):
        fused.step(optimizer, closure)
    assert calls == []
    optimizer.step(closure)
    assert calls == [1]


def test_no_bookkeeping_of_torch_runs_where_the_compiler_has_been_kept_out_of_a_step(monkeypatch):
    monkeypatch.setattr(SparseAdam, "step", torch.compiler.disable(SparseAdam.step))  # as torch.compile does
    _, optimizer, closure = shipped("sparse_adam", torch.float32)
    calls = counting_hook(monkeypatch)
    fused.step(optimizer, closure)
    assert calls == []


@pytest.mark.parametrize("cls", [SGD, Adam, AdamW])
def test_the_kernel_is_called_directly(cls, monkeypatch):
    model, optimizer, x, y = parts(cls, {"fused": True}, torch.float32)
    (model[:3](x) - y).square().mean().backward()
    optimizer.step()
    fused.step(optimizer, lambda: 1.5)  # tries the kernel out
    before = [w.detach().clone() for w in model.parameters()]

    def own_step(self):
        raise AssertionError("the optimizer takes the step itself")

    monkeypatch.setattr(torch_private, "undecorated", lambda step: own_step)
    assert fused.step(optimizer, lambda: 1.5) == 1.5
    assert not torch.equal(before[0], model[0].weight)
    assert torch.equal(before[-1], model[3].bias)


def twice(step):
    """Decorate a step so that it is taken twice."""

    @functools.wraps(step)
    def decorated(self, closure=None):
        loss = step(self, closure)
        step(self)
        return loss

    return decorated


class Decorated(SGD):
    step = twice(SGD.step)


class DecoratedRMSprop(RMSprop):
    step = twice(RMSprop.step)


class Written(SGD):
    def step(self, closure=None):
        loss = super().step(closure)
        super().step()
        return loss


@pytest.mark.parametrize("cls", [Decorated, DecoratedRMSprop, Written])
def test_a_step_of_a_user_keeps_what_is_around_it(cls):
    found = []
    for step in (fused.step, lambda optimizer, closure: optimizer.step(closure)):
        model, optimizer, x, y = parts(cls, {}, torch.float32)
        step(optimizer, lambda m=model, x=x, y=y: (m[:3](x) - y).square().mean().backward() or 0.0)
        found.append([*model.parameters()])
    assert_same(*found)
    plain, optimizer, x, y = parts(cls.__base__, {}, torch.float32)
    fused.step(optimizer, lambda: (plain[:3](x) - y).square().mean().backward() or 0.0)
    assert not torch.equal(plain[0].weight, found[0][0])


def test_a_class_of_torch_that_a_user_decorated_keeps_that(monkeypatch):
    model, optimizer, x, y = parts(SGD, {}, torch.float32)
    calls, own = [], SGD.step
    monkeypatch.setattr(SGD, "step", functools.wraps(own)(lambda *args: calls.append(1) or own(*args)))
    fused.step(optimizer, lambda: (model[:3](x) - y).square().mean().backward() or 0.0)
    assert calls == [1]


def test_a_profiler_sees_the_steps():
    model, optimizer, x, y = parts(RMSprop, {}, torch.float32)
    with torch.profiler.profile() as profile:
        fused.step(optimizer, lambda: (model[:3](x) - y).square().mean().backward() or 0.0)
    assert any(event.key == "Optimizer.step#RMSprop.step" for event in profile.key_averages())


@pytest.mark.parametrize("settings", [{"differentiable": True}, {"lr": torch.tensor(0.01)}])
def test_unusual_settings_have_the_result_of_the_optimizers_step(settings, monkeypatch):
    found = []
    calls = counting_hook(monkeypatch)
    for step in (fused.step, lambda optimizer, closure: optimizer.step(closure)):
        w = torch.ones(3, requires_grad=True)
        optimizer = SGD([w.clone() if "differentiable" in settings else w], **settings)
        (one,) = optimizer.param_groups[0]["params"]

        def closure(one=one) -> float:
            one.grad = torch.full((3,), 2.0)
            return 0.0

        step(optimizer, closure)
        found.append(one.detach())
    assert torch.equal(*found)
    assert len(calls) == (2 if "differentiable" in settings else 1)


def test_a_grad_scaler_unscales_before_the_update(monkeypatch):
    model, optimizer, x, y = parts(Adam, {"fused": True}, torch.float32)
    closure = lambda: (model[:3](x) - y).square().mean().backward() or 0.0  # noqa: E731
    fused.step(optimizer, closure)
    before = copy.deepcopy([*model.parameters()])
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(8.0), torch.tensor(1.0)
    fused.step(optimizer, closure)  # as GradScaler.step calls it: what is found to be infinite is left out
    assert_same([*model.parameters()], before)


def test_torchs_l_bfgs_evaluates_its_closure_several_times():
    w = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer, calls = LBFGS([w]), []

    def closure() -> float:
        calls.append(1)
        optimizer.zero_grad()
        loss = (w**4).sum()
        loss.backward()
        return loss.item()

    fused.step(optimizer, closure)
    assert len(calls) > 1


@pytest.mark.parametrize("weight", [lambda: torch.randn(6, 4)[:, :2], lambda: torch.randn(2, 6).t()])
def test_weights_that_do_not_lie_side_by_side_are_left_to_the_optimizer(weight):
    x = torch.randn(5, 6)
    found = []
    for step in (fused.step, lambda optimizer, closure: optimizer.step(closure)):
        torch.manual_seed(1)
        w = nn.Parameter(weight())
        optimizer = SGD([w], lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            step(optimizer, lambda w=w: (x @ w).square().sum().backward() or 0.0)
        found.append(w.detach())
    assert torch.equal(*found)


def counting(optimizer):
    """Let what follows steps in torch count them: hooks, and a scheduler, which replaces the method."""
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    return seen


def test_hooks_are_called_as_by_the_optimizer_itself():
    model, optimizer, x, y = parts(Adam, {"fused": True}, torch.float32)
    seen = counting(optimizer)
    for _ in range(2):
        fused.step(optimizer, lambda: (model[:3](x) - y).square().mean().backward() or 0.0)
    assert seen == ["before", "after"] * 2


def test_a_scheduler_of_torch_sees_the_steps():
    model, optimizer, x, y = parts(SGD, {}, torch.float32)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    fused.step(optimizer, lambda: (model[:3](x) - y).square().mean().backward() or 0.0)
    scheduler.step()  # warns unless the optimizer has been stepped, and a warning fails


def test_all_private_names_work_in_the_versions_of_torch_that_they_were_tried_with(fresh, monkeypatch):
    if not torch.__version__.startswith(torch_private.TRIED):
        pytest.skip(f"torch {torch.__version__} has not been tried, only {', '.join(torch_private.TRIED)}")
    assert all(fused._agrees(cls, cls is SGD and bare) for cls in (SGD, Adam, AdamW) for bare in (True, False))
    assert torch_private._checks()
    assert not torch_private.is_followed(SGD([torch.ones(1)]))
    calls = used(monkeypatch)
    train(SGD, {}, torch.float32, fused.step)
    assert len(calls) > 100


@pytest.mark.parametrize("change", ["gone", "other signature", "other bits"])
@pytest.mark.parametrize("cls", [SGD, Adam, AdamW])
def test_the_step_is_taken_without_a_kernel_that_has_changed(cls, change, fresh, monkeypatch):
    def other_signature(weights, grads):
        pass

    def other_bits(weights, grads, *others, **options):
        weights[0].add_(1e-3)

    kernel = {"gone": None, "other signature": other_signature, "other bits": other_bits}[change]
    monkeypatch.setattr(torch_private, "fused_kernel", lambda name: kernel)
    for settings in ({}, {"fused": True}, {"fused": True, "weight_decay": 0.01}):
        expected = train(cls, settings, torch.float32, lambda optimizer, closure: optimizer.step(closure))
        assert_same(train(cls, settings, torch.float32, fused.step), expected)
    assert fused._agrees.cache_info().misses


def test_the_optimizer_takes_the_step_where_it_cannot_be_known_who_follows(monkeypatch):
    model, optimizer, x, y = parts(Adam, {"fused": True}, torch.float32)
    calls = counting_hook(monkeypatch)
    monkeypatch.delattr(torch.autograd.profiler, "_is_profiler_enabled")
    fused.step(optimizer, lambda: (model[:3](x) - y).square().mean().backward() or 0.0)
    assert calls == [1]


def checks(grads):
    before = [grad.clone() for grad in grads]
    found = torch_private.has_non_finite(grads)
    assert all(torch.equal(a, b) or not b.isfinite().all() for a, b in zip(before, grads, strict=True))
    return found


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [5, 5000])
def test_what_is_not_finite_is_found_and_huge_gradients_are_not(private, dtype, count, fresh, monkeypatch):
    if not private:
        monkeypatch.delattr(torch, "_amp_foreach_non_finite_check_and_unscale_")
    assert torch_private._checks() == private
    huge = torch.full((count,), 1e36, dtype=dtype)  # 5000 of them sum to infinity in float32
    assert not checks([huge, torch.ones(3, dtype=dtype)])
    for wrong in (math.inf, -math.inf, math.nan):
        bad = huge.clone()
        bad[-1] = wrong
        assert checks([torch.ones(3, dtype=dtype), bad])


def test_numbers_are_added_one_by_one_where_torch_has_no_call_for_all(monkeypatch):
    monkeypatch.delattr(torch, "_foreach_add_")
    tensors = [torch.zeros(()), torch.ones(())]
    torch_private.add(tensors, 1)
    assert tensors == [1, 2]


def test_a_closure_that_raises_leaves_weights_and_state():
    model, optimizer, x, y = parts(AdamW, {"fused": True}, torch.float32)
    fused.step(optimizer, lambda: (model[:3](x) - y).square().mean().backward() or 0.0)
    before = copy.deepcopy((list(model.parameters()), optimizer.state_dict()))

    def fails() -> float:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fused.step(optimizer, fails)
    assert_same((list(model.parameters()), optimizer.state_dict()), before)
