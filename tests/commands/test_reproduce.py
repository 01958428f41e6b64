"""`trainer reproduce`: the same run comes out the same, and whatever differs is found, named and measured."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from conftest import Run
from instants import SMALL, content, train_and_copy, trained, without_sums
from safetensors.torch import load_file, save_file

from trainer.analysis.reproduction import Comparison

DROPOUT = (*SMALL, "model=mlp", "model.dropout=0.3", "optim=adam", "schedule=cosine")


def edit_row(path: Path, index: int, **values: object) -> None:
    file = path / "metrics.jsonl"
    lines = file.read_text().splitlines()
    lines[index] = json.dumps({**json.loads(lines[index]), **values})
    file.write_text("\n".join(lines) + "\n")


def edit_status(path: Path, **values: object) -> None:
    file = path / "status.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def edit_weight(folder: Path, name: str, index: int, value: float) -> None:
    """Change one number in a checkpoint and seal it anew."""
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[index] = value
    save_file(weights, folder / "model.safetensors")
    manifest, data = folder / "manifest.json", (folder / "model.safetensors").read_bytes()
    sealed = json.loads(manifest.read_text())
    sealed["files"]["model.safetensors"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.write_text(json.dumps(sealed))


@pytest.mark.parametrize(
    "words",
    [
        DROPOUT,
        ("model=dynamic", "steps=9", "data.inputs=4"),
        ("model=numpy", "steps=9", "data.inputs=4", "optim=lbfgs", "log_every=4"),
        ("model=product", "data=none", "loss=mse", "steps=9"),
    ],
    ids=lambda words: words[0] if words[0].startswith("model") else "dropout",
)
def test_a_run_comes_out_the_same_and_nothing_is_written(cli, workdir, words):
    run = trained(cli, "run", *words)
    before = content(workdir)
    result = cli("reproduce", "run")
    assert result.code == 0, result.out
    rows, saved = len(run.rows), len(run.checkpoints)
    assert re.match(rf"identical  {run.status['step']} steps in .*: {rows} rows of metrics and the weights", result.out)
    assert f"weights of {saved} checkpoint" in result.out
    assert "trainer resume run" in result.out
    assert content(workdir) == before


@pytest.mark.parametrize(
    ("index", "values", "said"),
    [
        (5, {"loss": 1.5}, r"step 5 on: loss was 1\.5 and is \d[\d.]+, by [\d.e+]+$"),
        (4, {"validation_loss": None}, r"step 4 on: validation loss was null and is \d[\d.]+$"),
        (7, {"lr": 1}, r"step 7 on: lr was 1 and is \d\.\d+e-05, by 1$"),
        (7, {"epoch": 9}, r"step 7 on: epoch was 9 and is 1, by 8$"),
        (7, {"other": 9}, r"step 7 on: other was 9 and is null$"),
        (7, {"step": 90}, r"step 7 on: metrics\.jsonl has a row of step 90, and now there is a row of step 7$"),
    ],
)
def test_a_row_that_differs_is_named_with_both_values(cli, index, values, said):
    run = trained(cli, "run", *SMALL, "schedule=cosine", "steps=9")
    edit_row(run.path, index, **values)
    result = cli("reproduce", "run")
    assert result.code == 1
    assert re.search("^different  from " + said, result.out, re.MULTILINE), result.out
    assert "trainer verify run" in result.out


def test_a_number_of_a_small_model_is_named(cli):
    run = trained(cli, "run", "model=product", "data=none", "loss=mse", "steps=4")
    edit_row(run.path, 2, parameters={**run.rows[2]["parameters"], "b": 5.0})
    assert "from step 3 on: parameters.b was 5.0 and is " in cli("reproduce", "run").out


def test_rows_that_are_missing_or_too_many(cli):
    run = trained(cli, "run", *SMALL)
    lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_text("".join(lines[:-1]))
    assert "step 23 on: metrics.jsonl has no row, and now there is a row of step 23" in cli("reproduce", "run").out
    (run.path / "metrics.jsonl").write_text("".join([*lines, lines[-1]]))
    assert "step 23 on: metrics.jsonl has a row of step 23, and now there is no row" in cli("reproduce", "run").out
    (run.path / "metrics.jsonl").write_text("".join([*lines[:3], "{\n", *lines[4:]]))
    assert "step 4 on: metrics.jsonl can't be read: line 4: " in cli("reproduce", "run").out
    (run.path / "metrics.jsonl").unlink()
    assert "step 1 on: metrics.jsonl can't be read: No such file" in cli("reproduce", "run").out


def test_one_bit_of_a_weight_is_found(cli):
    run = trained(cli, "run", *SMALL)
    name, weight = next(iter(run.weights(1).items()))
    number = weight.view(-1)[3]
    edit_weight(run.checkpoints[1], name, 3, float(torch.nextafter(number, torch.tensor(9.0))))
    step = int(run.checkpoints[1].name[5:])
    result = cli("reproduce", "run", "--json")
    assert result.code == 1
    found = json.loads(result.out)
    assert (found["identical"], found["step"], len(found["checkpoints"])) == (False, step, 1)
    difference = found["difference"]
    assert (difference["step"], difference["what"]) == (step, f"weight {name}")
    assert difference["now"] == float(number) != difference["then"]
    assert difference["by"].startswith(f"1 of {weight.numel()} numbers differ, by at most ")


def test_minus_zero_is_another_number(cli):
    run = trained(cli, "run", "model=product", "data=none", "loss=mse", "steps=2", "optim.lr=0", "model.a=0")
    for folder in run.checkpoints:
        edit_weight(folder, "a", 0, -0.0)
    assert "weight a was -0.0 and is 0.0, 1 of 1 numbers differ, by at most 0" in cli("reproduce", "run").out


def test_a_damaged_checkpoint_is_a_difference(cli):
    run = trained(cli, "run", *SMALL)
    (run.checkpoints[-1] / "model.safetensors").write_bytes(b"")
    result = cli("reproduce", "run")
    assert result.code == 1
    assert "from step 23 on: run/checkpoints/step-000000000023/model.safetensors has 0 bytes" in result.out


def test_another_seed_is_another_run(cli):
    run = trained(cli, "run", *SMALL)
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    result = cli("reproduce", "run")
    assert result.code == 2
    assert "run/config.yaml: has been edited since step-000000000023 was saved" in result.err
    without_sums(run.path)
    result = cli("reproduce", "run")
    assert result.code == 1
    assert "different  from step 1 on: loss was " in result.out
    assert "unchanged" in result.out


def test_settings_that_were_changed_on_the_way_are_changed_again(cli):
    run = trained(cli, "run", *DROPOUT)
    for words in (["steps=30", "optim.lr=1e-2"], [], ["steps=37", "log_every=2", "schedule=step", "eval_every=5"]):
        assert cli("resume", "run", *words).code == 0
    result = cli("reproduce", "run")
    assert result.code == 0, result.out
    assert f"{len(run.rows)} rows of metrics" in result.out
    assert "at step 23: steps 23 -> 30, optim.lr 0.0001 -> 0.01\n" in result.err
    assert "at step 30: steps 30 -> 37, log_every 1 -> 2, eval_every 4 -> 5, schedule._target_" in result.err
    # Without them it would be another run: what is compared here does depend on them.
    edit_status(run.path, segments=[{k: v for k, v in s.items() if k != "config"} for s in run.status["segments"]])
    assert cli("reproduce", "run").code == 1


def test_what_a_later_start_took_back_does_not_count(cli):
    run = trained(cli, "run", *DROPOUT)
    assert cli("resume", "run", "steps=30", "optim.lr=1e-2").code == 0
    for folder in run.checkpoints[1:]:
        shutil.rmtree(folder)
    first = int(run.checkpoints[0].name[5:])
    assert first < 23
    assert cli("resume", "run", "steps=31", "optim.lr=1e-3").code == 0
    assert [segment["from_step"] for segment in run.status["segments"]] == [0, 23, first]
    result = cli("reproduce", "run")
    assert result.code == 0, result.out
    assert f"at step {first}: " in result.err
    assert "at step 23" not in result.err


def test_a_sweep_whose_jobs_were_changed_as_well(cli):
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1", "model=linear", *SMALL[1:], "steps=6").code == 0
    assert cli("resume", "sweep", "steps=9", "optim.lr=1e-3").code == 0
    before = content(Path("sweep"))
    result = cli("reproduce", "sweep")
    assert result.code == 0, result.out
    assert "000 seed=0: identical\n001 seed=1: identical\n2 of 2 jobs are identical\n" in result.out
    assert content(Path("sweep")) == before


def test_one_job_of_a_sweep_that_differs(cli):
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1,2", "model=linear", *SMALL[1:], "steps=4").code == 0
    edit_row(Path("sweep/001"), 2, loss=0.5)
    edit_status(Path("sweep/002"), state="waiting", segments=[], step=0)
    shutil.rmtree("sweep/002/checkpoints")
    result = cli("reproduce", "sweep")
    assert result.code == 1
    assert re.search(r"^001 seed=1: different from step 3 on: loss was 0\.5 and is ", result.out, re.MULTILINE)
    assert "1 of 2 jobs are identical" in result.out
    assert "trainer reproduce sweep/001" in result.out
    assert "sweep/002 has saved nothing yet" in result.err
    found = json.loads(cli("reproduce", "sweep", "--json").out)
    assert [(one["run"], one["identical"]) for one in found] == [("sweep/000", True), ("sweep/001", False)]
    assert cli("reproduce", "sweep/000").code == 0


def test_an_interrupted_run_is_repeated_up_to_its_last_checkpoint(cli):
    train_and_copy(cli, *DROPOUT, killed=17)
    result = cli("reproduce", "killed")
    assert result.code == 0, result.out
    assert "identical  14 steps" in result.out
    assert "up to its last checkpoint" in result.out
    assert cli("resume", "killed").code == 0
    assert "identical  23 steps" in cli("reproduce", "killed").out


def test_a_run_that_waited_in_vain_is_repeated_to_the_same_step(cli):
    run = trained(cli, "run", *SMALL[1:], "steps=900", "optim.lr=1.0e-12", "patience=2", "data.samples=16")
    assert run.status["step"] < 900
    assert f"identical  {run.status['step']} steps" in cli("reproduce", "run").out
    edit_status(run.path, step=run.status["step"] + 9)
    assert f"steps was {run.status['step']} and is" in cli("reproduce", "run").out


FRAIL = """
import torch
from trainer.data import Data

class Part(Data):
    def __init__(self):
        x = torch.randn(40, 3)
        x[11] = torch.nan
        super().__init__(x, x[:, :1])
"""


def test_a_run_that_failed_fails_again(cli, own_part):
    own_part("data", "frail", FRAIL)
    assert cli("run", "data=frail", "model=linear", "batch_size=4", "run_dir=run").code == 1
    run = Run(Path("run"))
    assert (run.status["state"], run.status["step"] > 0) == ("failed", True)
    result = cli("reproduce", "run")
    assert result.code == 0, result.out
    assert "the loss is nan at step" in result.out
    edit_status(run.path, error="the loss is nan at step 99")
    result = cli("reproduce", "run")
    assert result.code == 1
    assert "it failed (the loss is nan at step 99) and now it fails (the loss is nan at" in result.out
    edit_status(run.path, state="done", step=9, error=None)
    assert "it did not fail and now it fails" in cli("reproduce", "run").out


def test_a_failure_that_does_not_come_back_is_a_difference(cli):
    run = trained(cli, "run", *SMALL)
    edit_status(run.path, state="failed", error="No space left on device: run")
    result = cli("reproduce", "run")
    assert result.code == 1
    assert "from step 23 on: it failed (No space left on device: run) and now it does not" in result.out
    for step in (14, 21):
        edit_status(run.path, step=step)
        lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
        (run.path / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= 14))
        assert "it failed (No space left on device: run) and now it does not" in cli("reproduce", "run").out


def test_a_run_that_started_from_anothers_weights(cli):
    trained(cli, "first", *SMALL[:5])  # without validation data, so that its last weights are its best
    run = trained(cli, "run", *SMALL, "init_from=first", "checkpoint.keep=9")
    assert cli("reproduce", "run").code == 0
    assert cli("resume", "first", "steps=50").code == 0
    assert cli("reproduce", "run").code == 0  # it has kept what it began with
    shutil.rmtree(run.checkpoints[0])
    edit_status(run.path, segments=[{**run.status["segments"][0], "started": "2020-02-20T20:20:20+0000"}])
    result = cli("reproduce", "run")
    assert result.code == 1
    assert re.search(r"init_from +first has been trained since", result.out)


def test_what_is_not_as_it_was_is_told(cli):
    run = trained(cli, "run", *SMALL)
    (segment,) = run.status["segments"]
    versions, machine = {**segment["versions"], "torch": "1.0"}, {**segment["machine"], "threads": 64}
    edit_status(run.path, segments=[{**segment, "versions": versions, "machine": machine, "git": "abc"}])
    result = cli("reproduce", "run")
    assert result.code == 0
    for line in (rf"torch +1\.0 -> {re.escape(torch.__version__)}", r"threads +64 -> 1", r"git +abc -> None"):
        assert re.search(f"^  {line}$", result.out, re.MULTILINE), result.out


NET = "from torch import nn\nclass Part(nn.Linear):\n    def __init__(self, inputs, outputs):\n"
LINEAR = f"{NET}        super().__init__(inputs, outputs)\n"
SCALED = f"{LINEAR}        self.weight.data *= 2\n"


def forget(name: str) -> None:
    sys.modules.pop(name, None)
    shutil.rmtree("__pycache__", ignore_errors=True)
    sys.path[:] = [folder for folder in sys.path if folder != str(Path.cwd())]


def test_a_module_that_has_changed_is_used_as_it_is_or_as_it_was(cli, own_part, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    own_part("model", "net", LINEAR, "inputs: null\noutputs: null\n")
    assert cli("run", "model=net", *SMALL, "run_dir=run").code == 0
    assert cli("reproduce", "run").code == 0
    own_part("model", "net", f"# a remark\n{LINEAR}", "inputs: null\noutputs: null\n")
    assert f"error: {Path('own_net.py').absolute()}: differs" in cli("reproduce", "run").err
    result = cli("reproduce", "run", "--force")
    assert result.code == 0
    assert re.search(r"own_net\.py +has changed", result.out)
    own_part("model", "net", SCALED, "inputs: null\noutputs: null\n")
    assert cli("reproduce", "run").code == 2
    result = cli("reproduce", "run", "--force")
    assert result.code == 1
    assert re.search(r"own_net\.py +has changed", result.out)
    assert "trainer reproduce run --trust-code" in result.out
    forget("own_net")
    assert cli("reproduce", "run", "--trust-code").code == 0


def test_code_of_others_is_not_run(cli, own_part, monkeypatch, stranger):
    own_part("model", "net", LINEAR, "inputs: null\noutputs: null\n")
    assert cli("run", "model=net", *SMALL, "run_dir=run").code == 0
    forget("own_net")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    stranger()
    result = cli("reproduce", "../run")
    assert result.code == 2
    assert "`trainer reproduce ../run --trust-code`" in result.err
    assert "own_net" not in sys.modules


def test_code_of_others_in_an_earlier_configuration_is_not_run_either(cli):
    run = trained(cli, "run", *SMALL)
    Path("hostile.py").write_text("open('ran', 'w')\nfrom torch.nn import Linear as Net\n")
    hostile = {**run.status["config"], "model": {"_target_": "hostile.Net"}}
    first = {**run.status["segments"][0], "config": hostile}
    edit_status(run.path, segments=[first, {**run.status["segments"][0], "from_step": 7}])
    for flag in ((), ("--trust-code",)):
        result = cli("reproduce", "run", *flag)
        assert result.code == 2
        assert "hostile.Net: is code that did not come with the run" in result.err
    assert not Path("ran").exists()


def test_data_of_a_file_are_prepared_anew_and_a_file_that_has_changed_is_told(cli):
    lines = [f"{i % 7},{'xy'[i % 2]},{i % 5}" for i in range(40)]
    Path("rows.csv").write_text("\n".join(["a,b,price", *lines]) + "\n")
    words = ("data=csv", "data.path=rows.csv", "data.target=price", "model=mlp", "loss=auto", "batch_size=8", "steps=9")
    assert cli("run", "run_dir=run", *words).code == 0
    assert cli("resume", "run", "steps=12", "optim.lr=1e-3").code == 0
    assert cli("reproduce", "run").code == 0
    Path("rows.csv").write_text("\n".join(["a,b,price", "6,x,4", *lines[1:]]) + "\n")
    result = cli("reproduce", "run")
    assert result.code == 1
    assert re.search(r"rows\.csv +has changed", result.out)
    assert "--trust-code" not in result.out
    Path("rows.csv").unlink()
    result = cli("reproduce", "run")
    assert result.code == 2
    assert "rows.csv" in result.err


SECRET = """
import torch
from trainer.data import Data

class Part(Data):
    def __init__(self, api_token: str):
        super().__init__(torch.ones(4, 2) * len(api_token), torch.ones(4))
"""


def test_secrets_have_to_be_given_again_and_nothing_else_can_be(cli, own_part):
    own_part("data", "remote", SECRET, "api_token: ???\n")
    assert cli("run", "data=remote", "data.api_token=hunter-2222", "run_dir=run", "steps=2").code == 0
    result = cli("reproduce", "run")
    assert result.code == 2
    assert "data.api_token: is a secret" in result.err
    result = cli("reproduce", "run", "data.api_token=hunter-2222")
    assert result.code == 0
    assert "hunter" not in result.out + result.err
    result = cli("reproduce", "run", "data.api_token=hunter-2222", "seed=1")
    assert result.code == 2
    assert "seed=1: the run has 0 and is repeated unchanged" in result.err


def test_an_interrupt_ends_it(cli, monkeypatch):
    trained(cli, "run", *SMALL)
    original = Comparison.__call__

    def call(self: Comparison, row: dict) -> None:
        original(self, row)
        if row["step"] == 5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Comparison, "__call__", call)
    result = cli("reproduce", "run")
    assert result.code == 130
    assert re.match(r"stopped  5 steps in .* of 23; identical so far\n", result.out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "reproduce: which run? `trainer reproduce last`"),
        (("nothing",), "nothing: no such run"),
        (("run", "--forse"), "--forse: no such flag"),
    ],
)
def test_what_is_refused(refused, words, said):
    assert said in refused("reproduce", *words)


def test_a_run_that_has_saved_nothing(cli):
    trained(cli, "run", *SMALL)
    edit_status(Path("run"), state="running", step=0)
    shutil.rmtree("run/checkpoints")
    result = cli("reproduce", "run")
    assert (result.code, result.err) == (2, "error: run has saved nothing yet that can be compared\n")
    trained(cli, "other", *SMALL)
    edit_status(Path("other"), segments=[{**Run(Path("other")).status["segments"][0], "from_step": 3}])
    result = cli("reproduce", "other")
    assert (result.code, result.err) == (2, "error: other/status.json: does not record how the run began\n")


def test_help(cli):
    result = cli("reproduce", "--help")
    assert result.code == 0
    assert "trainer reproduce last" in result.out
    assert max(map(len, result.out.splitlines())) < 80
