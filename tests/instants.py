"""Stopping a run at a chosen instant, and comparing how it ends with a run that never stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Run

from trainer.config import settings, targets
from trainer.runs import trust_list
from trainer.session.metrics_writer import MetricsFile
from trainer.session.prepare import plan_of, prepare
from trainer.session.saver import Saver

CONFIGS = Path(__file__).parents[1] / "configs"
GROUPS = {"model": "two_layer", "data": "random", "loss": "sse", "optim": "sgd", "schedule": "constant"}

# Small, and with all that could go astray: shuffled batches, several steps an epoch, evaluations, a save in mid-epoch.
SMALL = (
    "steps=23",
    "batch_size=8",
    "data.samples=48",
    "data.inputs=12",
    "data.outputs=3",
    "data.validation=0.25",
    "eval_every=4",
    "checkpoint.every=7",
)


def begin(name: str, *words: str) -> Path:
    """Create a run's directory as `trainer run` does and train nothing; without Hydra, which would take most time."""
    given = dict(word.split("=", 1) for word in words)
    choices = {group: given.pop(group, option) for group, option in GROUPS.items()}
    config = settings.defaults()
    for group, option in choices.items():
        config[group] = yaml.safe_load((CONFIGS / group / f"{option}.yaml").read_text())
        config[group].pop("defaults", None)
    for key, value in given.items():
        *sections, last = key.split(".")
        section = config
        for part in sections:
            section = section[part]
        section[last] = yaml.safe_load(value)
    targets.search_working_directory()  # as for whatever the user types
    planned = plan_of(prepare(settings.check(config), choices), {"choices": choices})
    planned.write(Path(name))
    trust_list.add([planned.own_code.digest] if planned.own_code else [])
    return Path(name)


def trained(cli: Callable[..., Any], name: str, *words: str) -> Run:
    """Train a run from its beginning to its end."""
    run = Run(begin(name, *words))
    result = cli("resume", name)
    assert result.code == 0, result.err
    return run


def ending(path: Path | str) -> dict[str, bytes]:
    """Everything that must be the same at the end, byte for byte."""
    last = sorted(Path(path).glob("checkpoints/step-*"))[-1]
    files = {f"{last.name}/{file.name}": file.read_bytes() for file in last.iterdir()}
    return {**files, "metrics.jsonl": (Path(path) / "metrics.jsonl").read_bytes()}


def require_same(path: Path | str, straight: Path | str) -> None:
    """Fail, naming the files that differ, unless two runs ended the same."""
    found, expected = ending(path), ending(straight)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def on_row(action: Callable[[dict[str, Any]], None], patch: pytest.MonkeyPatch | None = None) -> None:
    """Do something each time the loop has handed a row to metrics.jsonl, which is written at once."""
    original = MetricsFile.__call__

    def call(self: MetricsFile, row: dict[str, Any]) -> None:
        original(self, row)
        self.flush()
        action(row)

    (patch or pytest.MonkeyPatch()).setattr(MetricsFile, "__call__", call)


def saved_at_once(patch: pytest.MonkeyPatch | None = None) -> None:
    """Let training wait for each save, so that what is on the disk after a step is known."""
    original = Saver.__call__

    def call(self: Saver, due: bool) -> None:
        original(self, due)
        self._wait()

    (patch or pytest.MonkeyPatch()).setattr(Saver, "__call__", call)


def send_at(step: int, number: int = signal.SIGKILL, times: int = 1) -> Callable[[], Any]:
    """What a fork prepares in order to send itself a signal after the row of a step."""

    def act(row: dict[str, Any]) -> None:
        if row["step"] == step and "loss" in row:
            for _ in range(times):
                os.kill(os.getpid(), number)

    return lambda: (on_row(act), saved_at_once())


def train_and_copy(cli: Callable[..., Any], *words: str, **steps: int) -> None:
    """Train in `straight`; copy its directory to each NAME after step NAME=step: what SIGKILL would leave then."""

    def act(row: dict[str, Any]) -> None:
        for name, step in steps.items():
            if row["step"] == step and "loss" in row:
                shutil.copytree("straight", name)

    with pytest.MonkeyPatch.context() as patch:
        on_row(act, patch)
        saved_at_once(patch)
        trained(cli, "straight", *words)


def without_sums(path: Path) -> None:
    """Make of a run what a version has written that did not keep the sums of config.yaml and the like."""
    status = json.loads((path / "status.json").read_text())
    segments = [{key: value for key, value in one.items() if key != "sums"} for one in status["segments"]]
    kept = {key: value for key, value in status.items() if key not in ("sums", "sha256")}
    (path / "status.json").write_text(json.dumps({**kept, "segments": segments}))
    for file in path.glob("checkpoints/*/manifest.json"):
        manifest = json.loads(file.read_text())
        del manifest["run"]
        file.write_text(json.dumps(manifest))


def content(path: Path) -> dict[str, bytes]:
    """The files and folders below a directory."""
    found = sorted(path.rglob("*"))
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else b"/" for p in found}


CHANGING = ("mkdir", "rename", "replace", "unlink", "rmdir", "ftruncate")


@contextmanager
def at_every_change(act: Callable[[], None]) -> Iterator[None]:
    """Call something after each operation by which the program changes the disk, and amid each write of a file.

    Meanwhile no other thread changes it.
    """
    busy, one_by_one = False, threading.RLock()

    def calling(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal busy
            with one_by_one:
                result = operation(*args, **kwargs)
                if not busy:
                    busy = True
                    act()
                    busy = False
            return result

        return call

    from trainer.files import writing

    def write(path: Path, content: bytes) -> None:
        with open(path, "xb") as file:
            file.write(content[: len(content) // 2])
        calling(lambda: None)()
        with open(path, "ab") as file:
            file.write(content[len(content) // 2 :])
        calling(lambda: None)()

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGING:
            patch.setattr(os, name, calling(getattr(os, name)))
        patch.setattr(writing, "write", write)
        yield
