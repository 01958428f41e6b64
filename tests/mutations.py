"""A run with one file changed, in everything that a command's numbers come from: who notices it, and who does not.

A case is silent if a command ends well with other numbers than those of the unchanged run, and neither it nor `verify`
says a word.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from instants import on_row, saved_at_once

Cli = Callable[..., Any]
Change = Callable[[Path], None]
COPY, MODEL = Path("changed"), "model.safetensors"
ROW = "age=5,city=Ulm,zip=200"
WORDS = (
    *("experiment=table", "data.path=t.csv", "data.target=price", "data.categories=[zip]", "data.validation=0.25"),
    *("model.sizes=[4]", "model.dropout=0.1", "batch_size=4", "eval_every=3", "checkpoint.every=5", "optim=adam"),
    "logger=none",
)


@dataclass(frozen=True)
class Mutation:
    """A change of one file of a run."""

    source: str
    file: str
    what: str
    change: Change

    def __str__(self) -> str:
        return f"{self.source}/{self.file}: {self.what}"


def originals(cli: Cli) -> None:
    """Make a run that has been resumed with other settings, one that was killed, and a sweep."""
    chance = random.Random(0)
    lines = [
        f"{chance.randint(1, 99)},{chance.choice(('Ulm', 'Bonn', 'Kiel'))},{chance.choice((100, 200))},"
        f"{chance.random():.3f}"
        for _ in range(24)
    ]
    Path("t.csv").write_text("age,city,zip,price\n" + "\n".join(lines) + "\n")

    def kill(row: dict[str, Any]) -> None:
        if row["step"] == 13 and "loss" in row:
            shutil.copytree("done", "killed")

    with pytest.MonkeyPatch.context() as patch:
        on_row(kill, patch)
        saved_at_once(patch)
        assert cli("run", "run_dir=done", *WORDS, "steps=15", "optim.lr=0.01").code == 0
    assert cli("resume", "done", "steps=20", "optim.lr=0.02").code == 0
    assert cli("run", "-m", "run_dir=sweep", *WORDS, "steps=6", "optim.lr=0.01,0.02").code == 0


# What is changed


def mutations() -> Iterator[Mutation]:
    """Every change of one file."""
    for source in ("done", "killed"):
        yield from _in_preprocess(source)
        yield from _in_config(source)
        yield from _in_status(source)
        yield from _in_rows(source)
        yield from _in_checkpoints(source)
    yield from _in_sweep()


def _in_preprocess(source: str) -> Iterator[Mutation]:
    file = "preprocess.json"
    yield from _of_bytes(source, file)
    data = json.loads(Path(source, file).read_text())
    for path in [*_leaves(data, ()), *_lists(data, ())]:
        yield Mutation(source, file, _dotted(path), _in_json(file, path))
    yield Mutation(source, file, "deleted", lambda run: (run / file).unlink())


def _in_config(source: str) -> Iterator[Mutation]:
    file = "config.yaml"
    config = yaml.safe_load(Path(source, file).read_text())

    def change(run: Path, path: tuple[Any, ...]) -> None:
        data = yaml.safe_load((run / file).read_text())
        _set(data, path)
        (run / file).write_text(yaml.safe_dump(data, sort_keys=False))

    for path in _leaves(config, ()):
        yield Mutation(source, file, _dotted(path), lambda run, path=path: change(run, path))  # type: ignore[misc]


def _in_status(source: str) -> Iterator[Mutation]:
    file = "status.json"
    data = json.loads(Path(source, file).read_text())
    for path in _leaves(data, ()):
        yield Mutation(source, file, _dotted(path), _in_json(file, path))
    for what in ("sums", "sha256"):
        yield Mutation(source, file, f"no {what}, and another seed", lambda run, w=what: _unvouched(run, w))  # type: ignore[misc]
    more = {"metrics": {**data["metrics"], "validation_mae": 0.001}}
    yield Mutation(source, file, "a metric more", lambda run: _edit(run / file, **more))


def _unvouched(run: Path, what: str) -> None:
    """Change the seed in config.yaml and status.json, and take from the latter what vouched for it."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["seed"] += 1
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    status = json.loads((run / "status.json").read_text())
    status["config"]["seed"] += 1
    for part in status["segments"] if what == "sums" else [status]:
        part.pop(what)
    (run / "status.json").write_text(json.dumps(status))


def _in_rows(source: str) -> Iterator[Mutation]:
    file = "metrics.jsonl"
    manifest = json.loads((sorted(Path(source, "checkpoints").iterdir())[-1] / "manifest.json").read_text())
    length = manifest["run"]["metrics"]["size"]
    last = Path(source, file).read_bytes()[:length].count(b"\n") - 1

    def rows(edit: Callable[[list[bytes]], Any]) -> Change:
        def change(run: Path) -> None:
            lines = (run / file).read_bytes().splitlines(keepends=True)
            edit(lines)
            (run / file).write_bytes(b"".join(lines))

        return change

    def digit(lines: list[bytes], place: int) -> None:
        at = lines[place].index(b'loss": ') + 9
        while not lines[place][at : at + 1].isdigit():
            at += 1
        lines[place] = lines[place][:at] + b"%d" % (9 - int(lines[place][at : at + 1])) + lines[place][at + 1 :]

    for place in (0, last // 2, last):
        yield Mutation(source, file, f"digit in row {place}", rows(lambda lines, p=place: digit(lines, p)))  # type: ignore[misc]
        yield Mutation(source, file, f"row {place} twice", rows(lambda lines, p=place: lines.insert(p, lines[p])))  # type: ignore[misc]
        yield Mutation(source, file, f"row {place} gone", rows(lambda lines, p=place: lines.pop(p)))  # type: ignore[misc]
        yield Mutation(source, file, f"a byte before row {place}", rows(lambda lines, p=place: lines.insert(p, b" ")))  # type: ignore[misc]
    yield Mutation(source, file, "two rows swapped", rows(lambda lines: lines.insert(0, lines.pop(1))))
    if source == "done":
        for more in (b"x", b"\n", b'{"step": 21, "epoch": 4, "loss": 0.5, "lr": 0.02}\n'):
            yield Mutation(source, file, f"{more!r} appended", rows(lambda lines, m=more: lines.append(m)))  # type: ignore[misc]


def _in_checkpoints(source: str) -> Iterator[Mutation]:
    folders = sorted(path.name for path in Path(source, "checkpoints").iterdir())
    for folder in folders:
        for name in ("model.safetensors", "training.safetensors", "state.json", "manifest.json"):
            yield from _of_bytes(source, f"checkpoints/{folder}/{name}")
        manifest = f"checkpoints/{folder}/manifest.json"
        for path in _leaves(json.loads(Path(source, manifest).read_text()), ()):
            yield Mutation(source, manifest, _dotted(path), _in_json(manifest, path))
        yield Mutation(source, manifest, "no run", lambda run, m=manifest: _without_run(run / m))  # type: ignore[misc]
    for one, other in pairwise(folders):
        yield Mutation(source, "checkpoints", f"{one} copied to {other}", lambda run, a=one, b=other: _copy(run, a, b))  # type: ignore[misc]


def _without_run(file: Path) -> None:
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "run"}))


def _copy(run: Path, one: str, other: str) -> None:
    shutil.rmtree(run / "checkpoints" / other)
    shutil.copytree(run / "checkpoints" / one, run / "checkpoints" / other)


def _in_sweep() -> Iterator[Mutation]:
    for jobs in ([], ["000"], ["001", "000"], ["000", "000"], ["000", "001", "002"]):
        yield Mutation("sweep", "sweep.json", f"jobs {jobs}", lambda run, j=jobs: _edit(run / "sweep.json", jobs=j))  # type: ignore[misc]
    yield Mutation("sweep", "sweep.json", "format", lambda run: _edit(run / "sweep.json", format=2))
    yield Mutation("sweep", "sweep.json", "swept", lambda run: _edit(run / "sweep.json", swept=[]))
    yield Mutation("sweep", "001", "removed", lambda run: shutil.rmtree(run / "001"))
    for path in _leaves(json.loads(Path("sweep/001/status.json").read_text()), ()):
        if path[0] in ("step", "best", "metrics", "swept", "config", "state"):
            yield Mutation("sweep", "001/status.json", _dotted(path), _in_json("001/status.json", path))


def _edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def _of_bytes(source: str, file: str) -> Iterator[Mutation]:
    size = Path(source, file).stat().st_size

    def flip(run: Path, at: int) -> None:
        data = bytearray((run / file).read_bytes())
        data[at] ^= 2
        (run / file).write_bytes(data)

    for at in (0, size // 3, size // 2, size - 2):
        yield Mutation(source, file, f"a bit of byte {at}", lambda run, at=at: flip(run, at))  # type: ignore[misc]
    cut = slice(None, size // 2)
    yield Mutation(
        source, file, "cut in half", lambda run: (run / file).write_bytes((run / file).read_bytes()[cut]) and None
    )
    yield Mutation(
        source, file, "a byte appended", lambda run: (run / file).write_bytes((run / file).read_bytes() + b" ") and None
    )


def _in_json(file: str, path: tuple[Any, ...]) -> Change:
    def change(run: Path) -> None:
        data = json.loads((run / file).read_text())
        _set(data, path)
        (run / file).write_text(json.dumps(data))

    return change


def _leaves(data: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        if isinstance(value, dict | list):
            yield from _leaves(value, (*path, key))
        elif _other(value, key) != value:
            yield (*path, key)


def _lists(data: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    if isinstance(data, list) and len(data) > 1:
        yield path
    for key, value in items:
        yield from _lists(value, (*path, key))


def _set(data: Any, path: tuple[Any, ...]) -> None:
    """Change a value to one of its kind, turn a list round."""
    *sections, last = path
    for key in sections:
        data = data[key]
    data[last] = _other(data[last], last)


def _other(value: Any, key: Any) -> Any:
    if isinstance(value, list):
        return value[::-1]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.25 + 0.01
    if isinstance(value, str):
        others = {"min": "max", "max": "min", "done": "stopped", "float32": "float64"}
        digit = value[:1] in "0123456789abcdef" and len(value) == 64
        return others.get(value, ("1" if value[0] == "0" else "0") + value[1:] if digit else value + "x")
    return 3 if key in ("clip_norm", "patience", "every", "seconds", "epochs") else value


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


# What is done with it

LOOKING: dict[str, tuple[str, ...]] = {
    "show": ("show", str(COPY), "--json"),
    "parameters": ("show", str(COPY), "--parameters", "--json"),
    "predict": ("predict", str(COPY), "--row", ROW, "--json"),
    "eval": ("eval", str(COPY), "--json"),
    "eval last": ("eval", str(COPY), "--checkpoint", "last", "--json"),
    "inspect": ("inspect", str(COPY), "--json"),
}
DOING: dict[str, tuple[str, ...]] = {
    "export": ("export", str(COPY), "--format", "safetensors", "--output", "exported"),
    "resume": ("resume", str(COPY)),
    "reproduce": ("reproduce", str(COPY)),
}
OF_SWEEPS: dict[str, tuple[str, ...]] = {"show": LOOKING["show"], "resume": DOING["resume"]}


@dataclass(frozen=True)
class Outcome:
    """What a command said of a run: whether it refused it or warned, and its numbers."""

    refused: bool
    warned: bool
    numbers: Any


def outcomes(cli: Cli, source: str, change: Change = lambda run: None) -> tuple[bool, dict[str, Outcome]]:
    """Change a copy of a run; return whether `verify` finds fault with it, and what the commands make of it."""
    commands = OF_SWEEPS if source == "sweep" else {**LOOKING, **DOING}
    found = {}
    _copied(source, change)
    noticed = cli("verify", str(COPY)).code != 0
    for name, words in commands.items():
        if name in DOING:
            _copied(source, change)
            shutil.rmtree("exported", ignore_errors=True)
        if name == "resume" and source == "done":
            words = (*words, "steps=23")
        result = cli(*words)
        numbers = _numbers(name, result) if result.code == 0 else None
        found[name] = Outcome(result.code != 0, "warning: " in result.err, numbers)
    return noticed, found


def _copied(source: str, change: Change) -> None:
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(source, COPY)
    change(COPY)


def _numbers(name: str, result: Any) -> Any:
    """What a command's numbers are: what it prints, or of what it writes the files."""
    if name == "export":
        return [(file.name, file.read_bytes()) for file in sorted(Path("exported").iterdir())]
    if name == "resume":
        folders = [COPY] if (COPY / "metrics.jsonl").exists() else sorted(COPY.glob("[0-9]*"))
        files = [
            (folder / "metrics.jsonl", sorted(folder.glob("checkpoints/step-*"))[-1] / MODEL) for folder in folders
        ]
        return [(rows.read_bytes(), weights.read_bytes()) for rows, weights in files]
    if name in ("show", "parameters"):
        shown = json.loads(result.out)
        return {key: value for key, value in shown.items() if key != "checkpoints"}  # sizes of files as they are
    return "identical" in result.out if name == "reproduce" else result.out


@dataclass
class Counts:
    """How many changes were noticed by `verify`, refused by a command, and what was silent, or changed nothing."""

    tried: int = 0
    noticed: int = 0
    refused: int = 0
    silent: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = f"{self.tried} changes: {self.noticed} noticed by verify, {self.refused} refused by commands"
        return "\n".join([f"{head}, {len(self.silent)} silent", *self.silent, "without any effect:", *self.idle])


def count(cli: Cli, stride: int = 1) -> Counts:
    """Try every change, or each so many."""
    originals(cli)
    expected = {}
    for source in ("done", "killed", "sweep"):
        faulty, expected[source] = outcomes(cli, source)
        assert not faulty, f"verify finds fault with {source} as it is"
        assert [name for name, one in expected[source].items() if one.refused] == []
    counts = Counts()
    for mutation in list(mutations())[::stride]:
        noticed, found = outcomes(cli, mutation.source, mutation.change)
        counts.tried += 1
        counts.noticed += noticed
        counts.refused += any(one.refused for one in found.values())
        others = [
            name
            for name, one in found.items()
            if not one.refused and not one.warned and one.numbers != expected[mutation.source][name].numbers
        ]
        if others and not noticed:
            counts.silent += (f"{mutation}: {', '.join(others)}",)
        elif not noticed and not any(one.refused for one in found.values()):
            counts.idle += (str(mutation),)
    return counts
