"""Loggers follow metrics.jsonl, survive a kill like the run itself, and leave the training alone."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Run
from instants import without_sums
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import trainer.session.metrics_writer
import trainer.session.train

SMALL = ("data.validation=0.25", "batch_size=16", "model.hidden=5", "eval_every=4", "device.threads=1")
METRICS = ("loss", "lr", "validation_loss")
OWN = """
import random

from trainer.loggers import Logger


class Part(Logger):
    def __init__(self, name="rows.txt", width=1):
        self.name, self.width = name, width

    def open(self, run_dir, step):
        random.random()
        self.file = open(run_dir / self.name, "w")
        print("from", step, file=self.file)

    def __call__(self, rows):
        random.random()
        for row in rows:
            print(*row.items(), file=self.file)
            row.clear()

    def close(self):
        self.file.close()
"""
FAILING = """
import errno, os

from trainer.loggers import Logger


class Part(Logger):
    def __call__(self, rows):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/far/away")
"""


def table(run):
    with open(run.path / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def expected_table(run):
    """The rows of metrics.jsonl, those of one step put together."""
    steps = {}
    for row in run.rows:
        flat = {key: value for key, value in row.items() if key != "parameters"}
        flat |= {f"parameters.{name}": value for name, value in row.get("parameters", {}).items()}
        steps.setdefault(row["step"], {}).update(flat)
    names = list(dict.fromkeys(name for row in run.rows for name in row if name != "parameters"))
    names += list(dict.fromkeys(f"parameters.{name}" for row in run.rows for name in row.get("parameters", {})))
    return [{name: "" if row.get(name) is None else str(row[name]) for name in sorted(names)} for row in steps.values()]


def require_table(run):
    assert [dict(sorted(row.items())) for row in table(run)] == expected_table(run)


def scalars(run):
    """What TensorBoard shows: the points of each curve."""
    found = EventAccumulator(str(run.path / "tensorboard"), size_guidance={SCALARS: 0}).Reload()
    return {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def single(value):
    """A number as TensorBoard keeps it, in 32 bits."""
    return math.nan if value is None else torch.tensor(value, dtype=torch.float32).item()


def expected_scalars(run):
    names = dict.fromkeys(name for row in run.rows for name in row if name in METRICS)
    return {name: [(row["step"], single(row[name])) for row in run.rows if name in row] for name in names}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run with both loggers."""
    from trainer.cli import main

    path = tmp_path_factory.mktemp("loggers") / "run"
    assert main(["run", f"run_dir={path}", *SMALL, "steps=40", "logger=[tensorboard,csv]"]) == 0
    return Run(path)


def test_the_table_is_metrics_jsonl_with_a_row_a_step(both):
    require_table(both)
    assert len(table(both)) == 40
    header = (both.path / "metrics.csv").read_text().splitlines()[0]
    assert header == "step,epoch,loss,lr,validation_loss"


def test_tensorboard_reads_back_every_number(both):
    assert scalars(both) == expected_scalars(both)
    assert [step for step, _ in scalars(both)["validation_loss"]] == list(range(4, 41, 4))


def test_tensorboard_has_the_settings(both):
    content = EventAccumulator(str(both.path / "tensorboard")).Reload().PluginTagToContent("hparams")
    (data,) = [HParamsPluginData.FromString(one) for one in content.values()]
    found = data.session_start_info.hparams
    assert found["optim.lr"].number_value == 1e-4
    assert found["model"].string_value == "TwoLayerNet"
    assert found["model.hidden"].number_value == 5
    assert not any(name.startswith("logger") for name in found)


def test_the_same_bits_as_without(both, train):
    assert train(*SMALL, "steps=40").bits() == both.bits()


def test_parameters_of_small_models_have_columns_and_curves(train):
    words = ("model=product", "data=none", "optim.lr=0.001", "steps=6", "log_every=2")
    run = train(*words, "logger=[csv,tensorboard]")
    require_table(run)
    assert [row["parameters.a"] for row in table(run)] == [str(row["parameters"]["a"]) for row in run.steps]
    assert [step for step, _ in scalars(run)["parameters/b"]] == [2, 4, 6]


def test_numbers_that_are_not_finite_are_empty_cells_and_gaps(train):
    Path("holes.csv").write_text("x,y\n" + "".join(f"{n},{n}\n" for n in range(8)) + "1e38,1e38\n")
    words = ("data=csv", "data.path=holes.csv", "data.target=y", "data.standardize=false", "data.validation=0")
    words = (*words, "model=mlp", "loss=mse", "on_nonfinite=skip", "batch_size=3", "steps=6")
    run = train(*words, "logger=[csv,tensorboard]")
    assert 0 < [row["loss"] for row in run.rows].count(None) < 6
    require_table(run)
    assert [math.isnan(value) for _, value in scalars(run)["loss"]] == [row["loss"] is None for row in run.rows]


def test_a_long_run_has_about_so_many_points(train):
    run = train(*SMALL, "steps=100", "logger=tensorboard", "logger.tensorboard.points=10")
    found = scalars(run)
    assert [step for step, _ in found["loss"]] == [1, *range(10, 101, 10)]
    assert found["validation_loss"] == expected_scalars(run)["validation_loss"]


MORTAL = """
import os, signal, torch


class Part(torch.nn.Linear):
    passes = 0

    def forward(self, x):
        if os.path.exists("die") and self.training and len(x) == 16:
            Part.passes += 1
            if Part.passes == 27:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)
"""


def at_once():
    """Let every row be written and handed on at once, not about once a second."""
    trainer.session.metrics_writer._BUFFERED_SECONDS = 0
    training = trainer.session.train.training
    trainer.session.train.training = lambda session: training(dataclasses.replace(session, seconds=0.0))


def test_killed_and_resumed_equals_uninterrupted(cli, fork, train, own_part):
    own_part("model", "mortal", MORTAL, "in_features: 1000\nout_features: 10\n")
    words = ("model=mortal", "data.samples=40", "data.validation=0.2", "batch_size=16", "eval_every=4", "steps=40")
    words = (*words, "checkpoint.every=10", "device.threads=1", "logger=[csv,tensorboard]")
    Path("die").touch()
    child = fork("run", "run_dir=killed", *words, prepare=at_once)
    assert child.wait() == -signal.SIGKILL, child.text
    Path("die").unlink()
    killed = Run(Path("killed"))
    assert max(step for step, _ in scalars(killed)["loss"]) > 20  # beyond the newest checkpoint
    assert cli("resume", "killed").code == 0
    whole = train(*words, name="whole")
    assert (killed.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()
    assert scalars(killed) == scalars(whole) == expected_scalars(whole)
    assert len(list((killed.path / "tensorboard").iterdir())) == 2


def test_what_a_kill_has_kept_from_tensorboard_is_written_later(cli, train):
    run = train(*SMALL, "steps=20", "logger=tensorboard")
    (file,) = (run.path / "tensorboard").iterdir()
    before = file.read_bytes()
    file.write_bytes(before[: len(before) * 2 // 3])  # in the midst of a record
    lost = scalars(run)["loss"]
    assert 5 < len(lost) < 18
    times = when(run)
    assert cli("resume", "run", "steps=30").code == 0
    assert scalars(run) == expected_scalars(run)
    assert when(run)[: len(lost) - 1] == times[: len(lost) - 1]  # what was there stays as it was


def when(run):
    found = EventAccumulator(str(run.path / "tensorboard"), size_guidance={SCALARS: 0}).Reload()
    return [point.wall_time for point in found.Scalars("loss")]


def test_a_logger_that_comes_later_misses_nothing(cli, train):
    run = train(*SMALL, "steps=12")
    assert "logger" not in cli("show", "run").out
    result = cli("resume", "run", "logger=[csv,tensorboard]")
    assert result.code == 0, result.err
    assert "logger.csv._target_" in result.err
    require_table(run)
    assert scalars(run) == expected_scalars(run)
    assert cli("resume", "run", "logger=none", "steps=16").code == 0
    assert cli("resume", "run", "logger=csv", "steps=20").code == 0
    assert cli("resume", "run", "logger=tensorboard", "steps=24").code == 0
    assert scalars(run) == expected_scalars(run)
    assert len(scalars(run)["loss"]) == 24
    assert len(table(run)) == 20
    assert list(run.status["config"]["logger"]) == ["tensorboard"]


def test_a_run_from_before_there_were_loggers_goes_on(cli, train):
    run = train(*SMALL, "steps=12")
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    status = run.status
    del config["logger"], status["config"]["logger"]
    (run.path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (run.path / "status.json").write_text(json.dumps(status))
    without_sums(run.path)
    assert cli("resume", "run").out.count("complete") == 1
    result = cli("resume", "run", "steps=16")
    assert result.code == 0, result.err
    assert "logger" not in result.err
    assert cli("resume", "run", "steps=20", "logger=csv").code == 0
    require_table(run)


def test_one_of_ones_own(cli, train, own_part):
    own_part("logger", "mine", OWN, "width: 3\n")
    words = (*SMALL, "model=dynamic", "steps=8")  # draws from Python's generator at every step
    run = train(*words, "logger=mine", "logger.mine.name=mine.txt", name="one")
    assert run.bits() == train(*words, name="none").bits()
    lines = (run.path / "mine.txt").read_text().splitlines()
    assert lines == ["from 0", *(" ".join(map(str, row.items())) for row in run.rows)]
    assert (run.path / "code" / "own_mine.py").exists()
    both = train(*words, "logger=[csv,mine]", name="both")
    assert (both.path / "rows.txt").read_text() == (run.path / "mine.txt").read_text()
    require_table(both)
    assert cli("resume", "one", "steps=10").code == 0
    assert (run.path / "mine.txt").read_text().startswith("from 8\n('step', 1)")
    assert re.search(r"^  logger +mine width=3 name=mine.txt$", cli("show", "one").out, re.M)


def test_of_two_of_ones_own_each_needs_a_place(refused, cli, own_part):
    own_part("logger", "mine", OWN)
    own_part("logger", "other", OWN, "name: other.txt\n")
    assert "logger/mine.yaml: needs the line # @package logger.mine to be one of several loggers" in refused(
        "run", "logger=[mine,other]"
    )
    mine = Path("configs/logger/mine.yaml")
    mine.write_text("# @package logger.mine\n" + mine.read_text())
    assert cli("run", "run_dir=run", *SMALL, "steps=2", "logger=[mine,other]").code == 0
    assert Path("run/rows.txt").read_text() == Path("run/other.txt").read_text()


def test_a_logger_that_fails_is_told_of_in_a_line_and_left_out(cli, train, own_part):
    own_part("logger", "failing", FAILING)
    result = cli("run", "run_dir=run", *SMALL, "steps=8", "logger=[failing,csv]")
    assert result.code == 0
    told = [line for line in result.err.splitlines() if "failing has" in line]
    assert told == ["warning: logger=failing has stopped: No space left on device; training continues"]
    require_table(Run(Path("run")))
    assert Run(Path("run")).bits() == train(*SMALL, "steps=8", name="without").bits()


CLOSING = """
import json

from trainer.loggers import Logger


class Part(Logger):
    fails = False

    def open(self, run_dir, step):
        self.run_dir = run_dir

    def __call__(self, rows):
        pass

    def close(self):
        state = json.loads((self.run_dir / "status.json").read_text())["state"]
        (self.run_dir / "closed").write_text(state)
        if self.run_dir.name == "failing":
            raise OSError(28, "No space left on device")
"""


def test_a_run_is_done_when_its_loggers_are(cli, train, own_part, monkeypatch):
    """All that they have written is on the disk by then, or the user has been told."""
    own_part("logger", "closing", CLOSING)
    mine = Path("configs/logger/closing.yaml")
    mine.write_text("# @package logger.closing\n" + mine.read_text())
    synced, fsync, replace = [], os.fsync, os.replace

    def syncing(descriptor):
        fsync(descriptor)
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    def replacing(source, target):
        replace(source, target)
        if Path(target).name == "status.json":
            synced.append(json.loads(Path(target).read_text())["state"])

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", replacing)
    run = train(*SMALL, "steps=4", "logger=[csv,tensorboard,closing]")
    (events,) = (run.path / "tensorboard").iterdir()
    before = synced[: synced.index("done")]
    assert {"metrics.jsonl", "metrics.csv", events.name} <= set(before[-20:])
    assert (run.path / "closed").read_text() == "running"
    result = cli("run", "run_dir=failing", *SMALL, "steps=4", "logger=[csv,closing]")
    assert result.code == 0
    assert "warning: logger=closing has stopped: No space left on device" in result.err
    assert Run(Path("failing")).status["state"] == "done"


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def without_the_last_evaluation(path):
    path.write_text(path.read_text()[: path.read_text().rstrip().rindex(",") + 1] + "\n")


@pytest.mark.parametrize("damage", [cut, Path.unlink, without_the_last_evaluation])
@pytest.mark.parametrize("how", ["alone", "in a sweep", "fit"])
def test_a_run_that_is_done_gives_its_loggers_what_they_lack(cli, train, damage, how):
    words = (*SMALL, "steps=12", "logger=[csv,tensorboard]")
    if how == "in a sweep":
        assert cli("run", "-m", "run_dir=sweep", "seed=0,1", *words).code == 0
        run, whole = Run(Path("sweep/000")), "sweep"
    else:
        run, whole = train(*words), "run"
    table, bits = (run.path / "metrics.csv").read_bytes(), run.bits()
    damage(run.path / "metrics.csv")
    (file,) = (run.path / "tensorboard").iterdir()
    if damage is not without_the_last_evaluation:
        damage(file)
    if how == "fit":
        from trainer import fit

        fit(resume=run.path)
    else:
        result = cli("resume", whole)
        assert result.code == 0
        assert "logger=csv missed rows of the run; they have been written" in result.err
    assert (run.path / "metrics.csv").read_bytes() == table
    assert scalars(run) == expected_scalars(run)
    assert run.bits() == bits
    assert run.status["state"] == "done"
    assert len(run.status["segments"]) == 1
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert "missed rows" not in cli("resume", whole).err
    after = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert after == before


LOCKED = """
from trainer.loggers import Logger


class Part(Logger):
    def __init__(self, token: str) -> None:
        self.token = token

    def open(self, run_dir, step):
        self.file = run_dir / "tokens.txt"

    def __call__(self, rows):
        self.file.write_text(self.token)

    def is_whole(self, run_dir, rows):
        return (run_dir / "tokens.txt").exists()
"""


@pytest.mark.parametrize("whole", ["run", "sweep"])
def test_what_a_logger_lacks_is_written_with_the_secret_in_the_command(cli, own_part, whole):
    own_part("logger", "locked", LOCKED, "token: null\n")
    multirun = () if whole == "run" else ("-m", "seed=0,1")
    words = (*SMALL, "steps=4", "logger=locked", "logger.locked.token=first-secret", f"run_dir={whole}")
    assert cli("run", *multirun, *words).code == 0
    file = Path(whole, "" if whole == "run" else "001", "tokens.txt")
    file.unlink()
    result = cli("resume", whole, "logger.locked.token=other-secret")
    assert result.code == 0, result.err
    assert "logger=locked missed rows" in result.err
    assert file.read_text() == "other-secret"


def test_loggers_that_are_whole_stay_as_they_are(cli, train):
    """Whatever thinned out the curves, and with columns that came later."""
    words = (*SMALL, "steps=30", "logger=[csv,tensorboard]", "logger.tensorboard.points=7")
    run = train(*words)
    assert cli("resume", "run", "steps=95").code == 0
    before = {path.name: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert "missed rows" not in cli("resume", "run").err
    assert {path.name: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_missing_package_is_refused_with_its_extra(refused, cli, train, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    message = "needs tensorboard: pip install tensorboard (the extra `tensorboard`)"
    assert message in refused("run", "logger=tensorboard")
    assert message in refused("run", "-m", "seed=0,1", "logger=[csv,tensorboard]")
    train(*SMALL, "steps=2")
    assert message in cli("resume", "run", "logger=tensorboard").err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("logger=cvs",), ("no such logger; allowed: csv, none, tensorboard", "did you mean logger=csv?")),
        (("logger=[csv,tensor_board]",), ("did you mean logger=tensorboard?",)),
        (("logger=null",), ("did you mean logger=none?",)),
        (("logger=[csv,csv]",), ("names an option twice",)),
        (("logger=csv,tensorboard",), ("-m to run each, or 'logger=[csv,tensorboard]' for all of them",)),
        (("logger.points=3",), ("no such logger was chosen; allowed: logger=OPTION",)),
        (("logger=csv", "logger.tensorboard.points=3"), ("logger.tensorboard: no such logger was chosen",)),
        (("logger=tensorboard", "logger.points=3"), ("logger.points=3", "allowed: logger.tensorboard.KEY")),
        (("logger=tensorboard", "logger.tensorboard.point=3"), ("did you mean logger.tensorboard.points?",)),
        (("logger=tensorboard", "logger.tensorboard.points=0"), ("logger.tensorboard.points=0: must be at least 1",)),
        (("logger=tensorboard", "logger.tensorboard.steps=9"), ("is supplied by the run",)),
        (
            ("logger=csv", "logger.csv._target_=trainer.losses.Auto"),
            ("is not a class derived from trainer.loggers.Log",),
        ),
    ],
)
def test_a_wrong_word(refused, words, told):
    line = refused("run", *words)
    for part in told:
        assert part in line


def test_an_experiment_may_choose_loggers(cli, train):
    Path("configs/experiment").mkdir(parents=True)
    Path("configs/experiment/mine.yaml").write_text(
        "# @package _global_\n# Mine\ndefaults:\n  - override /logger: [csv, tensorboard]\n"
        "logger:\n  tensorboard:\n    points: 7\nsteps: 4\n"
    )
    run = train("experiment=mine", *SMALL, name="as_it_is")
    assert run.status["config"]["logger"]["tensorboard"]["points"] == 7
    require_table(run)
    assert "is set by experiment=mine" in cli("run", "run_dir=swapped", "experiment=mine", *SMALL, "logger=csv").err
    assert Path("swapped/metrics.csv").exists()
    assert not Path("swapped/tensorboard").exists()


def test_a_file_may_choose_several(train):
    Path("configs/logger").mkdir(parents=True)
    Path("configs/logger/both.yaml").write_text("# Both\ndefaults:\n  - csv\n  - tensorboard\n")
    run = train(*SMALL, "steps=4", "logger=both", "logger.tensorboard.points=2")
    require_table(run)
    assert len(scalars(run)["loss"]) == 3


@pytest.mark.parametrize("launcher", ["local", "processes", "vectorized"])
def test_every_launcher(cli, launcher):
    words = ("-m", "run_dir=sweep", f"hydra/launcher={launcher}", "optim.lr=1e-4,1e-5", "logger=[csv,tensorboard]")
    result = cli("run", *words, *SMALL, "steps=6")
    assert result.code == 0, result.err
    for job in ("000", "001"):
        run = Run(Path("sweep", job))
        require_table(run)
        assert scalars(run) == expected_scalars(run)


def test_loggers_may_be_swept(cli):
    assert cli("run", "-m", "run_dir=sweep", *SMALL, "steps=2", "logger=csv,[csv,tensorboard],none").code == 0
    assert [Path("sweep", job, "metrics.csv").exists() for job in ("000", "001", "002")] == [True, True, False]
    assert Path("sweep/001/tensorboard").exists()


def test_a_dry_run_creates_nothing(cli, workdir):
    assert cli("run", "--dry-run", *SMALL, "logger=[csv,tensorboard]").code == 0
    assert not list(workdir.iterdir())


def test_the_next_commands_have_tensorboard(cli, train):
    result = cli("run", "run_dir=a run", *SMALL, "steps=2", "logger=tensorboard")
    assert "tensorboard --logdir 'a run/tensorboard'" in result.out
    assert "tensorboard points=10000" in result.err
    train(*SMALL, "steps=2", "logger=csv")
    assert "tensorboard" not in cli("show", "run").out


def test_from_python(workdir):
    from trainer import fit

    run = fit(*SMALL, logger=["csv", "tensorboard"], logger__tensorboard__points=5, steps=4, quiet=True)
    assert (run.path / "metrics.csv").exists()
    assert (run.path / "tensorboard").exists()


@pytest.mark.parametrize("target", ["os.system", "evil.Evil", "trainer.training.instantiate.importlib.import_module"])
def test_a_run_of_somebody_else_runs_no_code_of_a_logger(cli, train, workdir, target):
    run = train(*SMALL, "steps=2")
    Path("evil.py").write_text("open('sprung', 'w')\n\n\nclass Evil:\n    pass\n")
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    config["logger"] = {"x": {"_target_": target}}
    (run.path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    without_sums(run.path)
    result = cli("resume", "run", "steps=4")
    assert result.code == 2
    assert f"logger.x._target_={target}" in result.err
    assert not Path("sprung").exists()


@pytest.mark.parametrize("name", ["metrics.csv", "tensorboard", "tensorboard/events.out.tfevents.1.x"])
def test_links_are_not_followed(cli, train, name):
    run = train(*SMALL, "steps=2", "logger=none")
    Path("elsewhere").mkdir()
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).symlink_to(Path("elsewhere").absolute())
    result = cli("resume", "run", "steps=4", "logger=[csv,tensorboard]")
    assert result.code == 2
    assert "is a link" in result.err
    assert not os.listdir("elsewhere")
