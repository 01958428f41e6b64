#!/usr/bin/env python3
"""Measures the cost of `trainer` against a plain PyTorch script, and the gain of its fast paths.

    .venv/bin/python scripts/bench.py                 the short form, about two minutes
    .venv/bin/python scripts/bench.py --full          all parts, about an hour
    .venv/bin/python scripts/bench.py steps startup   some parts; --list names them
    .venv/bin/python scripts/bench.py --write         also writes the table into docs/performance.md

Each figure is a ratio of two measurements that are taken in turn: the median of the rounds, with the lowest and the
highest. Training is timed without its start. The script and the loop of the command, on a terminal and with its
defaults, take some steps in turn in one process, so that other load slows down both. Use a quiet machine.
All measurements use one CPU thread. scripts/peers.py measures other tools.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import pty
import random
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
MARKS = "<!-- bench -->\n", "<!-- end of bench -->\n"
WORKS = {
    "seed": ["model=sequential"],
    "tiny": ["model=linear_stack", "model.sizes=[2]", "data=pair"],
    "mini": [
        *("data=npz", "data.path=mini.npz", "data.standardize=false", "data.validation=0", "model=mlp"),
        *("model.sizes=[256]", "loss=cross_entropy", "batch_size=64"),
    ],
}
CHUNKS = {"seed": 100, "tiny": 500, "mini": 50}  # steps in each turn
TURNS = 20
OPTIMIZERS = {
    **{"sgd": "SGD", "gd": "SGD", "sgd_momentum": "SGD", "nesterov": "SGD", "adam": "Adam", "adamw": "AdamW"},
    **{"adagrad": "Adagrad", "rmsprop": "RMSprop", "adamax": "Adamax", "adadelta": "Adadelta", "asgd": "ASGD"},
    **{"nadam": "NAdam", "radam": "RAdam", "rprop": "Rprop", "adafactor": "Adafactor", "muon": "Muon"},
    "sparse_adam": "SparseAdam",
}  # configs/optim without L-BFGS, whose steps have no fixed length; by their class in torch
QUICK = ("sgd", "adam", "rmsprop")  # for the short form
SPECIAL = {  # Muon takes matrices only, SparseAdam sparse gradients only
    ("seed", "muon"): ["model=autograd"],
    ("tiny", "muon"): ["model=autograd", "model.hidden=2", "data=pair"],
    ("seed", "sparse_adam"): ["model=words", "data=words"],
    ("tiny", "sparse_adam"): ["model=words", "model.words=10", "data=words", "data.rows=1", "data.outputs=5"],
}


@dataclass(frozen=True)
class Figure:
    """A measured ratio, or an amount in some unit.

    Args:
        part: The part of the benchmark.
        what: What was measured, and against what.
        values: One per round.
        most: The limit of the median; None if there is none.
        unit: Empty for ratios.
    """

    part: str
    what: str
    values: list[float]
    most: float | None = None
    unit: str = ""

    @property
    def row(self) -> str:
        """The row of a Markdown table."""
        median = statistics.median(self.values)
        low, middle, high = (f"{v:.3g}" for v in (min(self.values), median, max(self.values)))
        limit = "" if self.most is None else f"{self.most:g}{', **missed**' if median > self.most else ''}"
        return f"| {self.part} | {self.what} | {middle}{self.unit} | {low} to {high} | {limit} |"


def script(work: str, optim: str, chunk: int) -> Iterator[None]:
    """Train with a plain script; yields after the set-up and after every `chunk` steps."""
    import numpy as np
    import torch
    from torch import nn

    torch.manual_seed(0)
    kind = getattr(torch.optim, OPTIMIZERS[optim])
    settings: dict[str, Any] = {"lr": 1e-6}
    if optim in ("sgd_momentum", "nesterov"):
        settings |= {"momentum": 0.9, "nesterov": optim == "nesterov"}
    loss_of: nn.Module = nn.MSELoss(reduction="sum")
    model: nn.Module
    if optim in ("muon", "sparse_adam"):
        model, x, y = special(work, optim)
    elif work == "seed":
        model = nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))
        x, y = torch.randn(64, 1000), torch.randn(64, 10)
    elif work == "tiny":
        model, x, y = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 5)), torch.randn(1, 3), torch.randn(1, 5)
    else:
        model, loss_of = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)), nn.CrossEntropyLoss()
        with np.load("mini.npz") as file:
            x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
    optimizer = kind(model.parameters(), **settings)
    batches = batches_of(x, y) if work == "mini" else always(x, y)
    while True:
        yield
        for _, (inputs, targets) in zip(range(chunk), batches, strict=False):
            loss = loss_of(model(inputs), targets)
            loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def special(work: str, optim: str) -> tuple[Any, Any, Any]:
    """Return model, inputs, and targets for an optimizer that can't train the usual ones."""
    import torch
    from torch import nn

    if optim == "sparse_adam":
        sys.path.insert(0, "")
        from words import Table, Words

        data = Words(**({} if work == "seed" else {"rows": 1, "outputs": 5}))
        return Table(*((5, 10) if work == "tiny" else (10,))), data.x, data.y

    class Matrices(nn.Module):
        def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
            super().__init__()
            self.w1, self.w2 = (nn.Parameter(torch.randn(s) / 30) for s in ((inputs, hidden), (hidden, outputs)))

        def forward(self, x: Any) -> Any:
            return (x @ self.w1).clamp(min=0) @ self.w2

    rows, *sizes = (64, 1000, 100, 10) if work == "seed" else (1, 3, 2, 5)
    return Matrices(*sizes), torch.randn(rows, sizes[0]), torch.randn(rows, sizes[-1])


def one_step() -> float:
    """Take one step of seed with the plain script, and return its seconds."""
    loop = script("seed", "sgd", 1)
    next(loop)
    start = time.perf_counter()
    next(loop)
    return time.perf_counter() - start


def batches_of(x: Any, y: Any) -> Iterator[Any]:
    """Yield shuffled batches from torch's DataLoader, epoch after epoch."""
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
    while True:
        yield from loader


def always(*rows: Any) -> Iterator[Any]:
    """Yield the same rows forever."""
    while True:
        yield rows


def runner(words: list[str], chunk: int) -> Iterator[None]:
    """Train as the command does; yields after the set-up and after every `chunk` steps."""
    from trainer.session.prepare import plan_of
    from trainer.session.session import Request, Session
    from trainer.session.train import training
    from trainer.terminal import run_screen, screen

    built = prepared([*words, "steps=100000000", "device.threads=1"])
    with new_folder() as folder:
        rundir = plan_of(built, {}).write(folder / "run")
        session = Session(rundir, built, Request("", []), run_screen.progress, screen.note)
        loop = training(session)
        with session.stopping, closing(loop):
            run = next(loop)
            while True:
                yield
                until = run.state.step + chunk
                while run.state.step < until:
                    loop.send(run.update(run))


def ratios_of_steps(work: str, optim: str, words: list[str], rounds: int) -> list[float]:
    """Return the time of a step relative to the plain script, one value per round; the two take turns."""
    found, chunk = [], CHUNKS[work]
    for _ in range(rounds):
        one = runner([*SPECIAL.get((work, optim), WORKS[work]), f"optim={optim}", "optim.lr=1e-6", *words], chunk)
        both, seconds = (script(work, optim, chunk), one), [0.0, 0.0]
        for loop in (*both, *both):  # set up, then warmed up
            next(loop)
        for _ in range(TURNS):
            for place, loop in enumerate(both):
                start = time.perf_counter()
                next(loop)
                seconds[place] += time.perf_counter() - start
        one.close()
        found.append(seconds[1] / seconds[0])
    return found


def steps(full: bool) -> Iterator[Figure]:
    """A step with everything on, relative to the plain script."""
    limits = {"seed": (0.95, 1.05), "tiny": (0.85, 1.10), "mini": (0.56, 1.0)}  # adam and adamw, the others
    for work, (most, others) in limits.items():
        for optim in ("adam",) if work == "mini" else OPTIMIZERS if full else QUICK:
            limit = most if optim in ("adam", "adamw") else 1.0 if optim == "sgd" else others
            values = ratios_of_steps(work, optim, [], 7 if full else 3)
            yield Figure("step", f"{work}, {optim} / script", values, limit)


def compiled(full: bool) -> Iterator[Figure]:
    """A compiled step, relative to the plain script."""
    for work, optim, most in (("tiny", "sgd", 0.10), ("seed", "sgd", 0.70), ("mini", "adam", 0.60)):
        values = ratios_of_steps(work, optim, ["compile=step"], 5 if full else 3)
        yield Figure("compile=step", f"{work}, {optim} / script", values, most)


def comforts(full: bool) -> Iterator[Figure]:
    """The share of display, metrics, status, and checkpoints in the time of the loop, measured inside it."""
    from trainer.training.loop import fit

    for work in WORKS if full else ("seed", "tiny"):
        shares: dict[str, list[float]] = {}
        for _ in range(5 if full else 3):
            built = prepared([*WORKS[work], f"steps={TURNS * CHUNKS[work] // 4}"])
            with new_folder() as folder:
                seconds, spent = timed(built, folder, fit)
            for name, inside in spent.items():
                shares.setdefault(name, []).append(inside / seconds)
        for name, values in shares.items():
            yield Figure("comfort", f"{work}: {name} / all of the loop", values)


def where(full: bool) -> Iterator[Figure]:
    """The parts of one step in microseconds, measured inside the loop."""
    from trainer.training.loop import fit

    for work in ("seed", "tiny"):
        count, found = TURNS * CHUNKS[work] // 4, {}
        for _ in range(7 if full else 3):
            built = prepared([*WORKS[work], f"steps={count}", "device.threads=1"])
            with new_folder() as folder, clocks(built.run) as inside:
                seconds, comforts = timed(built, folder, fit)
            spent = {**parts_of(inside), **comforts}
            spent["the loop, what was not clocked"] = seconds - sum(spent.values())
            for name, value in spent.items():
                found.setdefault(name, []).append(1e6 * value / count)
        for name, values in found.items():
            yield Figure("where", f"{work}, sgd: {name}", values, None, " us")


def parts_of(inside: dict[str, float]) -> dict[str, float]:
    """Return the seconds in each part of a step, without counting any twice."""
    within = ("model", "loss", "backward", "gradients listed", "gradients checked")
    return {
        "batch, learning rate": inside["at"] + inside["apply"],
        **{name: inside[name] for name in within},
        "the rest of the gradients": inside["gradients"] - sum(inside[name] for name in within),
        "update": inside["step"] - inside["gradients"],
    }


@contextmanager
def clocks(run: Any) -> Iterator[dict[str, float]]:
    """Time the parts of the steps of a run."""
    import torch

    from trainer.training import fused, loop

    clocked = {
        "at": (run.batches, "at"),
        "apply": (run.schedule, "apply"),
        "model": (run.model, "forward"),
        "loss": (run.loss, "forward"),
        "backward": (torch.Tensor, "backward"),
        "gradients listed": (loop, "dense"),
        "gradients checked": (loop, "has_non_finite"),
        "gradients": (loop, "gradients"),
        "step": (fused, "step"),
    }
    spent, before = dict.fromkeys(clocked, 0.0), {name: getattr(*place) for name, place in clocked.items()}

    def clock(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = call(*args, **options)
            spent[name] += time.perf_counter() - start
            return result

        return inside

    for name, place in clocked.items():
        setattr(*place, clock(name, before[name]))
    try:
        yield spent
    finally:
        for name, place in clocked.items():
            setattr(*place, before[name])


def timed(built: Any, folder: Path, fit: Callable[..., Any]) -> tuple[float, dict[str, float]]:
    """Train with everything on; return the seconds in total and in each comfort."""
    from trainer.session.display import Standing
    from trainer.session.metrics_writer import MetricsFile
    from trainer.session.prepare import plan_of
    from trainer.session.saver import Saver
    from trainer.session.session import Request, Session
    from trainer.session.status_writer import StatusWriter
    from trainer.terminal.progress import LiveDisplay
    from trainer.terminal.screen import stderr
    from trainer.training.parameters import few_parameters

    run, spent = built.run, dict.fromkeys(("display", "metrics.jsonl", "status.json", "checkpoints"), 0.0)

    def clocked(name: str, call: Callable[..., Any]) -> Callable[..., None]:
        def reader(row: Any) -> None:
            start = time.perf_counter()
            call(row)
            spent[name] += time.perf_counter() - start

        return reader

    rundir = plan_of(built, {}).write(folder / "run")
    metrics = MetricsFile(rundir.metrics, 1, run.model)
    standing = Standing(
        run.steps,
        0,
        run.batches.steps_per_epoch,
        lambda: (run.state.best_step, run.state.best_value),
        lambda: few_parameters(run.model),
    )
    record = StatusWriter(Session(rundir, built, Request("", [])))
    with LiveDisplay(stderr, standing) as display, Saver(rundir, built, metrics) as saver:
        readers = {"display": display, "metrics.jsonl": metrics, "status.json": record}
        start = time.perf_counter()
        fit(run, [clocked(name, call) for name, call in readers.items()], clocked("checkpoints", saver))
        seconds = time.perf_counter() - start  # the thread may still be writing, which does not stop the loop
    metrics.close()
    return seconds, spent


def startup(full: bool) -> Iterator[Figure]:
    """The time of whole processes."""
    rounds = 15 if full else 5
    python, command = [sys.executable], [str(Path(sys.executable).with_name("trainer"))]
    script = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import bench; bench.one_step()"
    with new_folder() as folder:
        pairs = {
            "`trainer --help` / `python -c pass`": ([*python, "-c", "pass"], [*command, "--help"], 2.0),
            **{
                f"`trainer {name} --help` / `python -c pass`": (
                    [*python, "-c", "pass"],
                    [*command, name, "--help"],
                    4.0,
                )
                for name in ("run", "resume", "list", "runs")  # three helps with generated parts, and one without
            },
            "`trainer run steps=1` / one step of a script": (
                [*python, "-c", script],
                [*command, "run", "steps=1", "device.threads=1"],
                1.15,
            ),
        }
        for what, (a, b, most) in pairs.items():
            whole_process(a, folder), whole_process(b, folder)
            found = [(whole_process(a, folder)[0], whole_process(b, folder)[0]) for _ in range(rounds)]
            yield Figure("start-up", what, [ours / theirs for theirs, ours in found], most)


_JSON_LOADS = """
import json, pathlib
for file in pathlib.Path("runs").glob("*/status.json"):
    json.loads(file.read_bytes())
"""


def listing(full: bool) -> Iterator[Figure]:
    """`trainer runs` of many runs."""
    count = 10_000 if full else 1_000
    with new_folder() as folder:
        many_runs(folder, count)
        command = [str(Path(sys.executable).with_name("trainer")), "runs"]
        decode = [sys.executable, "-c", _JSON_LOADS]
        whole_process(command, folder), whole_process(decode, folder)
        pairs = [(whole_process(decode, folder), whole_process(command, folder)) for _ in range(5)]
    found = [ours for _, ours in pairs]
    what = f"`trainer runs` of {count:,} runs"
    yield Figure("listing", what, [seconds for seconds, _ in found], 1.0 if full else None, " s")
    ratios = [ours[0] / theirs[0] for theirs, ours in pairs]
    yield Figure("listing", f"{what} / `json.loads` of their files", ratios, 2.0 if full else None)
    yield Figure("listing", f"{what}: memory", [memory for _, memory in found], 150, " MB")


_SMALL = """
import os, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def whole_process(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command and return its seconds and its peak memory in MB."""
    # From a small process: the peak of a child starts with the memory of its parent.
    command = [sys.executable, "-S", "-c", _SMALL, *command]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    seconds, memory = map(float, done.stdout.split()[-2:])
    return seconds, memory / 1024


def many_runs(folder: Path, count: int) -> None:
    """Write the directories of many finished runs: copies of one, except for the fields that a table shows."""
    trainer("run", f"run_dir={folder}/one", "steps=1")
    status = json.loads((folder / "one" / "status.json").read_text())
    drawn, letters = random.Random(0), "bcdfghjklmnpqrstvwxz"
    for number in range(count):
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(1.79e9 + 60 * number))
        name = stamp + "-" + "".join(letters[number // 20**place % 20] for place in (3, 2, 1, 0))
        path = folder / "runs" / name
        path.mkdir(parents=True)
        for file in ("config.yaml", "metrics.jsonl", "trainer.log", "lock"):
            (path / file).write_bytes((folder / "one" / file).read_bytes())
        status |= {"id": name, "metrics": {"loss": drawn.lognormvariate(0, 2)}}
        status["config"]["optim"]["lr"] = float(f"{10 ** drawn.uniform(-5, -2):.3g}")
        (path / "status.json").write_text(json.dumps(status, indent=1) + "\n")


def sweep(launcher: str, work: str, swept: str, count: int) -> float:
    """Run a sweep as a process and return its seconds."""
    command = [str(Path(sys.executable).with_name("trainer")), "run", "-m", *WORKS[work], swept, f"steps={count}"]
    with new_folder() as folder:
        return whole_process([*command, "device.threads=1", f"hydra/launcher={launcher}"], folder)[0]


def sweeps(full: bool) -> Iterator[Figure]:
    """The cost of a job of a sweep beyond its training, and the launchers against each other."""
    few, many = (10, 110) if full else (5, 25)
    extra = []
    for _ in range(3):
        training = one_step()
        times = [sweep("local", "seed", f"seed=range({jobs})", 1) for jobs in (few, many)]
        extra.append(1000 * ((times[1] - times[0]) / (many - few) - training))
    yield Figure("sweep", "a job of one step of seed, `local`, beyond its training", extra, 20, " ms")
    jobs, count = (64, 500) if full else (16, 200)
    found = []
    for _ in range(3 if full else 1):
        times = [sweep(launcher, "seed", f"seed=range({jobs})", count) for launcher in ("local", "processes")]
        found.append(times[1] / times[0])
    yield Figure("sweep", f"{jobs} jobs of {count} steps of seed, `processes` / `local`", found, 0.7 if full else None)


def checkpoints(full: bool) -> Iterator[Figure]:
    """The time that a save blocks training, relative to torch.save, and the speed of verification."""
    import hashlib

    import torch

    from trainer.checkpoints import manifest, store
    from trainer.session.metrics_writer import MetricsFile
    from trainer.session.prepare import plan_of
    from trainer.session.saver import Saver
    from trainer.training.loop import fit

    width = 10_000 if full else 3_162
    size = "100M" if full else "10M"
    words = ["model=linear", "optim=adam", "steps=1", "data.samples=4"]
    built = prepared([*words, f"data.inputs={width}", f"data.outputs={width}"])
    run, blocked, verified, loaded = built.run, [], [], []
    fit(run)
    with new_folder() as folder:
        rundir, plain_file = plan_of(built, {}).write(folder / "run"), folder / "plain.pt"
        metrics = MetricsFile(rundir.metrics, 1, run.model)
        with Saver(rundir, built, metrics) as saver:
            for number in range(7):  # the first two allocate memory that later ones reuse
                start = time.perf_counter()
                torch.save([run.model.state_dict(), run.optimizer.state_dict()], plain_file)
                plain = time.perf_counter() - start
                plain_file.unlink()
                run.state.step += 1
                start = time.perf_counter()
                saver(True)
                stopped = time.perf_counter() - start
                path = rundir.checkpoints / manifest.name_of(run.state.step)
                while not path.exists():
                    time.sleep(0.01)
                time.sleep(0.5)  # until the previous one is removed
                start = time.perf_counter()
                count = manifest.verify(path)
                middle = time.perf_counter()
                store.load(path)
                end = time.perf_counter()
                if number > 1:
                    blocked.append(stopped / plain)
                    verified.append(count / (middle - start) / 1e9)
                    loaded.append(count / (end - middle) / 1e9)
        metrics.close()
    data = bytes(2**28)
    hashed = []
    for _ in range(3):
        start = time.perf_counter()
        hashlib.sha256(data)
        hashed.append(len(data) / (time.perf_counter() - start) / 1e9)
    yield Figure("checkpoint", f"{size} with Adam: blocked / torch.save", blocked, 0.3)
    yield Figure("checkpoint", f"{size} with Adam: verified", verified, None, " GB/s")
    yield Figure("checkpoint", f"{size} with Adam: loaded, verified", loaded, None, " GB/s")
    yield Figure("checkpoint", "SHA-256 of one stream", hashed, None, " GB/s")


def vectorized(full: bool) -> Iterator[Figure]:
    """Sweeps as one batched program, relative to the same jobs one after the other."""
    steps = 5000 if full else 500
    for work, jobs, most in (("tiny", 64, 0.20), ("tiny", 256, 0.10), ("seed", 16, 0.95)):
        yield Figure(
            "vectorized", f"{work}, {jobs} jobs of {steps:,} steps / local", [together(work, jobs, steps)], most
        )


def together(work: str, jobs: int, steps: int) -> float:
    """Return the time of a sweep that is trained as one, beside `local`, where a job more is measured with 8 of them.

    Args:
        work: What each job trains.
        jobs: How many there are.
        steps: Length of each.
    """

    def seconds(launcher: str, count: int) -> float:
        with new_folder() as folder:
            start = time.perf_counter()
            swept = ("-m", f"hydra/launcher={launcher}", f"seed=range({count})", f"run_dir={folder}/sweep")
            trainer("run", *swept, *WORKS[work], f"steps={steps}", "device.threads=1")
            return time.perf_counter() - start

    seconds("vectorized", 4)  # imports what it needs
    first = seconds("local", 1)
    return seconds("vectorized", jobs) / (first + (seconds("local", 9) - first) / 8 * (jobs - 1))


def growth(full: bool) -> Iterator[Figure]:
    """The memory that more steps take."""
    few, many = (20_000, 1_020_000) if full else (5_000, 55_000)
    command = [str(Path(sys.executable).with_name("trainer")), "run", *WORKS["tiny"], "device.threads=1"]
    with new_folder() as folder:
        sizes = [whole_process([*command, f"steps={count}"], folder)[1] for count in (few, many)]
    yield Figure("growth", f"memory of {many - few:,} more steps of tiny", [sizes[1] - sizes[0]], 5, " MB")


@contextmanager
def new_folder() -> Iterator[Path]:
    """Yield a temporary folder."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="bench-") as folder:
        yield Path(folder)


def trainer(*words: str) -> None:
    """Call the command in this process."""
    from trainer.cli import main as command

    if code := command(list(words)):
        raise RuntimeError(f"trainer {' '.join(words)} exited {code}")


def prepared(argv: list[str]) -> Any:
    """Build the run of a command."""
    from trainer.config import arguments
    from trainer.config.compose import compose_jobs
    from trainer.session.prepare import prepare

    split = arguments.split(argv)
    catalog = split.catalog()
    (job,) = compose_jobs(arguments.jobs(split, catalog), catalog)
    return prepare(job.settings, job.choices)


def on_terminal() -> Any:
    """Connect stdout and stderr to a terminal that another process reads; return the former stdout."""
    out = os.fdopen(os.dup(1), "w")
    ours, theirs = pty.openpty()
    if os.fork() == 0:
        os.close(theirs)
        os.nice(10)
        try:
            while os.read(ours, 2**16):
                pass
        finally:
            os._exit(0)
    os.close(ours)
    os.dup2(theirs, 1)
    os.dup2(theirs, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    os.environ |= {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    return out


def made_data() -> None:
    """Write the data of `mini`, and a model with sparse gradients."""
    import numpy as np

    drawn = np.random.default_rng(0)
    x = drawn.standard_normal((60_000, 784), dtype=np.float32)
    np.savez("mini.npz", x=x, y=drawn.integers(0, 10, 60_000))
    Path("words.py").write_text(WORDS)
    for group, target in (("model", "Table"), ("data", "Words")):
        Path("configs", group).mkdir(parents=True)
        Path("configs", group, "words.yaml").write_text(f"_target_: words.{target}\n")


WORDS = """
import torch
from torch import nn
from trainer.data import Data


class Table(nn.Module):
    def __init__(self, outputs: int, words: int = 1000):
        super().__init__()
        self.rows = nn.Embedding(words, outputs, sparse=True)

    def forward(self, x):
        return self.rows(x).sum(1)


class Words(Data):
    def __init__(self, rows: int = 64, outputs: int = 10):
        super().__init__(torch.randint(10, (rows, 4)), torch.randn(rows, outputs))
"""


def table(figures: list[Figure]) -> str:
    """Return all figures as a Markdown table, with versions and machine."""
    import torch

    model = next((line for line in cpu_lines() if line.startswith("model name")), platform.processor())
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, {model.partition(':')[2].strip()}"
    head = ["| part | what | median | lowest to highest | limit |", "|---|---|---|---|---|"]
    measured = f"Measured {time.strftime('%Y-%m-%d')}: {versions}, {os.cpu_count()} cores, one thread."
    return "\n".join([measured, "", *head, *(one.row for one in figures)])


def cpu_lines() -> list[str]:
    """Return the lines of /proc/cpuinfo."""
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


SHORT: dict[str, Callable[[bool], Iterator[Figure]]] = {
    "steps": steps,
    "startup": startup,
    "listing": listing,
    "sweeps": sweeps,
    "checkpoints": checkpoints,
    "growth": growth,
}
PARTS = {**SHORT, "comforts": comforts, "where": where, "compiled": compiled, "vectorized": vectorized}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--full", action="store_true", help="more rounds, larger works, all parts")
    parser.add_argument("--list", action="store_true", help="list the parts")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(f"{name:<12} {part.__doc__}" for name, part in PARTS.items()))
        return 0
    out = on_terminal()
    import torch

    torch.set_num_threads(1)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        made_data()
        for name in asked.parts or (PARTS if asked.full else SHORT):
            try:
                for figure in PARTS[name](asked.full):
                    figures.append(figure)
                    print(figure.row, file=out, flush=True)
            except Exception:
                print(f"{name} failed:\n{traceback.format_exc()}", file=out, flush=True)
        os.chdir(ROOT)
    if asked.write:
        text = PAGE.read_text()
        before, _, rest = text.partition(MARKS[0])
        PAGE.write_text(before + MARKS[0] + table(figures) + "\n" + MARKS[1] + rest.partition(MARKS[1])[2])
    print(f"\n{table(figures)}", file=out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
