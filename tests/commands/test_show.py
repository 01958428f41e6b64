"""`trainer show`: what a run is, what came of it, what made it, and its weights with the gradients of the next step."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import Run
from instants import begin, content, trained
from safetensors.torch import load_file

TINY = ("data.inputs=4", "model.hidden=3", "steps=6")
NET = """
from torch import nn

class Part(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
"""
NO_TORCH = """
import sys
from trainer.cli import main
for words in (["runs"], ["show", "run"], ["show", "run", "--json"], ["compare", "run", "other"]):
    assert main(words) == 0, words
    assert not {"torch", "numpy", "hydra", "omegaconf", "safetensors"} & set(sys.modules), words
"""


def sections(text: str) -> dict[str, str]:
    """The parts of what is shown, by their headings; the first one is ""."""
    found, name = {"": ""}, ""
    for line in text.splitlines():
        if heading := re.match(
            r"(config|made by|checkpoints|results|gradients|optimizer state|optimizer|parameters)", line
        ):
            name = heading[1]
            found[name] = ""
        found[name] += line + "\n"
    return found


def rows(text: str) -> dict[str, str]:
    """The texts of two columns by their names."""
    return dict(re.findall(r"^  (\S.*?)  +(.*)$", text, re.MULTILINE))


def commands(text: str) -> list[list[str]]:
    """What one may type next, as a shell would hand it on."""
    lines = re.findall(r"^  \S.*?  trainer ((?:show|compare|resume|run) .*)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def edit(path: Path, **fields: object) -> None:
    """Write other fields into a status.json."""
    file = path / "status.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_a_run_from_its_result_to_its_checkpoints(cli, train):
    run = train("data.validation=0.25", "batch_size=16", "clip_norm=1", "name=first", "optim=adam", *TINY)
    assert cli("resume", "run", "steps=9").code == 0
    result = cli("show", "run")
    assert result.code == 0
    part, status = sections(result.out), run.status
    said = rows(part[""])
    assert (said["name"], said["state"]) == ("first", "done at step 9 of 9")
    assert said["loss"] == f"{run.steps[-1]['loss']:.6g}"
    assert said["validation loss"] == f"{run.evaluations[-1]['validation_loss']:.6g}"
    best = min(run.evaluations, key=lambda row: row["validation_loss"])
    assert said["best"] == f"validation loss {best['validation_loss']:.6g} at step {best['step']}"
    said = rows(part["config"])
    assert said["model"] == "two_layer  55 parameters  hidden=3 init=linear"
    assert said["data"].startswith("random  48 rows to train on, 16 to validate  samples=64 inputs=4")
    assert said["optim"].startswith("adam  lr=0.0001 betas=[0.9,0.999]")
    assert said["steps"] == "9, batches of 16 rows, 3 steps per epoch"
    assert said["device"] == "cpu, float32, 1 thread"
    assert said["clip_norm"] == "1"
    assert not {"seed", "schedule", "log_every", "name"} & set(said)  # as they are by default, or said above
    made = part["made by"]
    for segment, start in zip(status["segments"], ("0", "6"), strict=True):
        line = next(line for line in made.splitlines() if line.startswith(f"{start} "))
        assert segment["command"] in line
        assert segment["started"][:10] in line
    assert f"torch {torch.__version__}" in made
    assert f"host {status['segments'][0]['machine']['host']}" in made
    saved = rows(part["checkpoints"])
    assert {int(name.split()[1]) for name in saved if name.startswith("step")} == {
        int(path.name[5:]) for path in run.checkpoints
    }
    assert "last" in saved["step 9"]
    assert "best" in saved[f"step {best['step']}"]


def test_what_may_be_typed_next_works(cli, train):
    train(*TINY)
    suggested = commands(cli("show", "run").out)
    assert len(suggested) == 3
    for words in suggested:
        assert cli(*words).code == 0, words
    assert Run(Path("run")).status["step"] == 12


def test_ones_own_modules_are_named_with_their_sums(cli, own_part):
    own_part("model", "net", NET, "inputs: null\noutputs: null\n")
    assert cli("run", "model=net", "run_dir=run", "data.inputs=4", "steps=2").code == 0
    expected = hashlib.sha256(Path("own_net.py").read_bytes()).hexdigest()
    assert rows(cli("show", "run").out)["own_net.py"] == f"SHA-256 {expected}"


def test_circumstances_that_changed_are_told_from_which_step_on(cli, train):
    run = train(*TINY)
    segments = run.status["segments"]
    later = {**segments[0], "from_step": 3, "versions": {**segments[0]["versions"], "torch": "9.9"}}
    edit(run.path, segments=[*segments, later])
    said = rows(cli("show", "run").out)
    assert re.search(r"torch [\d.+a-z]+.*; from step 3 on .*torch 9\.9", said["versions"])
    assert "from step" not in said["machine"]


def test_json_has_everything(cli, train):
    run = train(*TINY)
    found = json.loads(cli("show", "run", "--json").out)
    assert {key: found[key] for key in run.status} == run.status
    sizes = {int(path.name[5:]): sum(f.stat().st_size for f in path.iterdir()) for path in run.checkpoints}
    assert found["checkpoints"] == [{"step": step, "bytes": size} for step, size in sizes.items()]


def test_nothing_heavy_is_imported_to_show_files(train):
    train(*TINY)
    train("seed=1", *TINY, name="other")
    shutil.copytree("run", "runs/20260101-000000-bbbb")
    done = subprocess.run([sys.executable, "-c", NO_TORCH], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("fields", "state", "advised"),
    [
        ({"state": "running"}, "interrupted", ["resume", "run"]),
        ({"state": "stopped"}, "stopped", ["resume", "run"]),
        ({"state": "waiting"}, "waiting", ["resume", "run"]),
        ({"state": "failed", "error": "the loss is inf"}, "failed", ["resume", "run"]),
    ],
)
def test_a_run_that_did_not_end_well_says_how_to_go_on(cli, train, fields, state, advised):
    edit(train(*TINY).path, **fields)
    out = cli("show", "run").out
    assert f"{state} at step 6" in out
    assert advised in commands(out)
    assert fields.get("error", "") in out


def test_a_status_that_cannot_be_read_leaves_the_configuration(cli, train):
    run = train("clip_norm=0.5", *TINY)
    (run.path / "status.json").write_text("{")
    result = cli("show", "run")
    assert result.code == 0
    assert rows(result.out)["clip_norm"] == "0.5"
    assert "unreadable" in result.out


def nested(depth: int) -> dict[str, object]:
    return {"a": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    "fields",
    [
        {"error": "\x1b[31mred", "name": "[red]\x9bx", "choices": {"model": "\x1b]0;t\x07"}},
        {"config": {"optim": "\x1b[2J", "model": [], "device": 3, "batch_size": "\x07"}},
        {"config": nested(200)},
        {"segments": [{"machine": {"host": {"\x1b[31m": ["\x9b"]}}, "seconds": 1e308}]},
        {"metrics": {"loss": None, "\x1b[1m": 1e300}, "rows": {"training": 0}, "steps": -3},
    ],
)
def test_a_status_of_somebody_else_is_data(cli, train, fields):
    edit(train(*TINY).path, **fields)
    for words in (("show", "run"), ("show", "run", "--json"), ("compare", "run", "run2")):
        shutil.copytree("run", "run2", dirs_exist_ok=True)
        result = cli(*words)
        assert result.code == 0, result.err
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", result.out + result.err)


def test_parameters_of_two_numbers_are_numbers(cli):
    """(a b - 15)^2 has the derivative 2 (a b - 15) b by a; Adam keeps their means."""
    assert cli("run", "model=product", "data=none", "optim=adam", "run_dir=run", "steps=30", "optim.lr=1e-2").code == 0
    weights = load_file(Run(Path("run")).checkpoints[-1] / "model.safetensors")
    a, b = float(weights["a"]), float(weights["b"])
    slopes = {"a": 2 * (a * b - 15) * b, "b": 2 * (a * b - 15) * a}
    result = cli("show", "run", "--parameters")
    assert result.code == 0
    part = sections(result.out)
    for name, value in (("a", a), ("b", b)):
        assert re.search(rf"^{name} +{re.escape(f'{value:.6g}')}$", part["parameters"], re.MULTILINE)
        shown = float(re.search(rf"^{name} +(-?[\d.e-]+)$", part["gradients"], re.MULTILINE)[1])
        assert shown == pytest.approx(slopes[name], rel=1e-4)
    assert float(rows(part["gradients"])["loss"]) == pytest.approx((a * b - 15) ** 2, rel=1e-4)
    assert (rows(part["optimizer"])["lr"], rows(part["optimizer"])["eps"]) == ("0.01", "1e-08")
    kept = rows(part["optimizer state"])
    assert kept["a step"] == kept["b step"] == "30"
    saved = load_file(Run(Path("run")).checkpoints[-1] / "training.safetensors")
    means = {f"{float(tensor):.6g}" for name, tensor in saved.items() if name.endswith(("exp_avg", "exp_avg_sq"))}
    assert {kept[f"{w} {name}"] for w in "ab" for name in ("exp_avg", "exp_avg_sq")} == means


@pytest.mark.parametrize("words", [["model=mlp", "model.dropout=0.5", "model.sizes=[5]"], ["model=dynamic"]])
def test_gradients_are_those_that_the_next_step_takes(cli, words):
    """Of what draws at random in every step, too: plain descent moves each weight by lr times its gradient."""
    more = ("data.inputs=4", "data.outputs=2", "batch_size=8", "device.dtype=float64", "optim.lr=0.125", "loss=mse")
    assert cli("run", "run_dir=run", "steps=9", *words, *more).code == 0
    found = json.loads(cli("show", "run", "--parameters", "--json").out)["checkpoint"]
    before = Run(Path("run")).weights()
    assert cli("resume", "run", "steps=10").code == 0
    run = Run(Path("run"))
    after = run.weights()
    assert (found["step"], found["next_step"]["step"]) == (9, 10)
    assert found["next_step"]["loss"] == run.steps[-1]["loss"]
    assert {one["name"] for one in found["next_step"]["gradients"]} == before.keys()
    for one in found["next_step"]["gradients"]:
        moved = (before[one["name"]] - after[one["name"]]) / 0.125
        if "mean" in one:
            expected = [float(value) for value in (moved.mean(), moved.min(), moved.max(), moved.std(correction=0))]
            shown = [one[key] for key in ("mean", "smallest", "largest", "spread")]
            assert shown == pytest.approx(expected, rel=1e-9, abs=1e-12)
        else:  # nothing went through it in this step
            assert not moved.any()


def test_parameters_are_described_as_they_are_saved(cli):
    run = trained(cli, "run", *TINY, "optim=adam")
    found = json.loads(cli("show", "run", "--parameters", "--json").out)["checkpoint"]
    weights = run.weights()
    assert [one["name"] for one in found["parameters"]] == [
        *("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")
    ]
    for one in found["parameters"]:
        saved = weights[one["name"]].double()
        assert one["shape"] == list(saved.shape)
        assert (one["smallest"], one["largest"]) == (float(saved.min()), float(saved.max()))
        assert one["mean"] == pytest.approx(float(saved.mean()))
        assert one["spread"] == pytest.approx(float(((saved - saved.mean()) ** 2).mean() ** 0.5))
    kept = {(one["weight"], one["name"]): one["shape"] for one in found["optimizer"]["state"]}
    assert kept["linear1.weight", "exp_avg"] == [3, 4]
    assert found["optimizer"]["settings"][0]["betas"] == [0.9, 0.999]


def test_looking_at_parameters_changes_no_file(cli):
    run = trained(cli, "run", "batch_size=16", "data.validation=0.25", *TINY)
    before = content(run.path)
    assert cli("show", "run", "--parameters").code == 0
    assert content(run.path) == before


def test_any_checkpoint_can_be_asked_for(cli):
    run = trained(cli, "run", "batch_size=16", "data.validation=0.25", "optim.lr=0.001", "checkpoint.every=2", *TINY)
    best = run.status["best"]["step"]
    for which, step in (("last", 6), ("best", best), ("4", 4)):
        found = json.loads(cli("show", "run", "--parameters", "--checkpoint", which, "--json").out)["checkpoint"]
        weights = load_file(run.path / f"checkpoints/step-{step:012d}/model.safetensors")
        assert found["step"] == step
        assert found["parameters"][0]["largest"] == float(weights[found["parameters"][0]["name"]].max())


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["show"], ["show: which run? `trainer show last`"]),
        (["show", "run", "run"], ["show: one run at a time"]),
        (["show", "nowhere"], ["nowhere: no such run"]),
        (["show", "run", "--checkpoint=best"], ["--checkpoint: only works with --parameters"]),
        (
            ["show", "run", "--parameters", "--checkpoint", "5"],
            ["run has no such checkpoint", "allowed: best, last, 6"],
        ),
        (["show", "run", "--parameters", "--checkpoint", "\x1b[2J"], ["no such checkpoint; allowed: best, last, 6"]),
        (["show", "run", "--parameter"], ["--parameter: no such flag", "did you mean --parameters?"]),
    ],
)
def test_a_wrong_word_gets_one_line(refused, train, words, parts):
    train(*TINY)
    line = refused(*words)
    for part in parts:
        assert part in line


def test_a_run_without_checkpoints_has_no_parameters(refused, cli):
    begin("run", *TINY)
    assert "run has no checkpoint yet" in refused("show", "run", "--parameters")
    assert "none yet" in cli("show", "run").out


def test_foreign_code_runs_only_when_it_is_trusted(cli, refused, own_part, stranger):
    own_part("model", "net", NET, "inputs: null\noutputs: null\n")
    assert cli("run", "model=net", "run_dir=run", "data.inputs=4", "steps=2").code == 0
    Path("own_net.py").unlink()
    sys.modules.pop("own_net")
    stranger()
    line = refused("show", "run", "--parameters")
    assert "read run/code/own_net.py first" in line
    assert "`trainer show run --parameters --trust-code` runs it" in line
    assert "own_net" not in sys.modules
    assert cli("show", "run").code == 0  # which imports nothing of it
    result = cli("show", "run", "--parameters", "--trust-code")
    assert result.code == 0, result.err
    assert re.search(r"^weight +10 x 4 ", sections(result.out)["gradients"], re.MULTILINE)


def test_a_module_that_has_changed_is_imported_only_when_insisted_on(cli, refused, own_part, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # an edit within a second would not be noticed
    own_part("model", "net", NET, "inputs: null\noutputs: null\n")
    assert cli("run", "model=net", "run_dir=run", "data.inputs=4", "steps=2").code == 0
    Path("own_net.py").write_text(NET + "# edited\n")
    sys.modules.pop("own_net")
    assert "`trainer show run --parameters --force`" in refused("show", "run", "--parameters")
    result = cli("show", "run", "--parameters", "--force")
    assert result.code == 0
    assert f"warning: {Path('own_net.py').absolute()} differs from the copy that the run keeps" in result.err


def test_weights_are_shown_where_the_run_cannot_be_built(cli, own_part):
    own_part(
        "data",
        "line",
        """
from pathlib import Path
import torch
from trainer.data import Data

class Part(Data):
    def __init__(self, path):
        super().__init__(torch.full((4, 2), float(Path(path).read_text())), torch.ones(4, 1))
""",
        "path: numbers.txt\n",
    )
    Path("numbers.txt").write_text("0.5")
    assert cli("run", "data=line", "run_dir=run", "steps=2", "model.hidden=3").code == 0
    Path("numbers.txt").unlink()
    result = cli("show", "run", "--parameters")
    assert result.code == 0, result.err
    part = sections(result.out)
    assert "linear1.weight" in part["parameters"]
    assert "the run can't be built here" in part["gradients"]
    assert "numbers.txt" in part["gradients"]
    assert rows(part["optimizer"])["lr"] == "0.0001"


def test_gradients_that_are_not_finite_are_called_so(cli):
    trained(cli, "run", "steps=1", "optim.lr=1.0e+30", "data.inputs=4", "model.hidden=3")
    result = cli("show", "run", "--parameters")
    assert result.code == 0, result.err
    assert re.search(r"the loss is (inf|nan) at step 2", sections(result.out)["gradients"])


def test_a_damaged_checkpoint_is_named(cli, train):
    run = train(*TINY)
    (run.checkpoints[-1] / "model.safetensors").write_bytes(b"x")
    result = cli("show", "run", "--parameters")
    assert (result.code, result.out) == (1, "")
    assert "model.safetensors has 1 bytes" in result.err


@pytest.fixture
def sweep(cli):
    assert cli("run", "-m", "optim.lr=1e-5,1e-3", "seed=0,1", *TINY).code == 0
    (path,) = Path("runs").glob("2*")
    return path


def test_a_sweep_says_what_it_varies_and_how_its_jobs_did(cli, sweep):
    result = cli("show", "last")
    assert result.code == 0
    said = rows(sections(result.out)[""])
    assert (said["jobs"], said["optim.lr"], said["seed"]) == ("4 done", "1e-05, 0.001", "0, 1")
    assert said["command"].startswith("trainer run -m optim.lr=1e-5,1e-3")
    losses = {path.name: Run(path).status["metrics"]["loss"] for path in sweep.iterdir() if path.is_dir()}
    order = [line.split()[0] for line in result.out.splitlines() if re.match(r"\d{3} ", line)]
    assert order == sorted(losses, key=losses.__getitem__)
    short = sweep.name[-4:]
    assert ["show", f"{short}/{order[0]}"] in commands(result.out)
    for words in commands(result.out):
        assert cli(*words).code == 0, words


def test_a_sweep_as_json(cli, sweep):
    found = json.loads(cli("show", "last", "--json").out)
    assert found["swept"] == ["optim.lr", "seed"]
    assert [job["state"] for job in found["jobs"]] == ["done"] * 4
    assert [job["path"] for job in found["jobs"]] == [str(sweep / f"{index:03d}") for index in range(4)]


def test_the_parameters_of_a_sweep_are_those_of_a_job(cli, refused, sweep):
    short = sweep.name[-4:]
    assert f"is a sweep of several jobs; allowed: {short}/best, {short}/000" in refused("show", "last", "--parameters")
    assert cli("show", "last/best", "--parameters").code == 0


def test_of_many_jobs_the_first_are_shown(cli, sweep):
    names = [f"{index:03d}" for index in range(40)]
    for name in names[4:]:
        shutil.copytree(sweep / "000", sweep / name)
    file = sweep / "sweep.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "jobs": names}))
    out = cli("show", "last").out
    assert len([line for line in out.splitlines() if re.match(r"\d{3} ", line)]) == 30
    all_of_them = re.search(r"30 of 40 jobs; `trainer (.*)` shows all", out)[1]
    assert len(re.findall(r"^\w{4}/\d{3} ", cli(*all_of_them.split()).out, re.MULTILINE)) == 40


def test_help_has_an_example(cli):
    result = cli("show", "--help")
    assert (result.code, result.err) == (0, "")
    assert "trainer show best --parameters" in result.out
