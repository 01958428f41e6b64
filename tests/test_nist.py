"""L-BFGS in float64 finds the certified values of NIST's Statistical Reference Datasets, read from CSV files.

Data and certified values: https://www.itl.nist.gov/div898/strd/
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

LONGLEY = """employed,deflator,gnp,unemployed,armed,population,year
60323,83.0,234289,2356,1590,107608,1947
61122,88.5,259426,2325,1456,108632,1948
60171,88.2,258054,3682,1616,109773,1949
61187,89.5,284599,3351,1650,110929,1950
63221,96.2,328975,2099,3099,112075,1951
63639,98.1,346999,1932,3594,113270,1952
64989,99.0,365385,1870,3547,115094,1953
63761,100.0,363112,3578,3350,116219,1954
66019,101.2,397469,2904,3048,117388,1955
67857,104.6,419180,2822,2857,118734,1956
68169,108.4,442769,2936,2798,120445,1957
66513,110.8,444546,4681,2637,121950,1958
68655,112.6,482704,3813,2552,123366,1959
69564,114.2,502601,3931,2514,125368,1960
69331,115.7,518173,4806,2572,127852,1961
70551,116.9,554894,4007,2827,130081,1962
"""
NORRIS = (
    "0.1 0.2,338.8 337.4,118.1 118.2,888.0 884.6,9.2 10.1,228.1 226.5,668.5 666.3,998.5 996.3,449.1 448.6,778.9 777.0,"
    "559.2 558.2,0.3 0.4,0.1 0.6,778.1 775.5,668.8 666.9,339.3 338.0,448.9 447.5,10.8 11.6,557.7 556.0,228.3 228.1,"
    "998.0 995.8,888.8 887.6,119.6 120.2,0.3 0.3,0.6 0.3,557.6 556.8,339.3 339.1,888.0 887.2,998.5 999.0,778.9 779.0,"
    "10.2 11.1,117.6 118.3,228.9 229.2,668.4 669.1,449.2 448.9,0.2 0.5"
)
PONTIUS = (
    ".11019 .21956 .32949 .43899 .54803 .65694 .76562 .87487 .98292 1.09146 1.20001 1.30822 1.41599 1.52399 1.63194 "
    "1.73947 1.84646 1.95392 2.06128 2.16844 .11052 .22018 .32939 .43886 .54798 .65739 .76596 .87474 .98300 1.09150 "
    "1.20004 1.30818 1.41613 1.52408 1.63159 1.73965 1.84696 1.95445 2.06177 2.16829"
)
MISRA = (
    "10.07 77.6,14.73 114.9,17.94 141.1,23.93 190.8,29.61 239.9,35.18 289.0,40.02 332.8,44.82 378.4,50.76 434.8,"
    "55.05 477.3,61.01 536.8,66.40 593.1,75.47 689.1,81.78 760.0"
)
DANWOOD = "2.138 1.309,3.421 1.471,3.597 1.490,4.340 1.565,4.882 1.611,5.660 1.680"
RAT42 = "8.930 9,10.800 14,18.590 21,22.330 28,39.350 42,56.110 57,61.730 63,64.620 70,67.080 79"


def pairs(text):
    return "y,x\n" + "".join(f"{row.replace(' ', ',')}\n" for row in text.split(","))


def polynomial(degree, rows):
    """A table of y and the powers of x."""
    lines = (",".join(map(str, [y, *(x**power for power in range(1, degree + 1))])) for y, x in rows)
    return ",".join(["y", *(f"x{power}" for power in range(1, degree + 1))]) + "\n" + "\n".join(lines) + "\n"


LINEAR = {  # the table, the certified coefficients, that of the intercept first, and the digits to have
    "Longley": (
        LONGLEY,
        [
            *(-3482258.63459582, 15.0618722713733, -0.358191792925910e-01, -2.02022980381683),
            *(-1.03322686717359, -0.511041056535807e-01, 1829.15146461355),
        ],
        7,
    ),
    "Norris": (pairs(NORRIS), [-0.262323073774029, 1.00211681802045], 11),
    "Pontius": (
        polynomial(2, [(y, 150_000 * (row % 20 + 1)) for row, y in enumerate(PONTIUS.split())]),
        [0.673565789473684e-03, 0.732059160401003e-06, -0.316081871345029e-14],
        8,
    ),
    "Wampler1": (polynomial(5, [(sum(x**k for k in range(6)), x) for x in range(21)]), [1.0] * 6, 7),
    "Wampler2": (
        polynomial(5, [(f"{sum(x**k * 10 ** (5 - k) for k in range(6))}e-5", x) for x in range(21)]),
        [1.0, 0.1, 0.01, 0.001, 0.0001, 0.00001],
        7,
    ),
}
# Table, y as a function of x, NIST's two starts, the certified values, and the units of the parameters. L-BFGS starts
# along the gradient, so parameters of very different sizes need units in which they are alike.
CURVES = {
    "Misra1a": (
        *(MISRA, "b[0] * (1 - torch.exp(-b[1] * x))", [[500, 0.0001], [250, 0.0005]]),
        *([2.3894212918e02, 5.5015643181e-04], [100, 1e-4]),
    ),
    "Misra1b": (
        *(MISRA, "b[0] * (1 - (1 + b[1] * x / 2) ** -2)", [[500, 0.0001], [300, 0.0002]]),
        *([3.3799746163e02, 3.9039091287e-04], [100, 1e-4]),
    ),
    "Misra1c": (
        *(MISRA, "b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5)", [[500, 0.0001], [600, 0.0002]]),
        *([6.3642725809e02, 2.0813627256e-04], [100, 1e-4]),
    ),
    "Misra1d": (
        *(MISRA, "b[0] * b[1] * x / (1 + b[1] * x)", [[500, 0.0001], [450, 0.0003]]),
        *([4.3736970754e02, 3.0227324449e-04], [100, 1e-4]),
    ),
    "DanWood": (DANWOOD, "b[0] * x ** b[1]", [[1, 5], [0.7, 4]], [7.6886226176e-01, 3.8604055871e00], [1, 1]),
    "Rat42": (
        *(RAT42, "b[0] / (1 + torch.exp(b[1] - b[2] * x))", [[100, 1, 0.1], [75, 2.5, 0.07]]),
        *([7.2462237576e01, 2.6180768402e00, 6.7359200066e-02], [1, 1, 1]),
    ),
}
MODULE = """
import torch
from torch import nn


class Curve(nn.Module):
    def __init__(self, start: list[float], units: list[float]):
        super().__init__()
        self.units = torch.tensor(units)
        self.b = nn.Parameter(torch.tensor(start) / self.units)

    def forward(self, x):
        b = self.b * self.units
        return {}
"""
WORDS = ("experiment=table", "data.path=t.csv", "data.validation=0", "optim=lbfgs", "optim.lr=1", "batch_size=null")
FLOAT64 = ("device.dtype=float64", "epochs=40")


def digits(found, certified):
    """The fewest correct digits, as NIST counts them: -log10 of the largest relative error."""
    return min(-math.log10(max(abs(a - b) / abs(b), 1e-16)) for a, b in zip(found, certified, strict=True))


def coefficients(run):
    """The intercept and the slopes in the units of the table."""
    weights, prepared = run.weights(), json.loads((run.path / "preprocess.json").read_text())
    (target,) = prepared["targets"]
    inputs = prepared["inputs"]
    slopes = [
        w * target["deviation"] / one["deviation"]
        for w, one in zip(weights["linear.weight"][0].tolist(), inputs, strict=True)
    ]
    shift = math.fsum(slope * one["mean"] for slope, one in zip(slopes, inputs, strict=True))
    return [weights["linear.bias"].item() * target["deviation"] + target["mean"] - shift, *slopes]


@pytest.mark.parametrize("name", LINEAR)
def test_linear_least_squares(train, name):
    table, certified, least = LINEAR[name]
    Path("t.csv").write_text(table)
    target = table.partition(",")[0]
    run = train(*WORDS, *FLOAT64, f"data.target={target}", "model=linear", "loss=mse")
    assert digits(coefficients(run), certified) >= least


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", CURVES)
def test_nonlinear_least_squares(train, name, start):
    table, formula, starts, certified, units = CURVES[name]
    Path("t.csv").write_text(pairs(table))
    Path("nist_curve.py").write_text(MODULE.format(formula))
    Path("configs/model").mkdir(parents=True)
    Path("configs/model/curve.yaml").write_text("# A curve\n_target_: nist_curve.Curve\nstart: ???\nunits: ???\n")
    run = train(
        *(*WORDS, *FLOAT64, "data.target=y", "data.standardize=false", "model=curve", "loss=sse"),
        *(f"model.start={list(map(float, starts[start]))}".replace(" ", ""), f"model.units={units}".replace(" ", "")),
    )
    sys.modules.pop("nist_curve")
    found = [b * unit for b, unit in zip(run.weights()["b"].tolist(), units, strict=True)]
    assert digits(found, certified) >= 8


def test_a_run_that_stopped_moving_says_so_and_what_may_help(cli):
    Path("t.csv").write_text(LONGLEY)
    words = (*WORDS, "data.target=employed", "model=linear", "loss=mse", "run_dir=raw", "data.standardize=false")
    result = cli("run", *words, "optim.tolerance_grad=1e-7", *FLOAT64)
    assert result.code == 0
    losses = [json.loads(line)["loss"] for line in Path("raw/metrics.jsonl").read_text().splitlines()]
    since = losses.index(losses[-1]) + 1
    assert 1 < since < 40
    assert losses[since - 1 :] == [losses[-1]] * (41 - since)
    first = result.out.splitlines()[0]
    assert first.startswith("done")
    assert first.endswith(f"; stopped moving at step {since}")
    assert "if its loss is too high  optim.tolerance_grad=0 data.standardize=true\n" in result.out
    assert f"done at step 40 of 40; stopped moving at step {since}" in cli("show", "raw").out
    assert f"stopped moving at step {since}" in cli("resume", "raw", "epochs=45").out


def test_a_run_that_moves_to_its_end_does_not_say_that_it_stopped(cli):
    Path("t.csv").write_text(LONGLEY)
    words = (*WORDS, "data.target=employed", "model=linear", "loss=mse")
    for more in (("epochs=2",), ("optim=sgd", "optim.lr=0", "epochs=5")):
        result = cli("run", *(word for word in words if not (more[0] == "optim=sgd" and "optim" in word)), *more)
        assert result.code == 0
        assert "stopped moving" not in result.out
