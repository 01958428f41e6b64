"""What a checkpoint holds on the disk, when it is saved, which are kept, and what is noticed when it is damaged."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import re
from pathlib import Path

import pytest
import torch
from conftest import Run
from instants import SMALL, begin, ending, on_row, trained
from safetensors.torch import load_file

import trainer
from trainer.checkpoints import manifest, store
from trainer.errors import RunFailed

SOURCES = Path(trainer.__file__).parent


def saved(folder: Path, weights: dict, training: dict | None = None, step: int = 5) -> Path:
    return store.write(folder, store.pack(step, weights, training or {}))


# On the disk


def test_four_files_that_any_tool_can_read(cli):
    run = trained(cli, "run", *SMALL, "optim=adam")
    last = run.checkpoints[-1]
    assert last.name == "step-000000000023"
    weights = load_file(last / "model.safetensors")
    assert {name: list(w.shape) for name, w in weights.items()} == {
        "linear1.weight": [100, 12],
        "linear1.bias": [100],
        "linear2.weight": [3, 100],
        "linear2.bias": [3],
    }
    assert all(
        "exp_avg" in name or "step" in name or "generators" in name for name in load_file(last / "training.safetensors")
    )
    state = json.loads((last / "state.json").read_text())
    assert (state["format"], state["step"]) == (1, 23)
    assert state["training"]["state"]["step"] == 23
    assert state["training"]["metrics_bytes"] == (run.path / "metrics.jsonl").stat().st_size


def test_the_manifest_has_the_size_and_sum_of_each_file(cli):
    for folder in trained(cli, "run", *SMALL).checkpoints:
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["format"] == 1
        others = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
        assert manifest["files"] == {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in others.items()
        }


def test_nothing_is_ever_unpickled():
    found = {}
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False"
            if {"pickle", "joblib", "shelve", "marshal"} & set(names) or text in (
                "torch.load",
                "torch.save",
            ):
                found[path.name] = node.lineno
    assert found == {}


def test_shared_weights_are_stored_once(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(5, 3)
            self.out = torch.nn.Linear(3, 5)
            self.out.weight = self.embed.weight
            self.register_buffer("twice", self.embed.weight.detach()[:2])

    model = Tied()
    folder = saved(tmp_path, model.state_dict())
    assert sorted(load_file(folder / "model.safetensors")) == ["embed.weight", "out.bias", "twice"]
    assert json.loads((folder / "state.json").read_text())["aliases"] == {"out.weight": "embed.weight"}
    other = Tied()
    other.load_state_dict(store.load(folder).weights)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert other.out.weight is other.embed.weight


def test_state_that_is_no_tensor_and_layouts_that_are_not_contiguous(tmp_path):
    weights = {
        "columns": torch.arange(6.0).reshape(2, 3).T,
        "expanded": torch.ones(1).expand(4),
        "half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "none": torch.empty(0, 3),
        "mask": torch.tensor([True, False]),
        "net._extra_state": {"calls": 3, "rate": math.inf, "seen": [1, (2, "three")], "last": torch.tensor([1.0])},
    }
    found = store.load(saved(tmp_path, weights)).weights
    assert found.keys() == weights.keys()
    extra = found.pop("net._extra_state")
    assert (extra["calls"], extra["rate"], extra["seen"]) == (3, math.inf, [1, (2, "three")])
    assert torch.equal(extra["last"], torch.tensor([1.0]))
    for name, tensor in found.items():
        assert tensor.dtype == weights[name].dtype
        assert torch.equal(tensor, weights[name])
        assert tensor.data_ptr() % 64 == 0  # as torch allocates: the bits of sums may depend on it


def test_a_checkpoint_stands_by_itself(tmp_path):
    """Training may go on between packing and writing."""
    w = torch.ones(3)
    packed = store.pack(5, {"w": w}, {"momentum": w})
    w.zero_()
    found = store.load(store.write(tmp_path, packed))
    assert found.weights["w"].tolist() == found.training["momentum"].tolist() == [1, 1, 1]


# Saving


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, value):
    with pytest.raises(RunFailed, match="the weights b are not finite after step 5"):
        saved(tmp_path, {"a": torch.ones(2), "b": torch.tensor([1.0, value])})
    assert not list(tmp_path.iterdir())


def test_a_run_whose_weights_run_off_keeps_its_last_good_checkpoint(cli):
    begin("run", *SMALL, "checkpoint.every=2")

    def spoil(row):
        if row["step"] == 9:
            (weights,) = [w for w in spoiled if w.shape == (100, 12)]
            weights.data[0, 0] = math.nan

    spoiled = []
    with pytest.MonkeyPatch.context() as patch:
        step = torch.optim.SGD.step

        def note(self, *args, **kwargs):
            spoiled[:] = self.param_groups[0]["params"]
            return step(self, *args, **kwargs)

        patch.setattr(torch.optim.SGD, "step", note)
        on_row(spoil, patch)
        result = cli("resume", "run")
    assert result.code == 1
    run = Run(Path("run"))
    assert run.checkpoints[-1].name == "step-000000000008"
    assert run.status["state"] == "failed"
    assert all(w.isfinite().all() for w in run.weights().values())


def kept(run: Run) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in run.checkpoints]


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (("checkpoint.every=7",), [21, 23]),
        (("checkpoint.every=7", "checkpoint.keep=1"), [23]),
        (("checkpoint.every=7", "checkpoint.keep=9"), [7, 14, 21, 23]),
        (("checkpoint.every=23", "checkpoint.keep=9"), [23]),
        (("checkpoint.every=100",), [23]),
        (("checkpoint.every=null", "checkpoint.seconds=null"), [23]),
        (("checkpoint.every=null", "checkpoint.seconds=1e-9", "checkpoint.keep=3"), [21, 22, 23]),
    ],
)
def test_which_are_saved_and_kept(cli, words, steps):
    given = {word.partition("=")[0] for word in words}
    common = [word for word in SMALL if word.partition("=")[0] not in given]
    words = [word.replace("1e-9", "0.000000001") for word in words]
    run = trained(cli, "run", *common, *words, "data.validation=0", "eval_every=null")
    assert kept(run) == steps


def test_the_best_is_kept_and_is_that_of_its_step(cli):
    """Its weights are those that a run which ends at that step has."""
    words = [word for word in SMALL if not word.startswith("steps=")]
    run = trained(cli, "run", *words, "steps=60", "optim.lr=0.003", "checkpoint.keep=1")
    best = run.status["best"]
    evaluated = {row["step"]: row["validation_loss"] for row in run.evaluations}
    assert best == {
        "step": min(evaluated, key=evaluated.get),
        "metric": "validation_loss",
        "value": min(evaluated.values()),
    }
    assert 1 < best["step"] < 53
    assert kept(run) == [best["step"], 60]
    short = trained(cli, "short", *words, f"steps={best['step']}", "optim.lr=0.003")
    model = "model.safetensors"
    assert (run.checkpoints[0] / model).read_bytes() == (short.checkpoints[-1] / model).read_bytes()


def test_the_best_of_a_run_that_fails_is_kept(cli):
    """Best at step 8, failed at 10, before the first checkpoint was due."""
    begin("run", *SMALL, "checkpoint.every=100", "mode=max", "eval_every=2")

    def spoil(row):
        if row["step"] == 10 and "loss" in row:
            raise ValueError("out of luck")

    with pytest.MonkeyPatch.context() as patch:
        on_row(spoil, patch)
        assert cli("resume", "run").code == 1
    run = Run(Path("run"))
    assert kept(run) == [run.status["best"]["step"]]
    trained(cli, "straight", *SMALL, "checkpoint.every=100", "mode=max", "eval_every=2")
    assert cli("resume", "run").code == 0
    assert ending("run") == ending("straight")


def test_without_best_only_the_newest_are_kept(cli):
    words = [word for word in SMALL if not word.startswith("steps=")]
    run = trained(cli, "run", *words, "steps=60", "optim.lr=0.003", "checkpoint.keep=1", "checkpoint.best=false")
    assert kept(run) == [60]


def test_how_often_is_saved_changes_no_bits(cli):
    words = [word for word in SMALL if not word.startswith("checkpoint.every=")]
    rare = trained(cli, "rare", "model=dynamic", *words)
    often = trained(cli, "often", "model=dynamic", *words, "checkpoint.every=1")
    ends = [ending(run.path) for run in (rare, often)]
    for end in ends:
        del end[f"{rare.checkpoints[-1].name}/manifest.json"]  # which records the settings, and they differ
    assert ends[0] == ends[1]


def test_how_often_is_evaluated_changes_no_training(cli):
    words = [word for word in SMALL if not word.startswith("eval_every=")]
    for name, every in (("rare", 23), ("often", 1)):
        trained(
            cli, name, "model=dynamic", "optim=sgd_momentum", *words, f"eval_every={every}", "checkpoint.best=false"
        )
    rare, often = Run(Path("rare")), Run(Path("often"))
    assert rare.steps == often.steps
    assert rare.bits()[0] == often.bits()[0]


def test_checkpoints_are_durable_before_the_older_ones_go(cli):
    """Whenever a checkpoint disappears, two whole ones are there."""
    seen = []
    begin("run", *SMALL, "checkpoint.every=3")
    with pytest.MonkeyPatch.context() as patch:
        rename = os.rename

        def look(source, target):
            if ".removed-" in str(target):
                folder = Path(source).parent
                whole = [step for step in manifest.steps(folder) if store.load(folder / manifest.name_of(step))]
                seen.append(whole)
            rename(source, target)

        patch.setattr(os, "rename", look)
        assert cli("resume", "run").code == 0
    assert len(seen) > 3
    assert min(map(len, seen)) >= 3  # the one that goes among them


# Damage


def test_every_flipped_bit_and_every_cut_is_noticed(cli, tmp_path):
    last = trained(cli, "run", *SMALL).checkpoints[-1]
    store.load(last)
    tried = 0
    for file in sorted(last.iterdir()):
        data = file.read_bytes()
        stride = 1 if file.name == "manifest.json" else 1021  # a bit in each KiB
        for position in range(0, len(data.rstrip()), stride):
            flipped = bytearray(data)
            flipped[position] ^= 1 << position % 8
            for damaged in (flipped, data[:position]):
                file.write_bytes(damaged)
                with pytest.raises(manifest.BadCheckpoint, match=re.escape(str(last))):
                    store.load(last)
                tried += 1
        file.write_bytes(data)
    assert tried > 500
    store.load(last)


def sealed(folder: Path, name: str, data: bytes) -> None:
    """Write a file and a manifest that vouches for it, as someone hostile could."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("state.json", b"{}"),
        ("state.json", b"[]"),
        ("state.json", b"null"),
        ("state.json", b"[" * 100_000),
        ("state.json", b"\xff"),
        ("state.json", b'{"step": 5, "aliases": {"x": "nowhere"}, "extra": {}, "training": {}}'),
        ("state.json", b'{"step": 5, "aliases": [], "extra": {}, "training": {}}'),
        ("state.json", b'{"step": 5, "aliases": {}, "extra": {}, "training": {"$tensor": "nowhere"}}'),
        ("state.json", b'{"step": 5, "aliases": {}, "extra": {}, "training": {"$items": [1]}}'),
        ("state.json", b'{"step": "5", "aliases": {}, "extra": {}, "training": {}}'),
        ("state.json", b'{"step": 6, "aliases": {}, "extra": {}, "training": {}}'),
        ("model.safetensors", b""),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        ("model.safetensors", (1 << 62).to_bytes(8, "little") + b"{}"),
        ("training.safetensors", b"\x80\x04cos\nsystem\n"),
    ],
)
def test_what_the_manifest_vouches_for_is_checked_all_the_same(tmp_path, name, data):
    folder = saved(tmp_path, {"w": torch.ones(2)}, {"m": torch.ones(2)})
    sealed(folder, name, data)
    with pytest.raises(manifest.BadCheckpoint, match=re.escape(str(folder))):
        store.load(folder)


@pytest.mark.parametrize(
    "content", [b"{}", b"[]", b"1", b'{"format": 1, "files": {}}', b'{"format": 1, "files": [1]}', b"[" * 100_000]
)
def test_a_manifest_that_is_none_is_noticed(tmp_path, content):
    folder = saved(tmp_path, {"w": torch.ones(2)})
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(manifest.BadCheckpoint, match=re.escape(str(folder))):
        store.load(folder)


def test_only_a_newer_format_counts_as_one(tmp_path):
    folder = saved(tmp_path, {"w": torch.ones(2)})
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"format": 1', '"format": 9'))
    with pytest.raises(manifest.BadCheckpoint, match="has changed"):  # one flipped bit makes a 9 of a 1
        store.load(folder)
    state = json.loads((folder / "state.json").read_text())
    sealed(folder, "state.json", json.dumps({**state, "format": 9}).encode())
    with pytest.raises(manifest.NewerFormat, match="has format 9"):
        store.load(folder)


def test_the_newest_good_one_is_found_and_the_others_named(tmp_path):
    for step in (1, 2, 3):
        saved(tmp_path, {"w": torch.full((2,), float(step))}, step=step)
    (tmp_path / "step-000000000003/state.json").unlink()
    (tmp_path / "step-000000000004").write_text("no folder")
    (tmp_path / ".staged-step-000000000005").mkdir()
    (tmp_path / "step-7").mkdir()
    assert manifest.steps(tmp_path) == [1, 2, 3, 4]
    found, problems = store.newest(tmp_path)
    assert found is not None
    assert (found.step, found.weights["w"].tolist()) == (2, [2, 2])
    assert [re.search(r"step-\d+", problem)[0][-1] for problem in problems] == ["4", "3"]
    store.tidy(tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_no_checkpoints_are_no_problem(tmp_path):
    assert store.newest(tmp_path) == (None, [])
    assert store.newest(tmp_path / "nowhere") == (None, [])
