"""config.yaml, preprocess.json and metrics.jsonl are those that a checkpoint was saved with, or a command says so."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Run
from instants import SMALL, at_every_change, ending, on_row, saved_at_once, train_and_copy, trained, without_sums

from trainer.launch import sweep

TABLE = (
    *("experiment=table", "data.target=y", "model.sizes=[4]", "batch_size=2", "checkpoint.every=3", "logger=none"),
    *("data.validation=0.25", "eval_every=2"),
)
PREDICT = ("predict", "run", "--row", "a=2,b=x", "--json")


def write_table(name: str, factor: int) -> None:
    rows = [f"{factor * n},{'xyz'[n % 3]},{factor * n * n % 7}" for n in range(12)]
    Path(name).write_text("a,b,y\n" + "\n".join(rows) + "\n")


@pytest.fixture
def run(train: Callable[..., Run]) -> Run:
    write_table("t.csv", 1)
    return train(*TABLE, "data.path=t.csv", "steps=8")


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def edit_mean(run: Run) -> None:
    file = run.path / "preprocess.json"
    inputs = json.loads(file.read_text())["inputs"]
    edit(file, inputs=[{**inputs[0], "mean": 1000.0}, *inputs[1:]])


def edit_config(run: Run, **values: Any) -> None:
    file = run.path / "config.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **values}, sort_keys=False))


def digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def test_a_manifest_says_what_stands_beside_its_checkpoint(run):
    config = digest(yaml.safe_load((run.path / "config.yaml").read_text()))
    preprocess = hashlib.sha256((run.path / "preprocess.json").read_bytes()).hexdigest()
    rows = (run.path / "metrics.jsonl").read_bytes()
    sizes = []
    for folder in run.checkpoints:
        recorded = json.loads((folder / "manifest.json").read_text())["run"]
        sizes.append(size := recorded["metrics"]["size"])
        assert recorded.pop("sha256") == digest(recorded)
        metrics = {"size": size, "sha256": hashlib.sha256(rows[:size]).hexdigest()}
        assert recorded == {"config": config, "preprocess": preprocess, "metrics": metrics}
    assert sizes == sorted({*sizes})
    assert sizes[-1] == len(rows)
    status = run.status
    assert status["sums"] == status["segments"][0]["sums"] == {"config": config, "preprocess": preprocess}
    assert status.pop("sha256") == digest(status)


def test_a_run_without_inputs_has_no_preprocessing_to_record(train):
    run = train("model=product", "data=none", "loss=mse", "steps=3")
    assert json.loads((run.checkpoints[-1] / "manifest.json").read_text())["run"]["preprocess"] is None


@pytest.mark.parametrize(
    "words",
    [
        PREDICT,
        ("eval", "run"),
        ("export", "run", "--format", "safetensors"),
        ("inspect", "run"),
        ("show", "run", "--parameters"),
        ("reproduce", "run"),
        ("resume", "run", "steps=9"),
    ],
    ids=lambda words: words[0],
)
def test_edits_are_refused_with_a_way_out(cli, run, words):
    before = {name: (run.path / name).read_bytes() for name in ("preprocess.json", "config.yaml")}
    edit_mean(run)
    result = cli(*words)
    assert result.code == 2
    assert result.err.startswith("error: run/preprocess.json: has been edited since step-00000000000")
    assert "put it back, or delete it" in result.err
    assert result.err.count("\n") == 1
    (run.path / "preprocess.json").write_bytes(before["preprocess.json"])
    edit_config(run, seed=5)
    result = cli(*words)
    assert result.code == 2
    assert "error: run/config.yaml: has been edited since step-00000000000" in result.err
    assert "(seed 0 -> 5); allowed: put it back, or `trainer resume run --force`" in result.err
    (run.path / "config.yaml").write_bytes(before["config.yaml"])
    assert cli(*words).code == 0


def test_the_ways_out_lead_out(cli, run):
    numbers = cli(*PREDICT).out
    edit_mean(run)
    (run.path / "preprocess.json").unlink()
    assert "is missing; allowed: put it back, or `trainer resume run` to recreate it" in cli(*PREDICT).err
    assert "preprocess.json" in cli("verify", "run").out
    assert cli("resume", "run").code == 0
    assert cli(*PREDICT).out == numbers
    assert cli("verify", "run").code == 0
    edit_config(run, seed=5)
    assert cli("resume", "run").code == 2
    result = cli("resume", "run", "--force")
    assert result.code == 0
    assert "warning: run/config.yaml: has been edited" in result.err
    assert cli(*PREDICT).out == numbers
    assert cli("verify", "run").code == 0
    assert run.status["segments"][-1]["sums"]["config"] == digest(
        yaml.safe_load((run.path / "config.yaml").read_text())
    )


def test_preprocessing_that_other_data_make_is_not_taken(cli, run):
    (run.path / "preprocess.json").unlink()
    write_table("t.csv", 3)
    result = cli("resume", "run", "steps=9", "--allow-data-change")
    assert result.code == 2
    assert "recreating it gives a different one" in result.err
    assert not (run.path / "preprocess.json").exists()


def test_other_data_leave_the_older_checkpoints_unusable(cli, run):
    old = run.checkpoints[0].name
    write_table("u.csv", 3)
    result = cli("resume", "run", "data.path=u.csv", "steps=14", "checkpoint.keep=20", "--force")
    assert result.code == 0, result.err
    assert cli(*PREDICT, "--checkpoint", "last").code == 0
    result = cli(*PREDICT, "--checkpoint", str(int(old[5:])))
    assert result.code == 2
    assert f"preprocess.json: does not belong to {old}: the run has since continued with other data" in result.err
    assert "--checkpoint 14" in result.err
    result = cli("verify", "run")
    assert result.code == 0, result.out
    assert ", which used other data" in result.out
    assert "data.path t.csv -> u.csv" in " ".join(cli("show", "run").out.split())
    assert cli("resume", "run", "steps=16").code == 0
    assert cli("reproduce", "run").code == 0


def test_changed_settings_vouch_for_themselves(cli, run):
    assert cli("resume", "run", "optim.lr=0.5", "steps=10").code == 0
    assert cli(*PREDICT).code == 0
    assert cli("verify", "run").code == 0
    assert "changed at step 8" in cli("show", "run").out
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    edit_config(run, steps=8, optim={**config["optim"], "lr": run.status["segments"][0]["config"]["optim"]["lr"]})
    assert cli("verify", "run").code == 1  # an old one does not vouch for what came later
    assert cli(*PREDICT, "--checkpoint", "last").code == 2


ROWS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "swapped": lambda lines: [lines[1], lines[0], *lines[2:]],
    "a digit": lambda lines: [lines[0].replace(b"0.", b"1."), *lines[1:]],
    "twice": lambda lines: [lines[0], *lines],
    "a byte more": lambda lines: [b" ", *lines],
}


@pytest.mark.parametrize("how", ROWS)
def test_edited_rows_are_not_gone_on_with(cli, how):
    train_and_copy(cli, *SMALL, killed=20)
    file = Path("killed/metrics.jsonl")
    whole = file.read_bytes()
    file.write_bytes(edited := b"".join(ROWS[how](whole.splitlines(keepends=True))))
    assert edited != whole
    assert cli("verify", "killed").code == 1
    result = cli("resume", "killed")
    assert result.code == 2
    assert "killed/metrics.jsonl: has been edited since step-000000000014 was saved" in result.err
    assert file.read_bytes() == edited
    assert cli("resume", "killed", "--force").code == 0
    shutil.rmtree("killed")
    shutil.copytree("straight", "killed")
    file.write_bytes(file.read_bytes() + b"x")
    result = cli("verify", "killed")
    assert (result.code, "has 1 bytes that the run did not write" in result.out) == (1, True)


def test_a_row_that_is_cut_off_in_its_middle_is_told_of(cli):
    """An older run does not say what its rows were; the length alone tells that they have moved."""
    train_and_copy(cli, *SMALL, killed=20)
    without_sums(Path("killed"))
    file = Path("killed/metrics.jsonl")
    file.write_bytes(b" " + file.read_bytes())
    result = cli("resume", "killed")
    assert result.code == 0
    assert "its last rows are lost" in result.err


def test_an_older_run_goes_on_as_it_did(cli):
    train_and_copy(cli, *SMALL, killed=20)
    for name in ("killed", "straight"):
        without_sums(Path(name))
    result = cli("verify", "straight")
    assert result.code == 0
    assert result.out.count("not recorded") == 3
    for words in (("eval", "straight"), ("reproduce", "straight"), ("resume", "killed")):
        assert cli(*words).code == 0
    last = {file: data for file, data in ending("killed").items() if "manifest" not in file}
    assert last.items() <= ending("straight").items()
    assert "not recorded by 1 of 3 checkpoints" in cli("verify", "killed").out


def test_verify_agrees_with_loading(cli):
    run = trained(cli, "run", *SMALL)
    first, second, third = run.checkpoints
    shutil.rmtree(third)
    shutil.copytree(second, third)
    result = cli("verify", "run")
    assert result.code == 1
    assert f"{third} is the checkpoint of step {int(second.name[5:])}" in " ".join(result.out.split())
    edit(first / "state.json", format=2)
    manifest = json.loads((first / "manifest.json").read_text())
    content = (first / "state.json").read_bytes()
    manifest["files"]["state.json"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (first / "manifest.json").write_text(json.dumps(manifest))
    assert "1 of 3 checkpoints are good" in cli("verify", "run").out
    result = cli("eval", "run", "--checkpoint", str(int(first.name[5:])))
    assert (result.code, "has format 2" in result.err) == (2, True)


def test_verify_compares_a_sweep_with_its_jobs(cli):
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1", "steps=2", "data.inputs=4").code == 0
    for values, problem in (
        ({"jobs": []}, "does not name each existing job once"),
        ({"jobs": ["000"]}, "does not name each existing job once"),
        ({"format": 2}, "has format 2"),
        ({"swept": ["steps"]}, "says that steps differ"),
    ):
        kept = Path("sweep/sweep.json").read_text()
        edit(Path("sweep/sweep.json"), **values)
        result = cli("verify", "sweep", "--json")
        assert result.code == 1
        assert problem in next(e["problem"] for e in json.loads(result.out) if e["file"] == "sweep.json")
        if "swept" not in values:
            assert cli("resume", "sweep").code == cli("show", "sweep").code == 2
        Path("sweep/sweep.json").write_text(kept)
    shutil.rmtree("sweep/001")
    result = cli("verify", "sweep")
    assert (result.code, "names jobs that do not exist: 001" in result.out) == (1, True)


@pytest.mark.parametrize(
    ("path", "value"),
    [(("step",), 7), (("best", "value"), 0.0), (("metrics", "loss"), 0.0), (("metrics", "validation_loss"), 0.0)],
    ids=str,
)
def test_verify_compares_where_a_run_stands_with_its_checkpoints(cli, run, path, value):
    status = run.status
    section = status
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    for text in (status, {key: one for key, one in status.items() if key != "sha256"}):
        (run.path / "status.json").write_text(json.dumps(text))
        result = cli("verify", "run")
        assert result.code == 1
        assert ("says that the run ended at step 7" if path == ("step",) else "has been edited") in result.out


CHANGES = {
    "settings": ("optim.lr=0.05",),
    "data": ("data.path=u.csv", "--force"),
}


@pytest.mark.parametrize("words", CHANGES.values(), ids=CHANGES)
def test_a_kill_between_two_writes_of_a_resume_leaves_a_run_that_opens(cli, train, words):
    for name, factor in (("t.csv", 1), ("u.csv", 3)):
        write_table(name, factor)
    common = (*TABLE, "data.path=t.csv", "steps=8", "checkpoint.keep=20")

    def kill(row: dict[str, Any]) -> None:
        if row["step"] == 7 and "loss" in row:
            shutil.copytree("straight", "start")

    with pytest.MonkeyPatch.context() as patch:
        on_row(kill, patch)
        saved_at_once(patch)
        train(*common, name="straight")
    shutil.copytree("start", "other")
    assert cli("resume", "other", *words).code == 0
    shutil.copytree("start", "run")
    seen: dict[tuple[Any, ...], Path] = {}

    def look() -> None:
        if len(list(Path("run/checkpoints").glob("step-*"))) > len(list(Path("start/checkpoints").glob("step-*"))):
            return
        status = json.loads(Path("run/status.json").read_text())
        files = [file for file in (Path("run/config.yaml"), Path("run/preprocess.json")) if file.exists()]
        state = (*(file.read_bytes() for file in files), len(status["segments"]))
        if state not in seen:
            seen[state] = Path(f"at-{len(seen)}")
            shutil.copytree("run", seen[state])

    with at_every_change(look):
        assert cli("resume", "run", *words).code == 0
    assert len(seen) >= (2 if words == CHANGES["settings"] else 4)
    ends = []
    for path in seen.values():
        assert cli("verify", str(path)).code == 0 or not (path / "preprocess.json").exists()
        predicted = cli("predict", str(path), *PREDICT[2:])
        assert predicted.code == 0 or "trainer resume" in predicted.err or "continued with other data" in predicted.err
        result = cli("resume", str(path))
        assert result.code == 0, result.err
        ends.append("straight" if _weights(path) == _weights("straight") else "other")
        assert _weights(path) == _weights(ends[-1])
        assert (path / "preprocess.json").read_bytes() == Path(ends[-1], "preprocess.json").read_bytes()
        assert cli("verify", str(path)).code == 0
        assert cli("predict", str(path), *PREDICT[2:], "--checkpoint", "last").code == 0
    assert {*ends} == {"straight", "other"}


def _weights(path: Path | str) -> dict[str, bytes]:
    return {name: data for name, data in ending(path).items() if name.endswith((".safetensors", ".jsonl"))}


@pytest.mark.parametrize("words", CHANGES.values(), ids=CHANGES)
def test_a_kill_between_two_writes_of_changed_jobs_leaves_jobs_that_open(cli, words):
    for name, factor in (("t.csv", 1), ("u.csv", 3)):
        write_table(name, factor)
    assert cli("run", "-m", "run_dir=start", *TABLE, "data.path=t.csv", "steps=6", "seed=0,1").code == 0
    steps = ("steps=9",)
    seen: list[Path] = []
    shutil.copytree("start", "sweep")

    def look() -> None:
        if "running" not in "".join(file.read_text() for file in Path("sweep").glob("*/status.json")):
            seen.append(Path(f"at-{len(seen)}"))
            shutil.copytree("sweep", seen[-1])

    with at_every_change(look):
        assert cli("resume", "sweep", *steps, *words).code == 0
    assert len(seen) > 8
    for path in seen[::3]:
        result = cli("resume", str(path), *steps, *words)
        assert result.code == 0, result.err
        for job in ("000", "001"):
            assert _weights(path / job) == _weights(Path("sweep", job))
            assert (path / job / "preprocess.json").read_bytes() == Path("sweep", job, "preprocess.json").read_bytes()
        assert cli("verify", str(path)).code == 0, cli("verify", str(path)).out


def test_a_kill_amid_changing_jobs_that_never_ran_leaves_jobs_that_open(cli, monkeypatch):
    """Twice in a row, so that what a job waits to go on with was never trained."""
    words = ("optim.lr=1e-4,1e-5", "data.inputs=3", "data.outputs=1", "steps=2", "run_dir=base")
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "launch", lambda *_, **__: 0)
        assert cli("run", "-m", *words).code == 0
        assert cli("resume", "base", "clip_norm=1").code == 0
        copies = []

        def act() -> None:
            copies.append(f"kill-{len(copies)}")
            shutil.copytree("base", copies[-1])

        with at_every_change(act):
            assert cli("resume", "base", "clip_norm=2").code == 0
    assert len(copies) > 4
    for copy in copies:
        for job in ("000", "001"):
            assert cli("verify", f"{copy}/{job}").code == 0, copy
        result = cli("resume", copy)
        assert result.code == 0, (copy, result.err)


def test_the_step_that_a_run_failed_at_is_vouched_for(cli):
    words = ("model=dynamic", "batch_size=7", "optim=sgd_momentum", "optim.lr=0.1", *SMALL)
    assert cli("run", "run_dir=run", *[word for word in words if word != "batch_size=8"]).code == 1
    assert cli("inspect", "run").code == 0
    edit_config(Run(Path("run")), seed=5)
    result = cli("inspect", "run")
    assert (result.code, "run/config.yaml: has been edited" in result.err) == (2, True)


# Sums that are gone


INTEGERS = ("steps=20", "data=integer_triples", "optim.lr=1e-9", "checkpoint.every=8", "logger=none")


def in_status(run: Run, change: Callable[[dict[str, Any]], Any], seal: bool = False) -> None:
    status = run.status
    change(status)
    rest = {key: value for key, value in status.items() if key != "sha256"}
    (run.path / "status.json").write_text(json.dumps({**rest, "sha256": digest(rest)} if seal else status))


def unseal(status: dict[str, Any]) -> None:
    del status["sha256"]


def without_sums_of_starts(status: dict[str, Any]) -> None:
    status["config"]["seed"] = 5
    for segment in status["segments"]:
        segment.pop("sums")


def without_record(*folders: Path) -> None:
    for folder in folders:
        file = folder / "manifest.json"
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "run"}))


def wrong(cli: Callable[..., Any], name: str = "run") -> dict[str, str]:
    result = cli("verify", name, "--json")
    found = {one["file"]: one["problem"] for one in json.loads(result.out) if one["problem"] is not None}
    assert result.code == (1 if found else 0)
    return found


def test_a_run_without_its_status_goes_on_and_says_what_it_does_not_know(cli, train):
    """Settings changed on the way, status.json lost, and the checkpoint that was saved under them damaged."""
    train("data.inputs=3", "data.outputs=1", "steps=4", "checkpoint.every=2", "checkpoint.keep=9")
    assert cli("resume", "run", "steps=6", "clip_norm=1").code == 0
    Path("run/status.json").unlink()
    damaged = Path("run/checkpoints/step-000000000006/state.json")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert "config.yaml: has been edited" in cli("eval", "run", "--checkpoint", "4").err
    result = cli("resume", "run")
    assert result.code == 0, result.err
    assert (
        "warning: run/config.yaml: has been edited since step-000000000004 was saved; it is used as it is" in result.err
    )


@pytest.mark.parametrize("seal", [False, True], ids=["stale", "sealed"])
def test_starts_without_sums_excuse_no_edit(cli, train, seal):
    run = train(*INTEGERS)
    edit_config(run, seed=5)
    in_status(run, without_sums_of_starts, seal)
    found = wrong(cli)
    assert "config.yaml: has been edited since step-" in found["config.yaml"]
    assert ("doesn't match its SHA-256" in found.get("status.json", "")) is not seal
    for words in (
        ("eval", "run"),
        ("reproduce", "run"),
        ("export", "run", "--format=safetensors"),
        ("resume", "run", "steps=24"),
    ):
        result = cli(*words)
        assert (result.code, "config.yaml: has been edited since step-" in result.err) == (2, True), words
    assert cli("resume", "run", "steps=24", "--force").code == 0
    assert cli("eval", "run").code == 0
    assert wrong(cli) == {}


def test_an_older_start_vouches_for_nothing_after_one_without_sums(cli, train):
    run = train(*INTEGERS)
    before = (run.path / "config.yaml").read_bytes()
    assert cli("resume", "run", "steps=24", "optim.lr=1e-8").code == 0
    in_status(run, lambda status: status["segments"][-1].pop("sums"), seal=True)
    (run.path / "config.yaml").write_bytes(before)
    assert cli("eval", "run", "--checkpoint", "24").code == 2


@pytest.mark.parametrize("kept", [True, False], ids=["sums", "no sums"])
def test_a_missing_seal_is_an_edit(cli, train, kept):
    run = train(*INTEGERS)
    in_status(run, unseal)
    if not kept:  # the manifests still tell that the run was sealed
        in_status(run, lambda status: [one.pop("sums") for one in (status, *status["segments"])])
    in_status(run, lambda status: status.update(parameters=7))
    assert "its own SHA-256 is missing" in wrong(cli)["status.json"]
    assert cli("show", "run").err.count("warning: run/status.json has been edited") == kept


@pytest.mark.parametrize(("every", "share"), [("null", 0), ("null", 0.25), ("7", 0.25), ("8", 0.25)])
def test_metrics_that_no_checkpoint_has_are_an_edit(cli, train, every, share):
    """Whether it evaluates never, at its end alone, once more at its end, or before the last checkpoint."""
    run = train("data=integer_triples", "optim.lr=1e-9", "steps=8", f"eval_every={every}", f"data.validation={share}")
    assert wrong(cli) == {}
    in_status(run, lambda status: status["metrics"].update(validation_mae=0.001), seal=True)
    assert "has no validation_mae" in wrong(cli)["status.json"]


def test_show_warns_of_an_edited_status(cli, run):
    assert "warning" not in cli("show", "run").err
    in_status(run, lambda status: status.update(parameters=7))
    for words in (("show", "run"), ("show", "run", "--json")):
        result = cli(*words)
        assert result.code == 0
        assert result.err == "warning: run/status.json has been edited: it doesn't match its SHA-256\n"


@pytest.mark.parametrize("hidden", [False, True], ids=["sums", "no sums"])
def test_a_manifest_that_lost_its_record_is_refused(cli, train, hidden):
    run = train(*INTEGERS)
    last = run.checkpoints[-1]
    without_record(last)
    if hidden:  # the other manifests of the same start still have theirs
        in_status(run, lambda status: [one.pop("sums") for one in (status, *status["segments"])], seal=True)
    found = wrong(cli)[f"checkpoints/{last.name}/manifest.json"]
    assert f"{last}/manifest.json: has been edited: it has no entry for the run" in found
    for words in (("eval", "run", "--checkpoint", "last"), ("resume", "run", "steps=24")):
        result = cli(*words)
        assert (result.code, "has no entry for the run" in result.err) == (2, True), words
    result = cli("resume", "run", "steps=24", "--force")
    assert (result.code, "warning: " in result.err) == (0, True)
    assert cli("eval", "run", "--checkpoint", "last").code == 0


def test_an_older_version_in_between_leaves_a_run_that_opens(cli, train):
    """The older version copied the sums, which it did not know, and wrote none for its start and its checkpoint."""
    run = train(*INTEGERS)
    first = run.status
    assert cli("resume", "run", "steps=24").code == 0
    without_record(run.checkpoints[-1])
    status = {**run.status, "sums": first["sums"], "sha256": first["sha256"]}
    del status["segments"][-1]["sums"]
    (run.path / "status.json").write_text(json.dumps(status))
    for words in (("eval", "run", "--checkpoint", "last"), ("reproduce", "run"), ("resume", "run", "steps=30")):
        assert cli(*words).code == 0, words
    result = cli("verify", "run")
    assert (result.code, "not recorded by 1 of" in result.out) == (0, True), result.out
    assert cli("eval", "run", "--checkpoint", "last").code == 0
