"""What comforts cost: time inside each of them as a share of the loop's, and whole runs beside runs without any.

    .venv/bin/python scripts/bench.py            the network of the defaults, 3,000 steps
    .venv/bin/python scripts/bench.py experiment=digits
    .venv/bin/python scripts/bench.py model=product steps=20000

Use a machine that does nothing else. One CPU thread, for steadier figures.
"""

from __future__ import annotations

import os
import pty
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from trainer import words
from trainer.build import Built
from trainer.config import compose_jobs
from trainer.job import plan_of, prepare
from trainer.loop import fit
from trainer.metrics import MetricsFile, few_parameters
from trainer.progress import LiveDisplay, Standing
from trainer.record import Record
from trainer.rundir import RunDir
from trainer.saver import Saver

ROUNDS = 5


@dataclass
class Timed:
    """Adds up the time spent in something that is called."""

    call: Callable[..., Any]
    seconds: float = field(default=0.0)

    def __call__(self, *args: Any) -> None:
        """Call it."""
        start = time.perf_counter()
        self.call(*args)
        self.seconds += time.perf_counter() - start


def terminal() -> Console:
    """Return a console on a terminal whose other end is read and forgotten."""
    ours, theirs = pty.openpty()

    def read() -> None:
        while os.read(ours, 2**16):
            pass

    threading.Thread(target=read, daemon=True).start()
    return Console(file=os.fdopen(theirs, "w"), force_terminal=True, width=100)


def build(argv: list[str]) -> Built:
    """Build the run of a command."""
    split = words.split(argv)
    catalog = split.catalog()
    (job,) = compose_jobs(words.jobs(split, catalog), catalog)
    return prepare(job.settings, job.choices)


def with_all(argv: list[str], console: Console) -> tuple[float, dict[str, float]]:
    """Train with everything; return the seconds in all and in each comfort."""
    built = build(argv)
    run = built.run
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        rundir: RunDir = plan_of(built, {}).write(Path(folder) / "run")
        metrics = MetricsFile(rundir.metrics, 1, run.model)
        standing = Standing(
            run.steps,
            0,
            run.batches.steps_per_epoch,
            lambda: (run.state.best_step, run.state.best_value),
            lambda: few_parameters(run.model),
        )
        start = time.perf_counter()
        with LiveDisplay(console, standing) as display, Saver(rundir, built, metrics) as saver:
            comforts = {
                "display": Timed(display),
                "metrics.jsonl": Timed(metrics),
                "status.json": Timed(Record(rundir, built, "", [], print, {})),
                "checkpoints": Timed(saver),
            }
            readers = [timed for name, timed in comforts.items() if name != "checkpoints"]
            fit(run, readers, comforts["checkpoints"])
        seconds = time.perf_counter() - start
        metrics.close()
    return seconds, {name: timed.seconds for name, timed in comforts.items()}


def without(argv: list[str]) -> float:
    """Train with nothing but the loop; return the seconds."""
    built = build(argv)
    start = time.perf_counter()
    fit(built.run)
    return time.perf_counter() - start


def main(argv: list[str]) -> int:
    """Measure and print."""
    torch.set_num_threads(1)
    argv = argv or ["steps=3000"]
    console = terminal()
    shares: dict[str, list[float]] = {}
    ratios = []
    for _ in range(ROUNDS):
        bare = without(argv)
        seconds, inside = with_all(argv, console)
        ratios.append(seconds / bare)
        for name, spent in inside.items():
            shares.setdefault(name, []).append(spent / seconds)
    print(f"trainer run {' '.join(argv)}: {ROUNDS} rounds, median (lowest to highest)")
    for name, values in shares.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"  {name:<14} {middle:6.2%}  ({low:.2%} to {high:.2%}) of the loop's time")
    print(
        f"  whole / loop alone  {statistics.median(ratios):.3f}  ({min(ratios):.3f} to {max(ratios):.3f}),"
        " each beside the other"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
