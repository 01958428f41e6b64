"""A data file at another path is the same data if its content is the same; what a table has besides is left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Run

from trainer.files import fingerprint

TABLE = "a,c,y\n" + "".join(f"{n},x{n % 3},{n}.5\n" for n in range(1, 31))
RUN = ("experiment=table", "data.path=t.csv", "data.target=y", "batch_size=8", "checkpoint.keep=5")


@pytest.fixture
def run(train) -> Run:
    Path("t.csv").write_text(TABLE)
    return train(*RUN, "steps=6")


def evaluated(cli, *words: str) -> dict:
    result = cli("eval", "run", *words, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_a_moved_file_is_evaluated_on_the_same_rows(cli, run):
    before = evaluated(cli)
    Path("t.csv").rename("u.csv")
    assert evaluated(cli, "data.path=u.csv") == before
    assert (before["rows"], before["which"]) == (6, "held out")
    Path("t.csv").write_text("a,c,y\n1,x,2\n2,x,3\n")  # another file at the old path
    result = cli("eval", "run", "data.path=u.csv")
    assert "6 held out" in result.out
    assert "data.path=u.csv: the same data as t.csv, by the same SHA-256\n" in result.err
    assert evaluated(cli, "data.path=t.csv")["which"] == "of these data"


@pytest.mark.parametrize("old", ["gone", "there", "another"])
def test_a_run_goes_on_with_a_moved_file(cli, train, run, old):
    whole = train(*RUN, "steps=9", name="whole")
    shutil.copy("t.csv", "u.csv")
    if old == "gone":
        Path("t.csv").unlink()
    elif old == "another":
        Path("t.csv").write_text("a,c,y\n1,x,2\n2,x,3\n")
    result = cli("resume", "run", "data.path=u.csv", "steps=9")
    assert result.code == 0, result.err
    assert run.bits() == whole.bits()
    assert "path: u.csv" in (run.path / "config.yaml").read_text()
    assert list(run.status["data"]["files"]) == ["u.csv"]
    result = cli("reproduce", "run", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert (found["identical"], found["step"]) == (True, 9)
    assert not any("has changed" in one for one in found["circumstances"])
    Path("u.csv").rename("v.csv")
    assert cli("reproduce", "run").code == 2
    result = cli("reproduce", "run", "data.path=v.csv")
    assert result.code == 0, result.err
    assert cli("verify", "run").code == 0


def test_a_run_that_is_complete_stays_so(cli, run):
    Path("t.csv").rename("u.csv")
    before = run.bits()
    result = cli("resume", "run", "data.path=u.csv")
    assert result.code == 0, result.err
    assert "is complete" in result.out
    assert run.bits() == before


def test_another_content_is_another_run(cli, run):
    Path("u.csv").write_text(TABLE.replace("30,x0", "31,x0"))
    for words in (("resume", "run", "steps=9"), ("reproduce", "run")):
        result = cli(*words, "data.path=u.csv")
        assert result.code == 2, words
        assert result.err.startswith("error: data.path=u.csv: ")


def test_a_sweep_goes_on_with_a_moved_file(cli):
    Path("t.csv").write_text(TABLE)
    assert cli("run", "-m", "run_dir=sweep", *RUN, "steps=4", "seed=0,1").code == 0
    Path("t.csv").rename("u.csv")
    result = cli("resume", "sweep", "data.path=u.csv", "steps=6")
    assert result.code == 0, result.err
    assert [Run(Path("sweep", job)).status["step"] for job in ("000", "001")] == [6, 6]


def test_each_file_of_the_data_may_move(cli, train):
    random = np.random.default_rng(0)
    np.save("x.npy", random.normal(size=(20, 3)))
    np.save("y.npy", random.normal(size=20))
    train("data=npy", "data.path=x.npy", "data.targets=y.npy", "model=linear", "steps=3", "data.validation=0.2")
    before = evaluated(cli)
    Path("x.npy").rename("x2.npy")
    Path("y.npy").rename("y2.npy")
    assert evaluated(cli, "data.path=x2.npy", "data.targets=y2.npy") == before
    result = cli("resume", "run", "data.path=x2.npy", "data.targets=y2.npy", "steps=5")
    assert result.code == 0, result.err


def test_of_a_large_file_it_is_said_that_samples_are_compared(cli, train, monkeypatch):
    monkeypatch.setattr(fingerprint, "WHOLE", 10)
    monkeypatch.setattr(fingerprint, "_SAMPLE", 10)
    Path("t.csv").write_text(TABLE)
    train(*RUN, "steps=6")
    Path("t.csv").rename("u.csv")
    assert "by the same SHA-256 of samples, 256 MiB of the file" in cli("eval", "run", "data.path=u.csv").err


def test_columns_that_the_run_did_not_learn_from_are_left_out(cli, train):
    lines = TABLE.splitlines()
    parts = ["part", *("validation" if n % 5 == 0 else "train" for n in range(30))]
    Path("t.csv").write_text("".join(f"{line},{part}\n" for line, part in zip(lines, parts, strict=True)))
    train(*RUN, "data.split=part", "steps=6")
    Path("new.csv").write_text(TABLE)
    Path("more.csv").write_text("".join(f"id{n},{line},{n}\n" for n, line in enumerate(lines)))
    plain = evaluated(cli, "data.path=new.csv")
    assert evaluated(cli, "data.path=more.csv") == plain
    Path("u.csv").write_text(Path("t.csv").read_text().replace("30,x0", "30.0,x0"))
    assert evaluated(cli, "data.path=u.csv") == plain
    result = cli("eval", "run", "data.path=more.csv")
    assert "warning: columns ignored, from which the run did not learn: id0, 0\n" in result.err
    assert cli("predict", "run", "--input", "more.csv").code == 0
    Path("less.csv").write_text("".join(line.partition(",")[2] + "\n" for line in lines))
    result = cli("eval", "run", "data.path=less.csv")
    assert result.code == 2
    assert "has c -> y, but the run learned from a, c -> y" in result.err
