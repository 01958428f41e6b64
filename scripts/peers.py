"""Measures other training loops: the time per step as a ratio to a bare PyTorch script on the same work.

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install torch==2.13.0 lightning pytorch-ignite tqdm skorch accelerate transformers
    /tmp/peers/bin/python scripts/peers.py                  all works
    /tmp/peers/bin/python scripts/peers.py tiny --rounds 9
    /tmp/peers/bin/python scripts/peers.py --json           {"versions": ..., "results": [{"peer": ..., ...}], ...}

Use a separate environment; nothing here imports trainer. Peers that are not installed are named and left out.

The works: `seed` is a two-layer network on one full batch with SGD; `tiny` a 3-2-5 linear stack on one example with
SGD, so almost all overhead; `mini` a 784-256-10 network on 60,000 examples in shuffled batches of 64 with Adam. An
epoch of seed and tiny is as long as the run, because an epoch per step would cost Lightning far more.

The time per step is that of a long run minus that of a short one, so that start-up does not count. In each round, the
script and the peer run in turn in one process with one thread; the table shows median, minimum, and maximum of the
ratios. The time is the CPU time of the process, which other load disturbs least; --wall uses the clock. The output of
peers goes to a pseudo-terminal that another process reads; their files go to a temporary directory.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import pty
import statistics
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

PACKAGES = ("torch", "lightning", "pytorch-ignite", "skorch", "transformers", "accelerate", "rich", "tqdm")


@dataclass
class Task:
    """Everything that one run needs, built for each run."""

    model: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    epochs: int
    batches: Iterable[Sequence[Tensor]]  # one epoch, for loops that take any iterable
    dataset: Dataset[Any]  # the same, for peers that make the DataLoader themselves
    batch_size: int
    collate: Callable[[list[Any]], Any]


class SumOfSquares(nn.Module):
    """Sum of squared errors."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return (prediction - target).pow(2).sum()


class Repeated(Dataset[Any]):
    """The same batch repeated: an iterable for loops, a dataset of batches for peers that make the DataLoader."""

    def __init__(self, batch: tuple[Tensor, Tensor], steps: int) -> None:
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.steps

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the batch."""
        return self.batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batch for every step."""
        return repeat(self.batch, self.steps)


def full_batch(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int) -> Task:
    """Return a task of one epoch with the same batch in every step."""
    batch = (x, y)
    batches = Repeated(batch, steps)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return Task(model, SumOfSquares(), optimizer, 1, batches, batches, 1, lambda items: items[0])


def seed(steps: int) -> Task:
    """Return the two-layer network of the ladder."""
    model = nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))
    return full_batch(model, torch.randn(64, 1000), torch.randn(64, 10), 1e-4, steps)


def tiny(steps: int) -> Task:
    """Return the linear stack on one example."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 5))
    x, y = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    return full_batch(model, x, y, 1e-6, steps)


@cache
def examples() -> TensorDataset:
    """Return data of the size of MNIST."""
    return TensorDataset(torch.randn(60_000, 784), torch.randint(10, (60_000,)))


def mini(epochs: int) -> Task:
    """Return the network on shuffled batches."""
    dataset = examples()
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    batches = DataLoader(dataset, batch_size=64, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters())
    return Task(model, nn.CrossEntropyLoss(), optimizer, epochs, batches, dataset, 64, default_collate)


# How to build each work, and the length of a short and a long run in steps (mini: epochs). The difference includes the
# saves and logs of peers that do these every 500 steps.
WORKS = {"seed": (seed, 500, 1000), "tiny": (tiny, 500, 1500), "mini": (mini, 1, 2)}


def bare(task: Task) -> None:
    """Train as a script would."""
    for _ in range(task.epochs):
        for x, y in task.batches:
            loss = task.loss(task.model(x), y)
            loss.item()
            task.optimizer.zero_grad()
            loss.backward()
            task.optimizer.step()


def lightning_trainer(task: Task, log: bool, **options: Any) -> None:
    """Train with PyTorch Lightning's Trainer."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss = task.model, task.loss

        def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
            x, y = batch
            loss = self.loss(self.model(x), y)
            if log:
                self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return task.optimizer

    trainer = lightning.Trainer(accelerator="cpu", devices=1, max_epochs=task.epochs, **options)
    trainer.fit(Module(), task.batches)


def fabric(task: Task) -> None:
    """Train with a plain loop over parts that Lightning Fabric set up."""
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    model, optimizer = fabric.setup(task.model, task.optimizer)
    batches = task.batches
    if isinstance(batches, DataLoader):
        batches = fabric.setup_dataloaders(batches)
    for _ in range(task.epochs):
        for x, y in batches:
            loss = task.loss(model(x), y)
            loss.item()
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()


def ignite_engine(task: Task, handlers: bool) -> None:
    """Train with Ignite's engine, with or without a running average of the loss and a progress bar."""
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import ProgressBar
    from ignite.metrics import RunningAverage

    trainer = create_supervised_trainer(task.model, task.optimizer, task.loss)
    if handlers:
        RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
        ProgressBar().attach(trainer, ["loss"])
    trainer.run(task.batches, max_epochs=task.epochs)


def skorch(task: Task) -> None:
    """Train with skorch's NeuralNet, without held-out rows."""
    from skorch import NeuralNet

    net = NeuralNet(
        task.model,
        criterion=task.loss,
        optimizer=type(task.optimizer),
        lr=task.optimizer.defaults["lr"],
        max_epochs=task.epochs,
        batch_size=task.batch_size,
        iterator_train__shuffle=True,
        iterator_train__collate_fn=task.collate,
        train_split=None,
    )
    net.fit(task.dataset, None)


def hf_trainer(task: Task) -> None:
    """Train with the Trainer of Hugging Face's transformers."""
    from transformers import Trainer, TrainingArguments

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss = task.model, task.loss

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": self.loss(self.model(x), labels)}

    arguments = TrainingArguments(
        num_train_epochs=task.epochs, per_device_train_batch_size=task.batch_size, use_cpu=True
    )
    trainer = Trainer(
        Module(),
        arguments,
        train_dataset=task.dataset,
        data_collator=lambda items: dict(zip(("x", "labels"), task.collate(items), strict=True)),
        optimizers=(task.optimizer, None),
    )
    trainer.train()


def accelerate(task: Task) -> None:
    """Train with a plain loop over parts that Accelerate prepared."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer, batches = accelerator.prepare(task.model, task.optimizer, task.batches)
    for _ in range(task.epochs):
        for x, y in batches:
            loss = task.loss(model(x), y)
            loss.item()
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()


OFF = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
# Each peer with the modules that it needs.
PEERS: dict[str, tuple[Callable[[Task], None], tuple[str, ...]]] = {
    "Lightning, defaults": (partial(lightning_trainer, log=True), ("lightning",)),
    "Lightning, everything off": (partial(lightning_trainer, log=False, **OFF), ("lightning",)),
    "Fabric": (fabric, ("lightning",)),
    "Ignite, running average and bar": (partial(ignite_engine, handlers=True), ("ignite", "tqdm")),
    "Ignite, engine alone": (partial(ignite_engine, handlers=False), ("ignite",)),
    "skorch, defaults": (skorch, ("skorch",)),
    "HF Trainer, defaults": (hf_trainer, ("transformers", "accelerate")),
    "Accelerate": (accelerate, ("accelerate",)),
}


@contextmanager
def on_terminal() -> Iterator[None]:
    """Send output to a pseudo-terminal that another process reads, so that reading costs this process nothing."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    reader = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(ours)
    kept = [os.dup(1), os.dup(2)]
    try:
        os.dup2(theirs, 1)
        os.dup2(theirs, 2)
        yield
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(theirs)
        reader.wait()


def seconds(run: Callable[[Task], None], make: Callable[[int], Task], length: int, clock: Callable[[], float]) -> float:
    """Return the time of one run of a work."""
    torch.set_num_threads(1)  # a peer may have changed the number
    torch.manual_seed(0)
    task = make(length)
    gc.collect()
    start = clock()
    run(task)
    return clock() - start


def ratios(peer: Callable[[Task], None], work: str, rounds: int, clock: Callable[[], float]) -> list[float]:
    """Return the time per step of a peer as a ratio to the bare script, one value per round."""
    make, short, long = WORKS[work]
    found = []
    with on_terminal():
        for run in (bare, peer):  # imports the peer
            seconds(run, make, short, clock)
        for _ in range(rounds):
            short_bare, short_peer = (seconds(run, make, short, clock) for run in (bare, peer))
            long_bare, long_peer = (seconds(run, make, long, clock) for run in (bare, peer))
            found.append((long_peer - short_peer) / (long_bare - short_bare))
    return found


def main(argv: list[str]) -> int:
    """Measure the named works, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("works", nargs="*", metavar="WORK", help=", ".join(WORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wall", action="store_true", help="the clock's time, not the process's")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.works) - set(WORKS):
        parser.error(f"no such work: {', '.join(sorted(unknown))}; allowed: {', '.join(WORKS)}")

    os.environ["TERM"] = "xterm-256color"
    found = {distribution.metadata["Name"].lower() for distribution in importlib.metadata.distributions()}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if name in found}
    versions = {"python": platform.python_version(), **versions}
    installed = {name: peer for name, (peer, modules) in PEERS.items() if all(map(importlib.util.find_spec, modules))}
    left_out = [name for name in PEERS if name not in installed]
    load = [round(number, 1) for number in os.getloadavg()]
    clock = time.perf_counter if arguments.wall else time.process_time
    if not arguments.json:
        print(", ".join(f"{name} {version}" for name, version in versions.items()))
        print(f"load {' '.join(map(str, load))}; not installed: {', '.join(left_out) or 'none'}", flush=True)
    results = []
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for name, peer in installed.items():
            for work in arguments.works or WORKS:
                each = ratios(peer, work, arguments.rounds, clock)
                median, low, high = (round(of(each), 3) for of in (statistics.median, min, max))
                results.append({"peer": name, "work": work, "median": median, "min": low, "max": high})
                if not arguments.json:
                    print(f"{name:32} {work:5} {median:6.2f} ({low:.2f} to {high:.2f})", flush=True)
    if arguments.json:
        print(json.dumps({"versions": versions, "load": load, "left_out": left_out, "results": results}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
