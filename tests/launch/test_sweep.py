"""`trainer run -m`: every job is checked and written before the first starts; what is not done can be resumed."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from conftest import Run, wait_until
from faults import default_handlers
from instants import content

SMALL = ("data.inputs=20", "model.hidden=5", "steps=20")


def jobs(path: str = "sweep") -> list[Run]:
    return [Run(p) for p in sorted(Path(path).iterdir()) if p.name.isdigit()]


def states(path: str = "sweep") -> list[str]:
    return [run.status["state"] for run in jobs(path)]


def test_each_job_is_the_run_that_its_words_alone_would_be(cli, train):
    result = cli("run", "-m", "run_dir=sweep", "model=numpy,two_layer", "optim.lr=1e-4,1e-5", *SMALL)
    assert result.code == 0
    combinations = [(m, lr) for m in ("numpy", "two_layer") for lr in ("1e-4", "1e-5")]
    assert len(jobs()) == 4
    for index, (model, lr) in enumerate(combinations):
        alone = train(f"model={model}", f"optim.lr={lr}", *SMALL, name=f"alone{index}")
        assert jobs()[index].bits() == alone.bits()
        assert jobs()[index].status["choices"]["model"] == model


def test_the_table_is_best_first(cli):
    result = cli("run", "-m", "run_dir=sweep", "optim.lr=1e-6,1e-4,1e-5", *SMALL)
    rows = [line.split() for line in result.out.splitlines() if line[:3].isdigit()]
    assert [row[1] for row in rows] == ["0.0001", "1e-05", "1e-06"]
    losses = [float(row[-1].replace(",", "")) for row in rows]
    assert losses == sorted(losses)


def test_mean_and_spread_over_seeds(cli):
    result = cli("run", "-m", "run_dir=sweep", "optim.lr=1e-4,1e-5", "seed=0,1,2", *SMALL)
    last = [run.steps[-1]["loss"] for run in jobs()]
    for values in (last[:3], last[3:]):
        mean = sum(values) / 3
        spread = (sum((v - mean) ** 2 for v in values) / 2) ** 0.5
        assert any(f"{mean:.6g}" in line and f"{spread:.6g}" in line for line in result.out.splitlines())


def test_mean_and_spread_when_only_the_seed_varies(cli):
    result = cli("run", "-m", "run_dir=sweep", "seed=0,1,2", *SMALL)
    mean = sum(run.steps[-1]["loss"] for run in jobs()) / 3
    assert any(f"{mean:.6g}" in line and line.split()[-1] == "3" for line in result.out.splitlines())


def test_mode_max_ranks_the_largest_first(cli):
    words = ("optim.lr=1e-6,1e-4", "data.validation=0.25", "mode=max")
    result = cli("run", "-m", "run_dir=sweep", *words, *SMALL)
    assert result.code == 0, result.err
    by_best = sorted(jobs(), key=lambda run: -run.status["best"]["value"])
    first = next(line.split()[0] for line in result.out.splitlines() if line[:3].isdigit())
    assert first == by_best[0].path.name


def test_the_next_command_of_a_sweep_counts_as_its_jobs_do(cli):
    result = cli("run", "-m", "run_dir=sweep", "seed=0,1", "epochs=2", "data.inputs=20", "model.hidden=5")
    assert "epochs=4" in result.out.splitlines()[-1]


def test_all_jobs_are_written_before_the_first_starts(cli, monkeypatch):
    seen = []

    def look(job, stopping):
        seen.append([(r.path.name, r.status["state"], (r.path / "config.yaml").is_file()) for r in jobs()])

    monkeypatch.setattr("trainer.session.job.execute", look)
    cli("run", "-m", "run_dir=sweep", "seed=0,1,2", *SMALL)
    assert seen[0] == [(f"00{i}", "waiting", True) for i in range(3)]


def test_a_wrong_job_is_found_before_the_first_one_runs(cli):
    result = cli("run", "-m", "run_dir=sweep", "batch_size=16,32,1000", *SMALL)
    assert result.code == 2
    assert "job 2 (batch_size=1000): batch_size=1000" in result.err
    assert not Path("sweep").exists()


def test_a_failed_job_does_not_hide_the_rest(cli):
    result = cli("run", "-m", "run_dir=sweep", "optim.lr=1e-4,1e3,1e-5", *SMALL)
    assert result.code == 1
    assert states() == ["done", "failed", "done"]
    assert "failed: 001 (optim.lr=1000.0)" in result.out
    assert "trainer inspect sweep/001" in result.out


def test_a_killed_sweep_is_resumed_to_the_same_bits(cli, fork):
    words = ("-m", "seed=0,1,2", "data.inputs=20", "model.hidden=5", "steps=400", "batch_size=8", "checkpoint.every=50")
    assert cli("run", "run_dir=straight", *words).code == 0
    child = fork("run", "run_dir=sweep", *words)
    wait_until(lambda: list(Path("sweep").glob("001/checkpoints/step-*")))
    child.kill()
    assert child.wait() == -signal.SIGKILL
    finished = (Path("sweep/000/status.json")).read_bytes()
    assert states()[2] == "waiting"
    assert cli("resume", "sweep").code == 0
    assert states() == ["done"] * 3
    assert (Path("sweep/000/status.json")).read_bytes() == finished
    for one, other in zip(jobs("sweep"), jobs("straight"), strict=True):
        assert one.bits() == other.bits()


@pytest.mark.parametrize(("number", "by"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_stops_the_sweep_and_saves_the_job(cli, fork, number, by):
    words = ("-m", "run_dir=sweep", "seed=0,1", "data.inputs=20", "steps=1000000", "log_every=1000")
    child = fork("run", *words, prepare=default_handlers)
    wait_until(lambda: Path("sweep/000/metrics.jsonl").exists() and states()[0] == "running")
    child.kill(number)
    assert child.wait() == 128 + number
    assert states() == ["stopped", "waiting"]
    assert jobs()[0].checkpoints
    assert f"stopped ({by}): 0 of 2 jobs done" in child.text
    assert "trainer resume sweep" in child.text


def test_a_sweep_whose_failures_would_come_again_is_not_offered_to_be_resumed(cli):
    result = cli("run", "-m", "run_dir=sweep", "optim.lr=1e-4,100", *SMALL)
    assert result.code == 1
    assert states() == ["done", "failed"]
    assert "trainer resume sweep " not in f"{result.out} "
    assert "optim.lr=10" in result.out


def test_resume_takes_settings_for_all_jobs(cli):
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1", *SMALL).code == 0
    assert cli("resume", "sweep", "steps=30").code == 0
    assert [run.status["step"] for run in jobs()] == [30, 30]
    assert [run.steps[-1]["step"] for run in jobs()] == [30, 30]


def test_one_job_of_a_sweep_is_a_run(cli):
    assert cli("run", "-m", "seed=0,1", *SMALL).code == 0
    (sweep,) = Path("runs").iterdir()
    assert cli("resume", f"{sweep.name[-4:]}/001", "steps=30").code == 0
    assert [run.status["step"] for run in jobs(str(sweep))] == [20, 30]
    refused = cli("resume", f"{sweep.name[-4:]}/007")
    assert refused.code == 2
    assert "has no job 007; it has 000 to 001" in refused.err


def test_sweep_json(cli):
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1", "optim=sgd,adam", *SMALL).code == 0
    sweep = json.loads(Path("sweep/sweep.json").read_text())
    assert sweep["format"] == 1
    assert sweep["launcher"] == {"name": "local", "overrides": [], "config_dirs": []}
    assert sweep["swept"] == ["seed", "optim"]
    assert sweep["jobs"] == ["000", "001", "002", "003"]


def test_other_launchers_of_hydra(cli):
    result = cli("run", "-m", "run_dir=sweep", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", *SMALL)
    assert result.code == 0, result.err
    assert states() == ["done", "done"]
    Path("configs/optim").mkdir(parents=True)
    Path("configs/optim/mine.yaml").write_text("_target_: torch.optim.SGD\n")
    assert cli("run", "optim=mine", "steps=1").code == 0
    assert json.loads(Path("sweep/sweep.json").read_text())["launcher"] == {
        "name": "joblib",
        "overrides": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"],
        "config_dirs": [],
    }


def test_dry_run_creates_nothing(cli):
    one = cli("run", "--dry-run", "steps=5")
    assert one.code == 0
    assert "101,110" in one.out
    several = cli("run", "-m", "--dry-run", "model=numpy,two_layer", *SMALL)
    assert several.code == 0
    assert "numpy" in several.out
    assert "2 jobs, about" in several.out
    wrong = cli("run", "-m", "--dry-run", "batch_size=8,1000", *SMALL)
    assert wrong.code == 2
    assert list(Path().iterdir()) == []


def test_started_again_with_other_jobs_is_refused(cli):
    words = ("run", "-m", "run_dir=sweep", "resume=true", *SMALL)
    assert cli(*words, "seed=0,1").code == 0
    assert cli(*words, "seed=0,1").code == 0
    more = cli(*words, "seed=0,1,2")
    assert more.code == 2
    assert "has 2 jobs, the command 3" in more.err
    other = cli(*words, "seed=0,1", "optim.lr=1e-5")
    assert other.code == 2
    assert "optim.lr=1e-05: job 000 has 0.0001" in other.err


def test_a_job_that_another_process_trains_is_left_alone(cli, fork):
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1", *SMALL).code == 0
    child = fork("resume", "sweep/001", "steps=1000000", "log_every=1000")
    wait_until(lambda: b"steps: 1000000" in Path("sweep/001/config.yaml").read_bytes())  # the last to be written
    assert states()[1] == "running"
    config = (Path("sweep/001/config.yaml")).read_bytes()
    refused = cli("resume", "sweep", "clip_norm=3")
    assert refused.code == 2
    assert "001 is in use by process" in refused.err
    assert (Path("sweep/001/config.yaml")).read_bytes() == config
    child.kill(signal.SIGTERM)
    assert child.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize("words", [(), ("clip_norm=3",), ("--force",)])
def test_a_refused_resume_changes_nothing(cli, fork, words):
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1,2", *SMALL).code == 0
    for job, state in (("000", "stopped"), ("001", "failed")):
        status = Path("sweep", job, "status.json")
        status.write_text(status.read_text().replace('"state": "done"', f'"state": "{state}"'))
    Path("sweep/stop").touch()
    child = fork("resume", "sweep/002", "steps=1000000", "log_every=1000")
    wait_until(lambda: states()[2] == "running")

    def others():
        return {name: data for name, data in content(Path("sweep")).items() if not name.startswith("002")}

    before = others()
    result = cli("resume", "sweep", *words)
    assert result.code == 2
    assert result.err.startswith("error: sweep/002 is in use by process")
    assert result.err.count("\n") == 1
    assert others() == before
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1,2", "resume=true", *SMALL).code == 2
    assert others() == before
    child.kill(signal.SIGTERM)
    assert child.wait() == 128 + signal.SIGTERM


def test_a_resume_of_a_sweep_that_is_refused_for_its_words_changes_nothing(cli):
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1", *SMALL).code == 0
    before = content(Path("sweep"))
    assert cli("resume", "sweep", "batch_size=3").code == 2
    assert cli("resume", "sweep", "steps=1").code == 2
    assert cli("resume", "sweep/001", "steps=1").code == 2
    assert content(Path("sweep")) == before


def test_hidden_folders_beside_a_sweep_are_left_alone(cli):
    Path(".sweep").mkdir()
    Path(".sweep/precious").write_text("mine")
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1", *SMALL).code == 0
    assert Path(".sweep/precious").read_text() == "mine"
    assert sorted(p.name for p in Path().iterdir()) == [".sweep", "sweep"]
    assert Path("sweep").stat().st_mode == Path(".sweep").stat().st_mode


def test_numbers_of_the_table_are_whole(cli):
    words = ("data.validation=0.25", "data.inputs=20", "batch_size=8", "optim.lr=1e-4,1e-5", "seed=0,1", "steps=20")
    result = cli("run", "-m", "run_dir=sweep", *words)
    assert "…" not in result.out
    for run in jobs():
        row = next(line for line in result.out.splitlines() if line.startswith(run.path.name))
        assert f"{run.status['metrics']['validation_loss']:.6g}" in row


def test_a_worker_that_is_killed_loses_its_job_only(cli, mortal):
    """What the other worker had to do is done, or waits; the sweep can be resumed."""
    mortal("os.remove('die'), os.kill(os.getpid(), signal.SIGKILL)")
    words = ("model=mortal", "seed=0,1", "steps=3", "data.inputs=4")
    result = cli("run", "-m", "run_dir=sweep", *words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert result.code == 1
    assert "the launcher failed" in result.err
    assert "done" not in states()[1]
    result = cli("resume", "sweep")
    assert result.code == 0, result.err
    assert states() == ["done", "done"]


def test_what_a_sweep_varies_cannot_be_set_for_all(cli):
    assert cli("run", "-m", "run_dir=sweep", "optim.lr=1e-4,1e-5", *SMALL).code == 0
    result = cli("resume", "sweep", "optim.lr=1e-3")
    assert result.code == 2
    assert "the sweep varies optim.lr" in result.err
    assert [run.status["swept"]["optim.lr"] for run in jobs()] == ["0.0001", "1e-05"]


def test_done_jobs_are_kept_and_changes_are_told(cli):
    """A setting for what is still to come does not reach a job that has nothing left to do."""
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1", *SMALL).code == 0
    broken = jobs()[1].path / "checkpoints"
    for folder in broken.iterdir():
        shutil.rmtree(folder)
    (jobs()[1].path / "status.json").write_text(
        (jobs()[1].path / "status.json").read_text().replace('"state": "done"', '"state": "failed"')
    )
    before = (jobs()[0].path / "config.yaml").read_bytes()
    result = cli("resume", "sweep", "optim.lr=1e-5")
    assert result.code == 0, result.err
    assert "optim.lr  0.0001 -> 1e-05" in result.err
    assert (jobs()[0].path / "config.yaml").read_bytes() == before
    assert jobs()[1].status["config"]["optim"]["lr"] == 1e-5
