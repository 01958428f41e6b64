"""Tables of one's own: what is read, how it is prepared, what is refused; and scikit-learn beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tables import table, write

from trainer.data import CSV


def preprocess(run: Run) -> dict:
    return json.loads((run.path / "preprocess.json").read_text())


MIXED = ("age,city,zip,y", "1,Ulm,100,10", "2,Bonn,200,20", "3,Ulm,100,30", "4,Kiel,300,50", "6,Bonn,200,70")


def test_columns_become_numbers_and_ones_and_zeros_fitted_on_the_rows_to_train_on(workdir):
    write("age,city,part,y", "1,Ulm,train,10", "3,Bonn,train,30", "100,Kiel,val,80", "5,Ulm,train,20")
    data = CSV("t.csv", "y", split="part")
    data.prepare(seed=0)
    mean, deviation = 3.0, np.std([1, 3, 5])
    expected = [
        [(1 - mean) / deviation, 0, 1],
        [0, 1, 0],
        [(100 - mean) / deviation, 0, 0],
        [(5 - mean) / deviation, 0, 1],
    ]
    assert data.x.tolist() == [pytest.approx(row) for row in expected]
    assert data.y[:, 0].tolist() == pytest.approx([(y - 20) / np.std([10, 30, 20]) for y in (10, 30, 80, 20)])
    assert data.training.tolist() == [0, 1, 3]
    assert data.held_out.tolist() == [2]


def test_the_preparation_stands_in_preprocess_json(train):
    write(*MIXED)
    run = train(*table("data.validation=0", "data.categories=[zip]", "data.encode=index"))
    kept = preprocess(run)
    assert kept["inputs"] == [
        {"column": "age", "kind": "number", "mean": 3.2, "deviation": float(np.std([1, 2, 3, 4, 6])), "fill": None},
        {"column": "city", "kind": "category", "values": ["Bonn", "Kiel", "Ulm"], "encode": "index", "fill": False},
        {"column": "zip", "kind": "category", "values": ["100", "200", "300"], "encode": "index", "fill": False},
    ]
    (target,) = kept["targets"]
    assert (target["column"], target["kind"], target["mean"]) == ("y", "number", 36)
    assert run.status["choices"]["loss"] == "mse"
    assert "trainer.losses.Auto" not in (run.path / "config.yaml").read_text()


def test_what_the_data_are_is_shown_and_kept(cli):
    write("age,city,y", "1,Ulm,no", "2,Bonn,yes", ",Ulm,yes", "4,Kiel,yes")
    result = cli("run", "run_dir=run", *table("data.validation=0", "data.nan=mean"))
    assert result.code == 0, result.err
    lines = {line.split()[0]: " ".join(line.split()) for line in result.err.splitlines()}
    assert lines["columns"] == "columns age (1 to 4), city (3 values)"
    assert lines["target"] == "target y: no 25.0%, yes 75.0%"
    assert lines["missing"] == "missing 1 cell in age; filled with the mean"
    facts = Run(Path("run")).status["data"]
    assert facts["rows"] == 4
    assert facts["classes"] == {"no": 1, "yes": 3}
    age = {"column": "age", "kind": "number", "low": 1, "high": 4, "mean": pytest.approx(7 / 3), "missing": 1}
    assert facts["columns"][0] == age
    assert facts["files"]["t.csv"]["bytes"] == Path("t.csv").stat().st_size


@pytest.mark.parametrize(
    ("lines", "words", "classes"),
    [
        (("x,y", "1,no", "2,yes", "3,no"), (), ["no", "yes"]),
        (("x,y", "1,0", "2,1", "3,0"), (), ["0", "1"]),
        (("x,y", "1,0", "2,1", "3,0"), ("data.classes=false",), None),
        (("x,y", "1,true", "2,false", "3,true"), (), ["false", "true"]),
        (("x,y", "1,3", "2,5", "3,3"), (), None),
        (("x,y", "1,10", "2,9", "3,10"), ("data.classes=true",), ["9", "10"]),
        (("x,y", "1,1.5", "2,2.5", "3,3.5"), (), None),
    ],
)
def test_the_target_says_what_is_predicted(train, lines, words, classes):
    write(*lines)
    run = train(*table("data.validation=0", *words))
    assert run.status["choices"]["loss"] == ("mse" if classes is None else "cross_entropy")
    (target,) = preprocess(run)["targets"]
    assert target.get("values") == classes


def test_several_targets_and_a_choice_of_columns(train):
    write("a,b,c,y,z", "1,2,3,4,5", "2,3,5,7,9", "3,4,4,2,8")
    run = train(*table("data.target=[y,z]", "data.columns=[a,c]", "data.validation=0"))
    kept = preprocess(run)
    assert [one["column"] for one in kept["inputs"]] == ["a", "c"]
    assert [one["column"] for one in kept["targets"]] == ["y", "z"]
    run = train(*table("data.exclude=[b,z]", "data.validation=0"), name="second")
    assert [one["column"] for one in preprocess(run)["inputs"]] == ["a", "c"]


def test_a_file_of_rows_held_out(train):
    write("x,k,y", "1,a,1.5", "2,b,2.5", "3,a,3.5")
    write("k,y,x", "c,9,10", "a,8,20", name="held.csv")
    run = train(*table("data.validation_path=held.csv"))
    assert run.status["rows"] == {"training": 3, "validation": 2}
    number, category = preprocess(run)["inputs"]
    assert number["mean"] == 2
    assert category["values"] == ["a", "b"]
    assert set(run.status["data"]["files"]) == {"t.csv", "held.csv"}


@pytest.mark.parametrize(("nan", "rows", "mean"), [("drop", 3, 8 / 3), ("mean", 4, 8 / 3)])
def test_missing_cells_are_dropped_or_filled(train, nan, rows, mean):
    write("x,y", "1,1.5", "NA,2.5", "3,3.5", "4,7.5", "inf,1")
    rows += nan == "mean"
    run = train(*table("data.validation=0", f"data.nan={nan}"))
    assert run.status["rows"]["training"] == rows
    assert preprocess(run)["inputs"][0]["mean"] == pytest.approx(mean)


def test_bom_crlf_and_semicolons_are_read(train):
    Path("t.csv").write_bytes("\ufeffx;city;y\r\n1;Köln;1.5\r\n2;Ulm;2.5\r\n\r\n3;Köln;3.5\r\n".encode())
    run = train(*table("data.validation=0"))
    assert [one["column"] for one in preprocess(run)["inputs"]] == ["x", "city"]
    assert run.status["data"]["rows"] == 3


def test_names_that_look_like_numbers_stay_what_they_are(train, cli):
    write("zip, flag ,y", "01234, True,1.5", "1234,False ,2.5", "00007,True, 3.5", "01234,False,4.5")
    run = train(*table("data.categories=[zip]", "data.validation=0"))
    codes, flags = (one["values"] for one in preprocess(run)["inputs"])
    assert codes == ["00007", "01234", "1234"]
    assert flags == ["False", "True"]
    result = cli("predict", "run", "--input", "t.csv")
    assert "has not seen" not in result.err
    by_file = [float(line.rpartition(",")[2]) for line in result.out.splitlines()[1:]]
    rows = json.loads(cli("predict", "run", "--row=01234,True", "--row=1234,False", "--json").out)
    assert by_file[:2] == pytest.approx([row["predicted_y"] for row in rows])


def test_a_column_that_turns_into_text_late_is_read_as_what_it_is(train):
    write("x,k,y", *(f"{i},{i},{i / 7}" for i in range(10_050)), "5.5,word,1")
    run = train(*table("data.validation=0", "data.exclude=[k]"))
    assert run.status["data"]["rows"] == 10_051


BAD = {
    "no such file": (None, (), r"data\.path=t\.csv: no such file: /.*/t\.csv"),
    "a directory": ("directory", (), r"data\.path=t\.csv: /.*/t\.csv is a directory"),
    "empty": ("", (), "the file is empty"),
    "header only": ("x,y\n", (), "has a header but no rows"),
    "not utf-8": (b"x,y\n1,2\n3,\xff\n", (), "the byte 0xff at offset 10"),
    "no such column": ("x,z\n1,2\n", (), r"data\.target=y: the table has no such column; allowed: x, z"),
    "a short row": ("x,k,y\n1,2,3\n4,5\n", (), "line 3 has 2 cells, but the first line has 3"),
    "a long row": ("x,y\n1,2\n4,5,6\n", (), "line 3 has 3 cells, but the first line has 2"),
    "a column twice": ("x,x,y\n1,2,3\n", (), "two columns are named 'x'"),
    "text among numbers": (
        "x,y\n1,1\n2,2\nthree,3\n4,4\n",
        (),
        r"line 4: 'three' in the column x, which otherwise holds numbers; allowed: .*data\.categories=\[x\]",
    ),
    "text among numbers, after a cell of two lines": (
        'k,x,y\n"a\nb",1,1\nc,2,2\nd,three,3\ne,4,4\n',
        (),
        "line 5: 'three'",
    ),
    "an empty cell": (
        "x,y\n1,1\n,2\n3,3\n,3\n",
        (),
        r"2 cells of x are .*, the first in line 3; allowed: .*data\.nan=mean",
    ),
    "nan": ("x,y\n1,1\nnan,2\n", (), "a cell of x is empty or not finite, the first in line 3"),
    "infinity": ("x,y\n1,1\n2.5,2\ninf,2\n", (), "a cell of x is empty or not finite, the first in line 4"),
    "an empty target": ("x,y\n1,1\n2,\n", (), "the first in line 3; allowed: data.nan=drop$"),
    "no target at all": ("x,y\n1,\n2,\n", ("data.nan=mean",), "no row has a value of y$"),
    "words that are none": (
        "x,y\n1,1\n2,2\n",
        ("data.missing=[[1]]",),
        r"data\.missing=\[\[1\]\]: is not a list of words",
    ),
    "a word that means nothing here": ("x,y\n1,1\nNA,2\n3,3\n", ("data.missing=[]",), "line 3: 'NA' in the column x"),
    "no whole row": ("x,y\n1,\n,2\n", ("data.nan=drop",), "no row is complete"),
    "only the target": ("y\n1\n2\n", (), "has no column besides y"),
    "a name each": (
        "n,y\n" + "".join(f"name{i},{i}.5\n" for i in range(100)),
        (),
        r"80 different texts .*data\.exclude=\[n\]",
    ),
    "numbers as classes": (
        "x,y\n1,1.5\n2,2.5\n",
        ("loss=cross_entropy", "data.validation=0.5"),
        r"did you mean data\.classes=true\?",
    ),
    "words as numbers": ("x,y\n1,a\n2,b\n", ("data.classes=false", "data.validation=0.5"), "the target y is text"),
    "two targets with text": (
        "x,y,z\n1,a,1\n2,b,2\n",
        ("data.target=[y,z]", "data.validation=0.5"),
        "several targets must be numbers; y is text",
    ),
    "a choice that is none": (
        "x,y\n1,2\n",
        ("data.nan=fill",),
        r"data\.nan=fill: no such choice; allowed: error, drop, mean, indicator",
    ),
    "a strange part": (
        "x,p,y\n1,train,2\n2,other,3\n",
        ("data.split=p",),
        r"data\.split=p: holds 'other' in line 3; allowed: train",
    ),
    "a cell without a part": (
        "x,p,y\n1,train,2\n\n2,,3\n3,,4\n",
        ("data.split=p",),
        r"data\.split=p: is empty in line 4; allowed: train",
    ),
    "an empty part": ("x,p,y\n1,train,2\n2,train,3\n", ("data.split=p",), "no row says validation"),
    "too small to split": ("x,y\n1,1.5\n2,2.5\n", ("data.validation=0.1",), "leaves none for validation"),
    "batch too large": (
        "x,y\n1,1.5\n2,2.5\n",
        ("batch_size=5", "data.validation=0"),
        r"batch_size=5: the data have 2 training rows",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused_in_one_line(cli, case):
    content, words, message = BAD[case]
    if content == "directory":
        Path("t.csv").mkdir()
    elif content is not None:
        Path("t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(Path().rglob("*"))
    result = cli("run", *table(*words))
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert re.search(message, result.err.removesuffix("\n")), result.err
    assert sorted(Path().rglob("*")) == before


def test_what_says_nothing_is_warned_of(cli):
    write(",x,c,y", "0,1,5,a", "1,2,5,a", "2,3,5,a", "3,4,5,a")
    result = cli("run", *table("data.validation=0"))
    assert result.code == 0, result.err
    for what in ("the column without a name is ignored", "the column c is constant", "the target y is constant"):
        assert f"warning: {what}" in result.err


def test_a_run_goes_on_with_the_same_bits_and_not_with_other_data(train, cli):
    write(*MIXED, "2,Kiel,100,40")
    whole = train(*table("steps=7"), name="whole")
    run = train(*table("steps=3"))
    with open("t.csv", "a") as file:
        file.write("9,Ulm,300,90\n")
    refused = cli("resume", "run", "steps=7")
    assert refused.code == 2
    assert "t.csv: has changed since the run started" in refused.err
    assert "--allow-data-change" in refused.err
    write(*MIXED, "2,Kiel,100,40")
    assert cli("resume", "run", "steps=7").code == 0
    assert run.bits() == whole.bits()


def test_a_changed_file_is_prepared_as_before_where_that_is_allowed(train, cli):
    write(*MIXED)
    run = train(*table("data.validation=0"))
    before = preprocess(run)
    with open("t.csv", "a") as file:
        file.write("60,Rom,300,90\n")
    result = cli("resume", "run", "steps=4", "--allow-data-change")
    assert result.code == 0, result.err
    assert preprocess(run) == before
    assert run.status["data"]["rows"] == 6
    assert cli("resume", "run", "steps=5").code == 0  # it is the file that the run knows now


def test_a_sweep_prepares_each_job(cli):
    write(*MIXED)
    result = cli("run", "-m", "run_dir=sweep", *table("optim.lr=0.1,0.01"))
    assert result.code == 0, result.err
    assert [Run(Path("sweep", job)).status["state"] for job in ("000", "001")] == ["done", "done"]
    assert preprocess(Run(Path("sweep/000"))) == preprocess(Run(Path("sweep/001")))


def test_parquet_gives_what_csv_gives(train):
    write(*MIXED)
    first = train(*table())
    pl.read_csv("t.csv").with_columns(pl.col("city").cast(pl.Categorical)).write_parquet("t.parquet")
    second = train(*table("data=parquet", "data.path=t.parquet"), name="second")
    assert preprocess(first) == preprocess(second)
    assert first.bits() == second.bits()


def test_parquet_is_refused_in_words(refused):
    Path("t.parquet").write_text("x,y\n1,2\n")
    words = ("run", *table("data=parquet", "data.path=t.parquet"))
    before = Path("t.parquet").read_text()
    assert "is not a Parquet file" in refused(*words)
    assert Path("t.parquet").read_text() == before


@given(
    st.lists(
        st.tuples(
            st.floats(-1e6, 1e6, allow_subnormal=False),
            st.text(st.characters(codec="utf-8", exclude_characters="\0")),
            st.booleans(),
        ),
        min_size=2,
        max_size=30,
    )
)
@settings(max_examples=40, deadline=None)
def test_any_cells_come_back_from_a_file_as_they_are(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    frame = pl.DataFrame(
        {"x": [row[0] for row in rows], "k": [f"k{row[1]}" for row in rows], "y": [float(row[2]) for row in rows]}
    )
    frame.write_csv(path)
    data = CSV(str(path), "y", classes=False, standardize=False, validation=0.0, encode="index")
    data.prepare(seed=0)
    values = sorted({text.strip(" \t") for text in frame["k"]})
    if len(values) <= 50:
        assert data.preprocess.inputs[1]["values"] == values
        expected = np.array(
            [[np.float32(row[0]), values.index(f"k{row[1]}".strip(" \t"))] for row in rows], dtype=np.float32
        )
        np.testing.assert_array_equal(data.x.numpy(), expected)


class TestBesideScikitLearn:
    """On the same split, what it reaches and what scikit-learn's own models reach."""

    @staticmethod
    def parts(run: Run, name: str, frame: pl.DataFrame, target: str):
        """Inputs and targets of the rows that the run trained on and held out, prepared by scikit-learn."""
        from sklearn.compose import make_column_transformer
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        from trainer.data import split

        training, held_out = split(frame.height, 0.2, seed=0)
        numbers = [c for c in frame.columns if c != target and frame[c].dtype.is_numeric()]
        texts = [c for c in frame.columns if c != target and not frame[c].dtype.is_numeric()]
        columns = [frame.columns.index(c) for c in numbers], [frame.columns.index(c) for c in texts]
        transformer = make_column_transformer(
            (StandardScaler(), columns[0]), (OneHotEncoder(handle_unknown="ignore"), columns[1]), sparse_threshold=0
        )
        x, y = frame.to_numpy(), frame[target].to_numpy()
        first = transformer.fit_transform(x[training.numpy()])
        return first, y[training.numpy()], transformer.transform(x[held_out.numpy()]), y[held_out.numpy()]

    def evaluated(self, cli, run: Run) -> dict:
        result = cli("eval", str(run.path), "--json")
        assert result.code == 0, result.err
        return json.loads(result.out)

    @pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
    def test_diabetes(self, train, cli):
        from sklearn.datasets import load_diabetes
        from sklearn.linear_model import LinearRegression
        from sklearn.neural_network import MLPRegressor

        bunch = load_diabetes()
        frame = pl.DataFrame({**dict(zip(bunch.feature_names, bunch.data.T, strict=True)), "target": bunch.target})
        words = ("data=sklearn", "data.name=diabetes", "loss=auto", "optim=adam", "batch_size=32", "device.threads=1")
        linear = train(*words, "model=linear", "optim.lr=1e-2", "epochs=60", "schedule=cosine")
        x, y, x_held, y_held = self.parts(linear, "diabetes", frame, "target")
        ours, theirs = self.evaluated(cli, linear)["r2"], LinearRegression().fit(x, y).score(x_held, y_held)
        assert ours == pytest.approx(theirs, abs=0.02)
        mlp = train(*words, "model=mlp", "optim.lr=1e-3", "epochs=60", "patience=10", name="mlp")
        theirs = max(
            MLPRegressor(hidden_layer_sizes=(100, 100), max_iter=60, early_stopping=stop, random_state=0)
            .fit(x, y)
            .score(x_held, y_held)
            for stop in (False, True)
        )
        assert self.evaluated(cli, mlp)["r2"] > theirs - 0.05

    def test_wine(self, train, cli):
        from sklearn.datasets import load_wine
        from sklearn.linear_model import LogisticRegression
        from sklearn.neural_network import MLPClassifier

        bunch = load_wine()
        names = [str(bunch.target_names[i]) for i in bunch.target]
        frame = pl.DataFrame({**dict(zip(bunch.feature_names, bunch.data.T, strict=True)), "target": names})
        words = ("data=sklearn", "data.name=wine", "loss=auto", "optim=adam", "batch_size=32", "device.threads=1")
        for model, theirs in (("linear", LogisticRegression()), ("mlp", MLPClassifier((100, 100), random_state=0))):
            run = train(*words, f"model={model}", "optim.lr=1e-2", "epochs=40", name=model)
            x, y, x_held, y_held = self.parts(run, "wine", frame, "target")
            theirs.set_params(max_iter=1000)
            assert self.evaluated(cli, run)["accuracy"] >= theirs.fit(x, y).score(x_held, y_held) - 0.03

    def test_a_csv_with_text(self, train, cli):
        from sklearn.linear_model import LinearRegression

        random = np.random.default_rng(1)
        city, size = random.choice(["Ulm", "Bonn", "Kiel"], 300), random.uniform(30, 200, 300)
        price = 1000 * size + np.select([city == "Ulm", city == "Bonn"], [50_000, 20_000]) + random.normal(0, 9000, 300)
        frame = pl.DataFrame({"city": city, "size": size, "price": price})
        frame.write_csv("houses.csv")
        words = ("experiment=table", "data.path=houses.csv", "data.target=price", "epochs=60")
        run = train(*words, "model=linear", "optim.lr=1e-2", "schedule=cosine")
        x, y, x_held, y_held = self.parts(run, "houses", frame, "price")
        theirs = LinearRegression().fit(x, y).score(x_held, y_held)
        assert self.evaluated(cli, run)["r2"] == pytest.approx(theirs, abs=0.01)
        mlp = train(*words, name="mlp")
        assert self.evaluated(cli, mlp)["r2"] > theirs - 0.02


def test_a_dry_run_shows_what_the_data_are(cli):
    write("age,city,y", "1,Ulm,no", "2,Bonn,yes", "3,Ulm,yes", "4,Kiel,yes")
    result = cli("run", "--dry-run", *table("data.validation=0"))
    assert result.code == 0, result.err
    for shown in ("cross_entropy", "age (1 to 4), city (3 values)", "y: no 25.0%, yes 75.0%", "nothing was created"):
        assert shown in result.out
    assert not Path("runs").exists()
