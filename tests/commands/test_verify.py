"""`trainer verify` reads every checkpoint and reports what is wrong; it changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from instants import SMALL, content, trained


def test_good_checkpoints_are_good(cli):
    run = trained(cli, "run", *SMALL)
    before = content(run.path)
    result = cli("verify", "run")
    assert result.code == 0
    assert result.out.count("good, ") == len(run.checkpoints) == 3
    assert "3 of 3 checkpoints are good" in result.out
    assert content(run.path) == before


def test_each_bad_one_is_named(cli):
    run = trained(cli, "run", *SMALL)
    first, second, third = run.checkpoints
    (first / "state.json").unlink()
    shutil.copy(second / "model.safetensors", third / "model.safetensors")
    result = cli("verify", "run")
    assert result.code == 1
    assert f"{first}/state.json is missing" in result.out
    assert f"{third}/model.safetensors has changed" in result.out
    assert "1 of 3 checkpoints are good" in result.out
    assert "trainer resume run" in result.out


def test_json(cli):
    run = trained(cli, "run", *SMALL)
    (run.checkpoints[0] / "state.json").write_text("")
    result = cli("verify", "run", "--json")
    assert result.code == 1
    entries = json.loads(result.out)
    assert [entry["step"] for entry in entries] == [int(path.name[5:]) for path in run.checkpoints]
    assert [entry["problem"] is None for entry in entries] == [False, True, True]


def test_all_jobs_of_a_sweep(cli):
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1", "steps=2", "data.inputs=4").code == 0
    assert cli("verify", "sweep").code == 0
    for file in Path("sweep/001").rglob("model.safetensors"):
        file.write_bytes(b"")
    result = cli("verify", "sweep")
    assert result.code == 1
    assert "1 of 2 checkpoints are good" in result.out


def test_a_run_without_checkpoints_is_no_problem(cli):
    run = trained(cli, "run", *SMALL)
    shutil.rmtree(run.path / "checkpoints")
    result = cli("verify", "run")
    assert result.code == 0
    assert "no checkpoints yet" in result.out


def test_the_other_files_of_a_run_are_looked_at(cli):
    run = trained(cli, "run", *SMALL)
    config, status = (run.path / "config.yaml").read_text(), (run.path / "status.json").read_text()
    for name, text, problem in (
        ("config.yaml", config.replace("seed: 0", "seed: 1"), "status.json has another configuration"),
        ("config.yaml", config.replace("seed:", "sead:"), "sead: no such setting"),
        ("status.json", "{", "can't be read; resuming the run recreates it"),
    ):
        (run.path / name).write_text(text)
        result = cli("verify", "run")
        assert result.code == 1
        assert problem in result.out
        assert "3 of 3 checkpoints are good" in result.out
        (run.path / "config.yaml").write_text(config)
        (run.path / "status.json").write_text(status)
    assert cli("verify", "run").code == 0
