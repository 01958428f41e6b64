"""Cells of tables as values: one value in several spellings, missing ones, names that training has not seen."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tables import table, write

from trainer.data import CSV, Parquet, Preprocess


def inputs(run: Run) -> list[dict]:
    return json.loads((run.path / "preprocess.json").read_text())["inputs"]


def predictions(cli, source: str, run: str = "run") -> list[float]:
    """The predictions of a file's rows, about which nothing is said."""
    result = cli("predict", run, "--input", source, "--output", "out.parquet")
    assert result.code == 0, result.err
    assert "warning" not in result.err
    return pl.read_parquet("out.parquet")["predicted_y"].to_list()


FLAGS = ([True, False, True, True, False, True], ["True", "False"], ["TRUE", "false"], ["true", "false"])


@pytest.mark.parametrize("spelled", range(1, 4))
def test_a_boolean_is_one_value_in_csv_and_parquet(train, cli, spelled):
    flags = [FLAGS[spelled][not flag] for flag in FLAGS[0]]
    write("f,y", *(f"{flag},{number}.5" for number, flag in enumerate(flags)))
    pl.DataFrame({"f": FLAGS[0], "y": np.arange(6) + 0.5}).write_parquet("t.parquet")
    train(*table("data.validation=0"))
    train(*table("data.validation=0", "data=parquet", "data.path=t.parquet"), name="other")
    expected = predictions(cli, "t.csv")
    assert len(set(expected)) == 2
    assert predictions(cli, "t.parquet") == expected
    assert predictions(cli, "t.csv", "other") == predictions(cli, "t.parquet", "other")
    others = ("data=parquet", "data.path=t.parquet", "data.target=y")
    same = [json.loads(cli("eval", "run", *words, "--json").out) for words in ((), others)]
    assert same[0]["loss"] == same[1]["loss"]


def test_a_class_is_one_value_in_csv_and_parquet(train, cli):
    write("x,y", "1,True", "2,False", "3,True", "4,False")
    pl.DataFrame({"x": [1, 2, 3, 4], "y": [True, False, True, False]}).write_parquet("t.parquet")
    train(*table("data.validation=0"))
    result = cli("eval", "run", "data=parquet", "data.path=t.parquet", "data.target=y", "--json")
    assert json.loads(result.out)["classes"] == ["False", "True"]
    assert set(predictions(cli, "t.parquet")) <= {"False", "True"}


def test_a_number_that_is_a_category_is_one_value_however_it_is_written(train, cli):
    write("k,y", "1.0,1.5", "2.0,2.5", "1.0,3.5", "10,4.5")
    train(*table("data.validation=0", "data.categories=[k]"))
    expected = predictions(cli, "t.csv")
    write("k", "1", "2.00", "1.", "10.0", name="new.csv")
    assert predictions(cli, "new.csv") == expected
    for kind in (pl.Int8, pl.Float32, pl.Float64, pl.Decimal(10, 3)):
        pl.DataFrame({"k": [1, 2, 1, 10]}).with_columns(pl.col("k").cast(kind)).write_parquet("new.parquet")
        assert predictions(cli, "new.parquet") == expected


def test_spellings_of_a_value_in_one_table_are_one_category_and_said(cli):
    write("f,k,y", "True,1,1.5", "true,1.0,2.5", "False,01,3.5", "False,1,4.5")
    result = cli("run", "run_dir=run", *table("data.validation=0", "data.categories=[k]"))
    assert result.code == 0, result.err
    assert [one["values"] for one in inputs(Run(Path("run")))] == [["False", "True"], ["01", "1"]]
    assert "warning: f: 'True' and 'true' count as one value" in result.err
    assert "warning: k: '1' and '1.0' count as one value" in result.err


def test_a_run_that_learned_two_spellings_as_two_names_keeps_them():
    write("k,y", "True,1.5", "true,2.5", "1.0,3.5", "1,4.5", "TRUE,5.5")
    kept = Preprocess(
        [{"column": "k", "kind": "category", "values": ["1", "1.0", "True", "true"], "encode": "index", "fill": False}],
        [{"column": "y", "kind": "number", "mean": 0.0, "deviation": 1.0, "fill": None}],
    )
    data = CSV("t.csv", "y", encode="index")
    data.prepare(seed=0, kept=kept)
    assert data.x[:, 0].tolist() == [2, 3, 1, 0, 2]


SCALARS = (
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-20, 20).map(float),
    st.sampled_from(["NA", "None", "null", "N/A", "True", "1e5", "007", "a b", "-", "1.0", "x"]),
)


@given(st.sampled_from(SCALARS).flatmap(lambda kind: st.lists(kind, min_size=2, max_size=20)))
@settings(max_examples=150, deadline=None)
def test_the_same_rows_of_either_format_are_the_same_inputs(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("t")
    frame = pl.DataFrame({"k": values, "y": np.arange(len(values)) / 3})
    frame.write_csv(folder / "t.csv")
    frame.write_parquet(folder / "t.parquet")
    tables = [
        kind(str(folder / f"t.{name}"), "y", categories=["k"], missing=None, validation=0.0, encode="index")
        for kind, name in ((CSV, "csv"), (Parquet, "parquet"))
    ]
    for first, second in (tables, tables[::-1]):
        first.prepare(seed=0)
        second.prepare(seed=0, kept=first.preprocess)
        assert not [warning for warning in second.warnings if "has not seen" in warning]
        assert second.x.tolist() == first.x.tolist()
        same = {value: index for value, (index,) in zip(values, first.x.tolist(), strict=True)}
        assert [same[value] for value in values] == first.x[:, 0].tolist()


def test_a_column_of_values_that_are_all_new_is_refused_unless_forced(train, cli):
    write("x,city,y", "1,Ulm,1.5", "2,Bonn,2.5", "3,Ulm,3.5", "4,Bonn,4.5")
    train(*table("data.validation=0"))
    count = 70_000  # the first part of a file has only new names, and the second doesn't
    pl.DataFrame({"x": [1] * count, "city": ["Rom"] * (count - 1) + ["Ulm"]}).write_csv("some.csv")
    write("x,city", "1,ulm", "2,Rom", name="none.csv")
    before = sorted(Path().iterdir())
    for words in (
        ("--input", "none.csv"),
        ("--input", "none.csv", "--output", "out.csv"),
        ("--row=1,ulm", "--row=2,Rom"),
    ):
        result = cli("predict", "run", *words)
        assert (result.code, result.out) == (2, "")
        assert "city: the run has seen none of its values: 'Rom', 'ulm' (2 rows); allowed: Bonn, Ulm, or" in result.err
        assert sorted(Path().iterdir()) == before
    assert "did you mean Ulm?" in cli("predict", "run", "--row=1,ulm").err
    forced = cli("predict", "run", "--input", "none.csv", "--force")
    assert forced.code == 0
    assert forced.err.count("warning: city: the run has not seen 'Rom', 'ulm' (2 rows)") == 1
    some = cli("predict", "run", "--input", "some.csv", "--output", "out.csv")
    assert some.code == 0
    assert some.err.count("warning: city: the run has not seen 'Rom' (69,999 rows)") == 1
    assert pl.read_csv("out.csv").height == count


WORDS = ("NA", "None", "NULL", "null", "NaN")


def test_words_are_names_in_text_and_missing_among_numbers(cli):
    write("x,c,y", *(f"{'NA' if i == 3 else i},{word},{word}" for i, word in enumerate(WORDS * 2)))
    result = cli("run", "run_dir=run", *table("data.validation=0", "data.nan=mean"))
    assert result.code == 0, result.err
    number, category = inputs(Run(Path("run")))
    assert number["mean"] == pytest.approx(np.mean([i for i in range(10) if i != 3]))
    assert category["values"] == sorted(WORDS)
    assert Run(Path("run")).status["data"]["classes"] == dict.fromkeys(sorted(WORDS), 2)
    shown = " ".join(result.err.split())
    assert "words c: 'NA' (2 rows), 'NULL' (2 rows), 'NaN' (2 rows), 'None' (2 rows), 'null' (2 rows), y: 'NA'" in shown
    assert "missing 1 cell in x; filled with the mean" in shown
    (typed,) = shlex.split(shown.partition("missing cells with ")[2].split()[0])
    assert typed == 'data.missing=[NA,NULL,"NaN",None,null]'
    again = cli("run", *table("data.nan=mean", "data.target=x", "data.validation=0", typed))
    assert again.code == 2  # c is empty in all rows now
    assert "the column c is empty in all training rows" in again.err


def test_the_words_listed_mean_missing_everywhere_and_no_others_do(train, cli, refused):
    write("x,c,y", "1,a,1.5", "-999,none,2.5", "3,NA,3.5", "-999.0,a,4.5", "5,,5.5")
    words = ("data.validation=0", "data.nan=mean", "data.missing=[-999,none]")
    number, category = inputs(train(*table(*words)))
    assert (number["mean"], category["values"]) == (3, ["NA", "a"])
    pl.DataFrame({"x": [1, -999, 3], "c": ["a", "none", "NA"], "y": [1.5, 2.5, 3.5]}).write_parquet("t.parquet")
    number, category = inputs(train(*table(*words, "data=parquet", "data.path=t.parquet"), name="other"))
    assert (number["mean"], category["values"]) == (2, ["NA", "a"])
    filled, said = (
        predictions(cli, "t.csv"),
        json.loads(cli("predict", "run", "--row=,", "--row=-999,none", "--json").out),
    )
    assert [row["predicted_y"] for row in said] == pytest.approx([filled[1]] * 2)
    write("x,c,y", "1,a,1", "NA,b,2", "3,c,3")
    assert "line 3: 'NA' in the column x, which otherwise holds numbers" in refused("run", *table("data.missing=[]"))


def test_null_is_a_word_although_yaml_takes_it_for_a_value(train):
    write("c,y", "null,1.5", "NULL,2.5", "NaN,3.5", "nan,4.5", "a,5.5", "b,6.5")
    (category,) = inputs(train(*table("data.validation=0", "data.nan=mean", 'data.missing=[null,"NaN","nan"]')))
    assert category["values"] == ["a", "b"]


def test_a_configuration_without_the_setting_means_what_it_meant(refused):
    text = (Path(__file__).parents[2] / "configs/data/csv.yaml").read_text()
    Path("configs/data").mkdir(parents=True)
    Path("configs/data/mine.yaml").write_text("\n".join(line for line in text.splitlines() if "missing:" not in line))
    write("c,y", "NA,1.5", "None,2.5", "a,3.5", "b,4.5")
    assert "2 cells of c are empty" in refused("run", *table("data=mine"))


def test_predict_returns_other_columns_as_they_are(train, cli):
    write("x,y", "1,1.5", "2,2.5", "3,3.5")
    train(*table("data.validation=0"))
    rows = ["NA,1, a ,1.50", "None,2,,007", "null,3,NaN,1e5", '"a,b",4,"say ""x""",-0']
    write("other,x,k,n", *rows, name="new.csv")
    lines = cli("predict", "run", "--input", "new.csv").out.splitlines()
    assert [line.rpartition(",")[0] for line in lines] == ["other,x,k,n", *rows]


def test_classes_and_names_that_only_held_out_rows_have_are_warned_of(cli):
    write("c,part,y", "a,train,no", "b,train,yes", "a,train,no", "z,val,no", "z,val,maybe", "q,val,yes", "w,test,yes")
    result = cli("run", "run_dir=run", *table("data.split=part"))
    assert result.code == 0, result.err
    assert "warning: c: no training row has 'q', 'z' (3 held-out rows)" in result.err
    assert "warning: y: no training row is of the class 'maybe' (1 held-out row)" in result.err
    assert "warning: c: no training row has" in cli("run", "--dry-run", *table("data.split=part")).err
    write("c,part,y", "a,train,no", "b,train,yes", "a,val,no")
    assert "no training row" not in cli("run", *table("data.split=part")).err


def test_classes_of_arrays_that_only_held_out_rows_have_are_warned_of(cli):
    from trainer.data import split

    y = np.zeros(40, dtype=np.int64)
    y[::2] = 1
    held_out = split(40, 0.2, seed=0)[1].numpy()
    y[held_out[:3]] = 2
    np.savez("t.npz", x=np.arange(80.0).reshape(40, 2), y=y)
    result = cli("run", "data=npz", "data.path=t.npz", "model=linear", "loss=cross_entropy", "steps=2", "optim.lr=1e-3")
    assert result.code == 0, result.err
    assert "warning: the targets: no training row is of the class '2' (3 held-out rows)" in result.err


def test_a_nearly_empty_column_that_drops_most_rows_is_named(cli):
    write("x,note,y", *(f"{i if i % 20 else ''},{'ok' if i % 10 == 1 else ''},{i / 2}" for i in range(100)))
    result = cli("run", "run_dir=run", *table("data.nan=drop"))
    assert result.code == 0, result.err
    assert "data.nan=drop leaves 10 of 100 rows; note is missing in 90: 'data.exclude=[note]' leaves 95" in result.err
    assert "95 cells in x (5), note (90); dropped 90 of 100 rows" in " ".join(result.err.split())
    kept = cli("run", "run_dir=other", *table("data.nan=drop", "data.exclude=[note]"))
    assert "data.nan=drop leaves" not in kept.err
    assert Run(Path("other")).status["rows"] == {"training": 76, "validation": 19}
    few = cli("run", *table("data.nan=drop", "batch_size=50"))
    assert "the data have 8 training rows; 90 incomplete rows were dropped; allowed: 1 to 8" in few.err


@pytest.mark.parametrize("nan", ["mean", "indicator"])
def test_rows_without_a_target_are_dropped_where_inputs_are_filled(cli, nan):
    write("x,y", "1,1.5", ",2.5", "3,", "5,4.5")
    result = cli("run", "run_dir=run", *table("data.validation=0", f"data.nan={nan}"))
    assert result.code == 0, result.err
    assert "2 cells in x (1), y (1); filled with the mean" in result.err
    assert "dropped 1 of 4 rows, without a target" in " ".join(result.err.split())
    run = Run(Path("run"))
    assert run.status["rows"]["training"] == 3
    assert inputs(run)[0]["mean"] == 3


@pytest.mark.parametrize("encode", ["onehot", "index"])
def test_missing_cells_are_marked_in_inputs_of_their_own(encode):
    write("x,k,z,part,y", "1,a,1,train,1.5", ",b,2,train,2.5", "3,,3,train,3.5", "5,a,,val,4.5", "inf,c,4,val,5.5")
    data = CSV("t.csv", "y", split="part", nan="indicator", encode=encode, missing=None)
    data.prepare(seed=0)
    x, z = (
        (value - 2) / np.std(fitted)
        for value, fitted in ((np.array([1, 2, 3, 5, 2]), [1, 3]), (np.array([1, 2, 3, 2, 4]), [1, 2, 3]))
    )
    names = {"onehot": [[1, 0], [0, 1], [0, 0], [1, 0], [0, 0]], "index": [[0], [1], [2], [0], [2]]}[encode]
    marks = [(0, 0), (1, 0), (0, 1), (0, 0), (1, 0)]
    expected = [[a, of_x, *name, of_k, c] for a, c, name, (of_x, of_k) in zip(x, z, names, marks, strict=True)]
    assert data.x.tolist() == [pytest.approx(row) for row in expected]


def test_a_run_that_marks_missing_cells_goes_on_predicts_and_is_reproduced(train, cli):
    random = np.random.default_rng(0)
    x = random.normal(size=80)
    gone = random.random(80) < 0.3
    y = np.where(gone, 5, x)
    write("x,k,y", *(f"{'' if g else a},{'' if g else 'k'},{b}" for a, b, g in zip(x, y, gone, strict=True)))
    words = table("data.nan=indicator", "model=linear", "optim.lr=0.1", "batch_size=16", "steps=60")
    whole = train(*words, name="whole")
    run = train(*[word.replace("steps=60", "steps=30") for word in words])
    assert cli("resume", "run", "steps=60").code == 0
    assert run.bits() == whole.bits()
    assert json.loads(cli("eval", "run", "--json").out)["r2"] > 0.99  # the mean alone can't tell
    assert cli("reproduce", "run").code == 0
    by_file = predictions(cli, "t.csv")
    assert np.abs(np.array(by_file) - y).max() < 0.5
    assert cli("export", "run", "--format", "pt2", "--output", "out").code == 0
    import torch

    raw = torch.tensor([[np.nan if g else a, np.nan if g else 0.0] for a, g in zip(x, gone, strict=True)])
    found = torch.export.load("out/model.pt2").module()(raw.double())[:, 0]
    np.testing.assert_allclose(found.numpy(), by_file, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", ["number", "name"])
def test_predictions_that_begin_with_many_empty_ones_are_written(train, cli, target):
    write("x,y", *(f"{i},{i / 3 if target == 'number' else 'ab'[i % 2]}" for i in range(8)))
    train(*table("data.nan=drop", "data.validation=0"))
    count = 65_536 + 100
    pl.DataFrame({"x": [None] * (count - 5) + [1.0] * 5}).write_parquet("new.parquet")
    result = cli("predict", "run", "--input", "new.parquet", "--output", "out.parquet")
    assert result.code == 0, result.err
    assert "warning: no prediction for 65,631 of 65,636 rows, which lack a value: x in 65,631" in result.err
    out = pl.read_parquet("out.parquet")
    assert out["predicted_y"].null_count() == count - 5
    assert out["predicted_y"].dtype == (pl.Float64 if target == "number" else pl.String)


@pytest.mark.parametrize("name", ["predicted_y", "probability_y"])
def test_a_column_with_the_name_of_a_prediction_keeps_it(train, cli, name):
    write(f"{name},{name}_2,y", "1,5,a", "2,6,b", "3,5,a", "4,6,b")
    train(*table("data.validation=0"))
    result = cli("predict", "run", "--input", "t.csv", "--output", "out.csv")
    assert result.code == 0, result.err
    assert f"warning: the table has a column {name}; what is predicted stands in {name}_3" in result.err
    out, other = pl.read_csv("out.csv"), {"predicted_y", "probability_y"} - {name}
    assert out.columns[:3] == [name, f"{name}_2", "y"]
    assert {*out.columns[3:]} == {f"{name}_3", *other}
    assert out[name].to_list() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("training", "held_out", "message"),
    [
        ("1,a", "2?,a", r"line 2 of v.csv: '2?' in the column x, which holds numbers in the training rows"),
        (
            "1,a",
            "5,a\nmuch,a\nmore,b",
            "line 3 of v.csv: 'much' in the column x, which holds numbers in the training rows",
        ),
        (",a", "much,a", "the column x is empty in all training rows"),
        ("1,a", ",", None),
        ("1,a", ",5", None),
    ],
)
def test_held_out_rows_of_another_kind_than_those_to_train_on(cli, training, held_out, message):
    write("x,k,y", *(f"{training},{i}.5" for i in range(3)), "1,b,1.5" if training[0] == "1" else ",b,1.5")
    write("x,k,y", *(f"{row},2.5" for row in held_out.splitlines()), name="v.csv")
    before = sorted(Path().iterdir())
    result = cli("run", "run_dir=run", *table("data.validation_path=v.csv", "data.nan=mean"))
    if message is None:
        assert result.code == 0, result.err
        return
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert message in result.err
    assert sorted(Path().iterdir()) == before


def test_text_in_other_data_than_the_run_learned_numbers_from_is_named(train, cli):
    write("x,y", "1,1.5", "2,2.5", "3,3.5")
    train(*table("data.validation=0"))
    write("x,y", "1,1.5", "much,2.5", "more,3.5", name="new.csv")
    result = cli("eval", "run", "data.path=new.csv")
    assert result.code == 2
    assert "new.csv: line 3: 'much': x holds text, but the run was trained on numbers" in result.err
    pl.DataFrame({"x": pl.Series(["1", "2"], dtype=pl.Categorical), "y": [1.5, 2.5]}).write_parquet("new.parquet")
    expected = predictions(cli, "t.csv")[:2]
    assert predictions(cli, "new.parquet") == expected
    pl.DataFrame({"x": pl.Series([1, 2]).cast(pl.Date)}).write_parquet("new.parquet")
    result = cli("predict", "run", "--input", "new.parquet")
    assert result.code == 2
    assert "but the model takes numbers there" in result.err


MARKS = {".": ("-999", "-9.5"), ",": ("-999", "-9,5")}


@pytest.mark.parametrize("decimal", MARKS)
@pytest.mark.parametrize("word", [0, 1])
def test_numbers_that_mean_missing_are_found_with_either_decimal_mark(train, cli, decimal, word):
    rows = [f"{number}{decimal}5;{number}{decimal}25" for number in range(6)]
    write("x;y", *rows, f"{MARKS[decimal][word]};1{decimal}0", "N.A.;2")
    words = ("data.validation=0", "data.nan=mean", "data.missing=[-999,-9.5,N.A.]", f"data.decimal={decimal}")
    assert inputs(train(*table(*words)))[0]["mean"] == 3.0
    assert cli("predict", "run", "--input", "t.csv").out.count("\n") == 9


def test_a_line_of_words_that_mean_missing_is_blank_and_counted(refused):
    write("x;y", "-;-", "1,5;2", "-;-", "one;3", "2,5;4")
    asked = refused("run", *table("data.missing=[-]", "data.decimal=,"))
    assert "line 5: 'one' in the column x" in asked
    assert "data.decimal" not in asked


def test_no_decimal_mark_is_suggested_for_parquet(refused):
    write("x;y", "1,5;2", "2,5;3", "1;4")
    assert "did you mean data.decimal=,?" in refused("run", *table())
    pl.read_csv("t.csv", separator=";").write_parquet("t.parquet")
    assert "data.decimal" not in refused("run", *table("data=parquet", "data.path=t.parquet"))
