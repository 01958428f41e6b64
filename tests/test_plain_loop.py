"""Runs of random settings have the losses and weights of a plain loop in float64 that is written out here."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from torch import nn

from trainer import randomness

CONFIGS = Path(__file__).parents[1] / "configs"
# sparse_adam takes only sparse gradients: test_optimizers.py has it
OPTIMIZERS = sorted({file.stem for file in (CONFIGS / "optim").glob("*.yaml")} - {"sparse_adam"})
LOSSES = sorted({file.stem for file in (CONFIGS / "loss").glob("*.yaml")} - {"auto"})
SCHEDULES = sorted(file.stem for file in (CONFIGS / "schedule").glob("*.yaml"))
ROWS, HELD_OUT, INPUTS, HIDDEN, OUTPUTS = 24, 8, 5, 4, 3
RATES = {"adadelta": 0.5, "lbfgs": 0.5, "adafactor": 0.01, "adagrad": 0.01, "rprop": 0.001, "muon": 0.01}


class Case:
    """A run with settings drawn from a number; the options of each group come in turn, so that none is left out."""

    def __init__(self, number: int) -> None:
        draw = random.Random(number)
        self.optim = OPTIMIZERS[number % len(OPTIMIZERS)]
        self.loss = LOSSES[number % len(LOSSES)]
        if self.optim == "lbfgs" and self.loss in ("difference", "l1"):  # no minimum, and kinks that stop a line search
            self.loss = "mse"
        self.schedule = SCHEDULES[number // len(OPTIMIZERS) % len(SCHEDULES)]
        self.seed, self.steps = draw.randrange(10**6), draw.randint(5, 12)
        self.batch_size = draw.choice([ROWS, 3, 5, 7, 12])
        if self.optim == "lbfgs":  # over batches its steps hang on last digits alone
            self.batch_size = ROWS
        self.accumulate = draw.choice([1, 2, 3]) if self.batch_size < 12 else 1
        self.clip = (None, 0.05, 1.0, 1e6)[number // 2 % 4]
        self.reduction = draw.choice(["mean", "sum"]) if self.loss not in ("sse", "difference") else "sum"
        self.lr = RATES.get(self.optim, 0.003) * draw.uniform(0.2, 1) / (10 if self.reduction == "sum" else 1)
        self.weight_decay = draw.choice([0.0, 0.01])
        self.eval_every, self.patience, self.drop = draw.randint(1, 2), draw.randint(0, 1), draw.uniform(0.2, 0.7)
        self.final, self.gamma = draw.uniform(0, 0.5), draw.uniform(0.3, 0.9)
        self.every, self.warmup, self.rise = draw.randint(1, 4), draw.randint(0, 4), draw.uniform(0, 0.6)
        self.delta = draw.uniform(0.3, 2)
        config = yaml.safe_load((CONFIGS / "optim" / f"{self.optim}.yaml").read_text())
        self.target = config.pop("_target_").rpartition(".")[2]
        if "weight_decay" in config:
            config["weight_decay"] = self.weight_decay
        if self.optim == "lbfgs":
            config["max_iter"] = 3
        config.pop("fused", None)
        self.arguments = {**config, "lr": self.lr}
        numbers = np.random.default_rng(number)
        self.x = numbers.normal(size=(ROWS + HELD_OUT, INPUTS))
        self.y = numbers.normal(size=(ROWS + HELD_OUT, OUTPUTS))
        if self.loss == "bce":
            self.y = numbers.uniform(size=self.y.shape)
        if self.loss == "cross_entropy":
            self.y = np.arange(ROWS + HELD_OUT)[:, None] % OUTPUTS

    def words(self):
        targets = [f"y{column}" for column in range(self.y.shape[1])]
        words = [
            *("data=csv", "data.path=t.csv", f"data.target=[{','.join(targets)}]", "data.split=part"),
            *("data.standardize=false", "device.dtype=float64", f"seed={self.seed}", f"steps={self.steps}"),
            *(f"model={'autograd' if self.optim == 'muon' else 'two_layer'}", f"model.hidden={HIDDEN}"),
            *(f"batch_size={self.batch_size}", f"accumulate={self.accumulate}", f"loss={self.loss}"),
            *(f"optim={self.optim}", f"optim.lr={self.lr!r}", f"eval_every={self.eval_every}"),
            *(f"schedule={self.schedule}", *SCHEDULE_WORDS[self.schedule](self)),
        ]
        if self.loss not in ("sse", "difference"):
            words.append(f"loss.reduction={self.reduction}")
        if self.loss == "huber":
            words.append(f"loss.delta={self.delta!r}")
        if "weight_decay" in self.arguments:
            words.append(f"optim.weight_decay={self.weight_decay}")
        return [
            *words,
            *([f"clip_norm={self.clip}"] if self.clip else []),
            *(["optim.max_iter=3"] if self.optim == "lbfgs" else []),
        ]

    def write(self):
        columns = {f"x{index}": self.x[:, index] for index in range(INPUTS)}
        columns |= {f"y{index}": self.y[:, index] for index in range(self.y.shape[1])}
        pl.DataFrame({**columns, "part": ["train"] * ROWS + ["validation"] * HELD_OUT}).write_csv("t.csv")


SCHEDULE_WORDS = {
    "constant": lambda case: [],
    "cosine": lambda case: [f"schedule.final={case.final!r}"],
    "one_cycle": lambda case: [f"schedule.pct_start={case.rise!r}", "schedule.div_factor=10"],
    "plateau": lambda case: [f"schedule.patience={case.patience}", f"schedule.factor={case.drop!r}"],
    "step": lambda case: [f"schedule.step_size={case.every}", f"schedule.gamma={case.gamma!r}"],
    "warmup_cosine": lambda case: [f"schedule.warmup={case.warmup}", f"schedule.final={case.final!r}"],
}


def half_cosine(start, end, part):
    return end + (start - end) * (1 + math.cos(math.pi * min(part, 1.0))) / 2


def factor(case, step):
    """The learning rate of a step, counted from 0, as a part of optim.lr; Plateau is in the loop."""
    if case.schedule == "cosine":
        return half_cosine(1, case.final, step / case.steps)
    if case.schedule == "step":
        return case.gamma ** (step // case.every)
    if case.schedule == "warmup_cosine":
        if step < case.warmup:
            return (step + 1) / (case.warmup + 1)
        return half_cosine(1, case.final, (step - case.warmup) / (case.steps - case.warmup))
    if case.schedule == "one_cycle":
        peak = case.rise * case.steps - 1
        if step < peak:
            return half_cosine(0.1, 1, step / peak)
        return half_cosine(1, 1e-5, (step - peak) / (case.steps - 1 - peak))
    return 1.0


def loss_of(case, prediction, y):
    """The loss of some rows, from its definition."""
    if case.loss == "difference":
        return y.sum() - prediction.sum()
    if case.loss == "cross_entropy":
        each = prediction.logsumexp(1) - prediction.gather(1, y.long())[:, 0]
    elif case.loss == "bce":
        each = prediction.clamp(min=0) - prediction * y + torch.log1p(torch.exp(-prediction.abs()))
    else:
        error = (prediction - y).abs()
        each = {
            "l1": error,
            "huber": torch.where(error <= case.delta, error**2 / 2, case.delta * (error - case.delta / 2)),
        }.get(case.loss, error**2)
    return each.mean() if case.reduction == "mean" else each.sum()


def first_weights(case):
    torch.manual_seed(case.seed)
    if case.optim == "muon":
        sizes = ((INPUTS, HIDDEN), (HIDDEN, OUTPUTS))
        return [torch.empty(size, dtype=torch.float64).uniform_(-(size[0] ** -0.5), size[0] ** -0.5) for size in sizes]
    layers = nn.Linear(INPUTS, HIDDEN, dtype=torch.float64), nn.Linear(HIDDEN, OUTPUTS, dtype=torch.float64)
    return [w.detach() for layer in layers for w in (layer.weight, layer.bias)]


def forward(weights, x):
    if len(weights) == 2:
        return (x @ weights[0]).clamp(min=0) @ weights[1]
    first, bias, second, last = weights
    return (x @ first.T + bias).clamp(min=0) @ second.T + last


def descend(case, weights):
    """The optimizer: torch's class without its quick variants; plain descent needs none."""
    if case.target == "GradientDescent":
        return torch.optim.SGD(weights, lr=case.lr)
    return getattr(torch.optim, case.target)(weights, **case.arguments)


def plain_loop(case, moved=None):
    """The losses of the steps, of the evaluations, and the last weights; `moved` draws last digits of the first."""
    weights = first_weights(case)
    if moved is not None:
        weights = [w * (1 + 2e-16 * torch.randn(w.shape, generator=moved, dtype=w.dtype)) for w in weights]
    weights = [w.requires_grad_() for w in weights]
    x, y = torch.from_numpy(case.x), torch.from_numpy(case.y)
    optimizer, losses, evaluations = descend(case, weights), [], []
    size = min(case.batch_size * case.accumulate, ROWS)
    per_epoch = -(-ROWS // size)
    dropped, best, stale = 1.0, math.inf, 0
    for step in range(case.steps):
        epoch, place = divmod(step, per_epoch)
        order = randomness.permutation(ROWS, randomness.derived(case.seed, randomness.ORDER, epoch))
        rows = order[place * size : (place + 1) * size] if case.batch_size < ROWS else torch.arange(ROWS)
        for group in optimizer.param_groups:
            group["lr"] = case.lr * (dropped if case.schedule == "plateau" else factor(case, step))

        def closure(rows=rows):
            for w in weights:
                w.grad = None
            loss = loss_of(case, forward(weights, x[rows]), y[rows])
            loss.backward()
            if case.clip:
                norm = math.sqrt(sum(float(w.grad.square().sum()) for w in weights))
                for w in weights:
                    w.grad *= min(1.0, case.clip / (norm + 1e-6))
            return loss.detach()

        losses.append(float(optimizer.step(closure)))
        if (step + 1) % case.eval_every == 0:
            with torch.no_grad():
                value = float(loss_of(case, forward(weights, x[ROWS:]), y[ROWS:]))
            evaluations.append(value)
            if value < best - (1e-4 * abs(best) if math.isfinite(best) else 0):
                best, stale = value, 0
            else:
                stale += 1
            if stale > case.patience:
                dropped, stale = max(dropped * case.drop, 1e-6), 0
    return losses, evaluations, [w.detach() for w in weights]


def tolerance(case, weights):
    """How near to expect a run to the loop, whose sums are rounded in another order.

    A line search takes another branch for another last digit, so L-BFGS is given ten times what loops differ by that
    start a last digit apart.
    """
    if case.optim != "lbfgs":
        return 1e-7
    moved = torch.Generator().manual_seed(0)
    others = [plain_loop(case, moved)[2] for _ in range(16)]
    apart = max(float((a - b).abs().max()) for other in others for a, b in zip(other, weights, strict=True))
    assert apart < 0.01
    return 1e-7 + 10 * apart


def check(train, number):
    case = Case(number)
    case.write()
    run = train(*case.words(), name=f"run-{number}")
    losses, evaluations, weights = plain_loop(case)
    near = tolerance(case, weights)
    assert [row["loss"] for row in run.steps] == pytest.approx(losses, rel=near, abs=near), case.words()
    found = [row["validation_loss"] for row in run.evaluations]
    assert found == pytest.approx(evaluations, rel=near, abs=near), case.words()
    by_name = run.weights()
    for one, expected in zip(map(by_name.get, sorted(by_name, key=order_of)), weights, strict=True):
        assert torch.allclose(one, expected, rtol=near, atol=near), case.words()
    first = first_weights(case)
    assert any(not torch.equal(a, b) for a, b in zip(first, weights, strict=True)), case.words()


def order_of(name):
    """linear1.weight, linear1.bias, linear2.weight, linear2.bias; or w1, w2."""
    layer, _, kind = name.partition(".")
    return layer, kind != "weight"


@pytest.mark.parametrize("number", range(len(OPTIMIZERS)))
def test_random_settings_follow_a_plain_loop(train, number):
    check(train, number * (len(OPTIMIZERS) + 1))  # the schedules in turn, too


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1000, 1000 + 6 * len(OPTIMIZERS) * len(SCHEDULES)))
def test_many_random_settings_follow_a_plain_loop(train, number):
    check(train, number)


def test_the_cases_of_the_suite_have_every_option():
    cases = [Case(number * (len(OPTIMIZERS) + 1)) for number in range(len(OPTIMIZERS))]
    assert {case.optim for case in cases} == {*OPTIMIZERS}
    assert {case.schedule for case in cases} == {*SCHEDULES}
    assert {case.loss for case in cases} == {*LOSSES}
    assert {case.clip is None for case in cases} == {case.accumulate > 1 for case in cases} == {True, False}
