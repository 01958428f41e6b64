"""Schedules against those of torch.optim.lr_scheduler, alone and in a run."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from trainer.schedules import Constant, Cosine, OneCycle, Plateau, Step, WarmupCosine

LR = 0.3


def torchs(steps, make):
    """The learning rates of `steps` steps under one of torch's schedules."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the order of the very first steps
        scheduler = make(optimizer)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


def ours(schedule, steps):
    return [LR * schedule.factor(step) for step in range(steps)]


LENGTHS = st.integers(2, 300)


@given(LENGTHS, st.floats(0, 1))
def test_cosine(steps, final):
    expected = torchs(steps, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=steps, eta_min=final * LR))
    assert ours(Cosine(steps, final), steps) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(LENGTHS, st.integers(1, 100), st.floats(0.1, 1))
def test_step(steps, step_size, gamma):
    expected = torchs(steps, lambda o: lr_scheduler.StepLR(o, step_size, gamma))
    assert ours(Step(steps, step_size, gamma), steps) == pytest.approx(expected, rel=1e-9)


def test_step_drops_at_the_thirds_of_a_run():
    assert ours(Step(90), 90) == pytest.approx(torchs(90, lambda o: lr_scheduler.StepLR(o, 30)), rel=1e-9)


@given(LENGTHS, st.floats(0, 0.95), st.floats(1, 50), st.floats(1, 1e5))
@example(10, 0.3, 25.0, 1e4)
@example(7, 0.1, 25.0, 1e4)
def test_one_cycle(steps, pct_start, div, final_div):
    if abs(pct_start * steps - 1) < 1e-6:
        return  # torch divides by the zero steps of such a rise
    expected = torchs(
        steps - 1,
        lambda o: lr_scheduler.OneCycleLR(
            o,
            max_lr=LR,
            total_steps=steps,
            pct_start=pct_start,
            div_factor=div,
            final_div_factor=final_div,
            cycle_momentum=False,
        ),
    )
    found = ours(OneCycle(steps, pct_start, div, final_div), steps)
    assert found[:-1] == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert found[-1] == pytest.approx(LR / div / final_div)


def test_one_cycle_may_peak_at_the_first_step():
    assert OneCycle(10, pct_start=0.1).factor(0) == 1.0


@given(st.integers(1, 100), st.integers(1, 100), st.floats(0, 1))
def test_warmup_cosine(warmup, rest, final):
    def make(optimizer):
        rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        fall = lr_scheduler.CosineAnnealingLR(optimizer, T_max=rest, eta_min=final * LR)
        return lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[warmup])

    found = ours(WarmupCosine(warmup + rest, warmup, final), warmup + rest)
    assert found == pytest.approx(torchs(warmup + rest, make), rel=1e-6, abs=1e-9)
    assert max(found) == pytest.approx(LR)


def test_no_warmup_is_the_cosine():
    assert ours(WarmupCosine(50, 0, 0.1), 50) == ours(Cosine(50, 0.1), 50)


METRICS = st.lists(st.floats(1e-3, 1e3) | st.sampled_from([1.0, 0.99999, math.nan, math.inf]), max_size=60)


@given(
    METRICS,
    st.floats(0.1, 0.9),
    st.integers(0, 5),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.sampled_from(["min", "max"]),
)
def test_plateau(metrics, factor, patience, threshold, least, mode):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    reference = lr_scheduler.ReduceLROnPlateau(optimizer, mode, factor, patience, threshold, min_lr=least * LR, eps=0)
    schedule = Plateau(factor, patience, threshold, least)
    for step, metric in enumerate(metrics):
        if metric == math.inf and mode == "max":
            continue  # nothing is better than that
        reference.step(metric)
        schedule.observe(metric if mode == "min" else -metric)
        assert LR * schedule.factor(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


def test_plateau_goes_on_from_its_state():
    straight, stopped = Plateau(patience=1), Plateau(patience=1)
    for value in (3.0, 4.0, 2.0, 2.5):
        straight.observe(value)
        stopped.observe(value)
    resumed = Plateau(patience=1)
    resumed.load_state_dict(stopped.state_dict())
    for value in (2.4, 2.3, 1.0, 1.1, 1.2):
        straight.observe(value)
        resumed.observe(value)
        assert (resumed.factor(0), resumed.state_dict()) == (straight.factor(0), straight.state_dict())
    assert straight.factor(0) == pytest.approx(0.01)


def test_a_schedule_scales_the_rate_of_every_group():
    one, other = (torch.zeros(1, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [one], "lr": 1.0}, {"params": [other], "lr": 0.1}])
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    Step(30, 10).apply(optimizer, 10)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.01])
    assert Step(30, 10).lr(optimizer, 10) == pytest.approx(0.1)
    Constant().apply(optimizer, 20)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.1]


RUNS = {
    "constant": lambda o: lr_scheduler.ConstantLR(o, factor=1.0),
    "step": lambda o: lr_scheduler.StepLR(o, 7),
    "step schedule.step_size=4 schedule.gamma=0.5": lambda o: lr_scheduler.StepLR(o, 4, 0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
    "one_cycle": lambda o: lr_scheduler.OneCycleLR(o, LR, 21, cycle_momentum=False),
    "warmup_cosine schedule.warmup=0 schedule.final=0.5": lambda o: lr_scheduler.CosineAnnealingLR(o, 20, LR / 2),
}


@pytest.mark.parametrize("words", RUNS)
def test_the_rates_of_a_run(train, words):
    steps = 21 if words == "one_cycle" else 20
    run = train(
        *f"schedule={words}".split(), f"optim.lr={LR}", "loss=mse", f"steps={steps}", "data.inputs=5", "model.hidden=4"
    )
    rates = [row["lr"] for row in run.steps]
    assert rates[:20] == pytest.approx(torchs(20, RUNS[words]), rel=1e-9)


@pytest.mark.parametrize(("mode", "rates"), [("min", [1, 1, 1, 1, 1, 1]), ("max", [1, 1, 0.5, 0.25, 0.25, 0.25])])
def test_plateau_watches_the_monitored_metric(train, mode, rates):
    """The validation loss falls all the time, so that only who wants it to rise sees a plateau."""
    words = ("schedule=plateau", "schedule.patience=0", "schedule.factor=0.5", "schedule.min_factor=0.25")
    run = train(*words, "steps=6", "data.validation=0.25", "loss=mse", "optim.lr=1e-3", f"mode={mode}", "data.inputs=5")
    losses = [row["validation_loss"] for row in run.evaluations]
    assert losses == sorted(losses, reverse=True)
    assert [row["lr"] / 1e-3 for row in run.steps] == pytest.approx(rates)


def test_plateau_resumes_to_the_same_bits(train, cli):
    words = (
        "schedule=plateau",
        "schedule.patience=1",
        "data.validation=0.25",
        "optim.lr=2e-2",
        "data.inputs=5",
        "loss=mse",
    )
    straight = train(*words, "steps=60", name="straight")
    assert len({row["lr"] for row in straight.steps}) > 1
    resumed = train(*words, "steps=23", name="resumed")
    assert cli("resume", "resumed", "steps=60").code == 0
    assert resumed.bits() == straight.bits()


@pytest.mark.parametrize(("first", "second"), [("constant", "plateau"), ("plateau", "cosine"), ("cosine", "step")])
def test_a_run_goes_on_under_another_schedule(train, cli, first, second):
    run = train(f"schedule={first}", "data.validation=0.25", "steps=5")
    result = cli("resume", "run", f"schedule={second}", "steps=10")
    assert result.code == 0, result.err
    assert len(run.steps) == 10


REFUSED = {
    "schedule=warmup_cosine steps=50": "schedule.warmup=100: must be from 0 to 49: the run has 50 steps",
    "schedule=warmup_cosine schedule.warmup=-1": "schedule.warmup=-1: must be from 0 to 499",
    "schedule=warmup_cosine schedule.final=2": "schedule.final=2: must be from 0 to 1",
    "schedule=cosine schedule.final=-0.1": "schedule.final=-0.1: must be from 0 to 1",
    "schedule=step schedule.step_size=0": "schedule.step_size=0: must be at least 1",
    "schedule=step schedule.gamma=0": "schedule.gamma=0: must be above 0 and at most 1",
    "schedule=one_cycle schedule.pct_start=1": "schedule.pct_start=1: must be at least 0 and below 1",
    "schedule=one_cycle schedule.div_factor=0.5": "schedule.div_factor=0.5: must be at least 1",
    "schedule=one_cycle schedule.final_div_factor=0": "schedule.final_div_factor=0: must be at least 1",
    "schedule=plateau": "schedule=plateau: needs validation data; allowed: data.validation=0.2",
    "schedule=plateau data.validation=0.2 schedule.factor=1": "schedule.factor=1: must be above 0 and below 1",
    "schedule=plateau data.validation=0.2 schedule.patience=-1": "schedule.patience=-1: must be at least 0",
    "schedule=plateau data.validation=0.2 schedule.threshold=1": "schedule.threshold=1: must be at least 0 and below 1",
    "schedule=plateau data.validation=0.2 schedule.min_factor=2": "schedule.min_factor=2: must be from 0 to 1",
    "schedule=cosine schedule.steps=9": "schedule.steps: is supplied by the run",
    "schedule=cosine schedule.finl=0": "did you mean schedule.final?",
    "schedule=linear": "schedule=linear: no such schedule",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_in_words(refused, words):
    assert REFUSED[words] in refused("run", *words.split())
