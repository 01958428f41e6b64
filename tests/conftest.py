"""How the tests call the command: in this process, or in a fork of it that can be killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy has threads of its own; read when it is imported
os.environ.pop("COLUMNS", None)  # rich reads it when it is imported; a test that needs a width sets it

import pytest
import torch

from trainer.cli import main
from trainer.runs import code_import, own_modules

# A shell that starts the tests in the background makes them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# One thread: forks are safe before any thread pool has started, and the numbers do not depend on the cores.
torch.set_num_threads(1)
torch.nn.Linear(1, 1)
torch.optim.SGD([torch.zeros(1, requires_grad=True)]).step()


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


class Run:
    """The files of one run directory, read without the code under test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if "loss" in row]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if "loss" not in row]

    @property
    def status(self) -> dict[str, Any]:
        return json.loads((self.path / "status.json").read_text())

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").iterdir())

    def weights(self, which: int = -1) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        return load_file(self.checkpoints[which] / "model.safetensors")

    def bits(self) -> tuple[bytes, bytes]:
        """The final weights and the metrics, byte for byte."""
        return (self.checkpoints[-1] / "model.safetensors").read_bytes(), (self.path / "metrics.jsonl").read_bytes()


@pytest.fixture(autouse=True)
def workdir(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Every test works in an empty directory of its own, with an empty list of trusted code; it leaves no modules."""
    before = list(sys.path)
    modules = {*sys.modules}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    own_modules.begin()
    yield tmp_path
    sys.path[:] = before
    for name in {*sys.modules} - modules:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    code_import.uninstall()
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Call the command in this process."""

    def call(*words: str) -> Result:
        capfd.readouterr()
        own_modules.begin()
        code = main(list(words))
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture
def train(cli: Callable[..., Result]) -> Callable[..., Run]:
    """Train with `trainer run WORDS` in a directory of that name; it must succeed."""

    def call(*words: str, name: str = "run") -> Run:
        result = cli("run", f"run_dir={name}", *words)
        assert result.code == 0, result.err
        return Run(Path(name))

    return call


@pytest.fixture
def refused(cli: Callable[..., Result], workdir: Path) -> Callable[..., str]:
    """Call a command that must be refused in one line, with nothing created; return the line."""

    def call(*words: str) -> str:
        before = list(workdir.iterdir())
        result = cli(*words)
        assert result.code == 2
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
        assert result.out == ""
        assert list(workdir.iterdir()) == before
        return result.err

    return call


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], None]:
    """Make whoever calls commands from here on someone else, with an empty list of trusted code."""

    def become() -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("other")))

    return become


class Fork:
    """The command in a forked child with output in a file."""

    def __init__(self, words: tuple[str, ...], prepare: Callable[[], None] = lambda: None) -> None:
        self.output = Path(f"output-{time.monotonic_ns()}")
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                descriptor = os.open(self.output, os.O_CREAT | os.O_WRONLY)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                sys.stdout = os.fdopen(1, "w", closefd=False)
                sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
                prepare()
                code = main(list(words))
                sys.stdout.flush()
            finally:
                os._exit(code)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Return the exit code, negative for a signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def text(self) -> str:
        return self.output.read_text()


@pytest.fixture
def fork() -> Callable[..., Fork]:
    """Start the command in a child process: fork("run", "steps=10")."""

    def call(*words: str, prepare: Callable[[], None] = lambda: None) -> Fork:
        return Fork(words, prepare)

    return call


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something another process does; only a failure takes so long, on a busy machine, too."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)
    return value


@pytest.fixture
def own_part() -> Iterator[Callable[[str, str, str, str], None]]:
    """Write a part of one's own: own_part("data", "line", source of its module, YAML of its arguments); data=line."""
    written = []

    def write(group: str, option: str, source: str, arguments: str = "") -> None:
        name = f"own_{option}"
        sys.modules.pop(name, None)
        written.append(name)
        Path(f"{name}.py").write_text(source)
        Path("configs", group).mkdir(parents=True, exist_ok=True)
        Path("configs", group, f"{option}.yaml").write_text(f"# A {option}\n_target_: {name}.Part\n{arguments}")

    yield write
    for name in written:
        sys.modules.pop(name, None)


MORTAL = """
import os, signal, time, torch


class Part(torch.nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)

    def forward(self, x):
        if os.path.exists("die") and self.training and len(x) > 2:  # not while it is checked
            if torch.initial_seed() == 1:
                {death}
            {others}
        return super().forward(x)
"""


@pytest.fixture
def mortal(own_part: Callable[..., None]) -> Callable[..., None]:
    """Make model=mortal, which dies in the job of seed 1 while there is a file `die`: mortal(how, what others do)."""

    def make(death: str, others: str = "pass") -> None:
        own_part("model", "mortal", MORTAL.format(death=death, others=others), "inputs: null\noutputs: null\n")
        Path("die").touch()

    return make
