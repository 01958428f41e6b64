"""A trained model is of use: evaluated, asked about new rows, taken along to other tools."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from conftest import Run
from safetensors.numpy import load_file

ROWS = 60


@pytest.fixture
def houses() -> pl.DataFrame:
    random = np.random.default_rng(0)
    size, city = random.uniform(30, 200, ROWS), random.choice(["Bonn", "Kiel", "Ulm"], ROWS)
    price = 1000 * size + np.select([city == "Ulm"], [50_000.0], 0) + random.normal(0, 5000, ROWS)
    frame = pl.DataFrame({"size": size.round(1), "city": city, "price": price.round()})
    frame.write_csv("houses.csv")
    frame.select("city", "size").head(7).write_csv("new.csv")  # other columns first
    return frame


@pytest.fixture
def priced(houses, train) -> Run:
    return train("experiment=table", "data.path=houses.csv", "data.target=price", "model.sizes=[8]", "epochs=4")


@pytest.fixture
def flowers(train) -> Run:
    return train(
        "data=sklearn", "model=mlp", "model.sizes=[8]", "loss=auto", "optim=adam", "optim.lr=0.01", "epochs=60"
    )


def by_hand(run: Run, frame: pl.DataFrame) -> np.ndarray:
    """Prices of rows, computed with NumPy from the files of a run."""
    kept = json.loads((run.path / "preprocess.json").read_text())
    columns = []
    for one in kept["inputs"]:
        values = frame[one["column"]].to_numpy()
        if one["kind"] == "number":
            columns.append((values - one["mean"]) / one["deviation"])
        else:
            columns += [(values == name).astype(float) for name in one["values"]]
    step = run.status["best"]["step"]
    weights = load_file(run.path / "checkpoints" / f"step-{step:012d}" / "model.safetensors")
    names = [*weights]
    x = np.stack(columns, axis=1)
    layers = sorted({name.rpartition(".")[0] for name in names})
    for index, layer in enumerate(layers):
        x = x @ weights[f"{layer}.weight"].T.astype(float) + weights[f"{layer}.bias"]
        x = np.maximum(x, 0) if index < len(layers) - 1 else x
    (target,) = kept["targets"]
    return x[:, 0] * target["deviation"] + target["mean"]


def held_out(frame: pl.DataFrame) -> pl.DataFrame:
    from trainer.data import split

    return frame[split(frame.height, 0.2, seed=0)[1].numpy()]


def test_eval_shows_what_fits_numbers(cli, priced, houses):
    part = held_out(houses)
    error = by_hand(priced, part) - part["price"].to_numpy()
    spread = part["price"].to_numpy() - part["price"].mean()
    result = json.loads(cli("eval", "run", "--json").out)
    assert result["rows"] == 12
    assert result["step"] == priced.status["best"]["step"]
    assert result["loss"] == pytest.approx(priced.status["best"]["value"], rel=1e-5)
    assert result["r2"] == pytest.approx(1 - error @ error / (spread @ spread), rel=1e-4)
    assert result["rmse"] == pytest.approx(np.sqrt(error @ error / 12), rel=1e-4)
    assert result["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    assert "12 held out" in cli("eval", "run").out


def test_eval_of_other_data_looks_at_all_rows_prepared_as_before(cli, priced, houses):
    other = houses.filter(pl.col("city") != "Bonn").with_columns(pl.col("size") + 100)
    other.write_csv("other.csv")
    error = by_hand(priced, other) - other["price"].to_numpy()
    result = json.loads(cli("eval", "run", "data.path=other.csv", "--json").out)
    assert result["rows"] == other.height
    assert result["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
    one = houses.head(1)
    one.write_csv("other.csv")
    assert json.loads(cli("eval", "run", "data.path=other.csv", "--json").out)["rows"] == 1


def test_eval_shows_what_fits_classes(cli, flowers):
    result = json.loads(cli("eval", "run", "--json").out)
    assert result["classes"] == ["setosa", "versicolor", "virginica"]
    table = np.array(result["confusion"])
    assert table.sum() == 30
    assert np.trace(table) / 30 == pytest.approx(result["accuracy"])
    assert result["accuracy"] == pytest.approx(
        flowers.evaluations[flowers.status["best"]["step"] - 1]["validation_accuracy"]
    )
    shown = cli("eval", "run").out
    assert all(name in shown for name in result["classes"])


@pytest.mark.parametrize("asked", ["best", "last", "2"])
def test_the_checkpoint_is_the_one_asked_for(cli, train, houses, asked):
    run = train(
        "experiment=table",
        "data.path=houses.csv",
        "data.target=price",
        "steps=6",
        "checkpoint.every=2",
        "checkpoint.keep=9",
    )
    step = {"best": run.status["best"]["step"], "last": 6, "2": 2}[asked]
    result = json.loads(cli("eval", "run", "--checkpoint", asked, "--json").out)
    assert result["step"] == step
    row = next(row for row in run.evaluations if row["step"] == step)
    assert result["loss"] == pytest.approx(row["validation_loss"], rel=1e-6)
    assert f"step {step}" in cli("predict", "run", "--row=50,Ulm", "--checkpoint", asked).err


def test_predict_keeps_the_columns_and_adds_the_predicted(cli, priced):
    result = cli("predict", "run", "--input", "new.csv", "--output", "out.csv")
    assert result.code == 0, result.err
    new, out = pl.read_csv("new.csv"), pl.read_csv("out.csv")
    assert out.columns == ["city", "size", "predicted_price"]
    assert out.drop("predicted_price").equals(new)
    np.testing.assert_allclose(out["predicted_price"].to_numpy(), by_hand(priced, new), rtol=1e-5)
    assert pl.read_csv(cli("predict", "run", "--input", "new.csv").out.encode()).equals(out)
    new.write_parquet("new.parquet")
    assert cli("predict", "run", "--input", "new.parquet", "--output", "out.parquet").code == 0
    assert pl.read_parquet("out.parquet")["predicted_price"].to_list() == out["predicted_price"].to_list()


def test_predict_takes_rows_from_the_command_line(cli, priced):
    expected = by_hand(priced, pl.DataFrame({"size": [80.0, -3.5], "city": ["Ulm", "Bonn"]}))
    rows = json.loads(cli("predict", "run", "--row=80,Ulm", "--row", "city=Bonn,size=-3.5", "--json").out)
    assert [row["predicted_price"] for row in rows] == pytest.approx(expected.tolist(), rel=1e-5)


def test_predict_names_classes(cli, flowers):
    rows = json.loads(cli("predict", "run", "--row=5.1,3.5,1.4,0.2", "--row=6.7,3.0,5.2,2.3", "--json").out)
    assert [row["predicted_target"] for row in rows] == ["setosa", "virginica"]
    assert all(1 / 3 < row["probability_target"] <= 1 for row in rows)


def test_predict_says_which_names_it_has_not_seen_and_fills_what_is_missing(cli, train, houses):
    words = ("experiment=table", "data.path=houses.csv", "data.target=price", "steps=3", "data.nan=mean")
    run = train(*words)
    Path("new.csv").write_text("size,city\n50,Rom\n,Ulm\n")
    result = cli("predict", "run", "--input", "new.csv")
    assert "warning: city: the run has not seen 'Rom' (1 row)" in result.err
    mean = json.loads((run.path / "preprocess.json").read_text())["inputs"][0]["mean"]
    filled = json.loads(cli("predict", "run", f"--row={mean!r},Ulm", "--json").out)[0]["predicted_price"]
    assert float(result.out.splitlines()[2].rpartition(",")[2]) == pytest.approx(filled)


def test_predict_from_arrays(cli, train):
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 4)).astype(np.float32)
    np.savez("t.npz", x=x, y=x @ [1, 2, 3, 4])
    run = train("data=npz", "data.path=t.npz", "data.standardize=true", "model=linear", "loss=mse", "steps=5")
    np.save("new.npy", x)
    assert cli("predict", "run", "--input", "new.npy", "--output", "out.npy").code == 0
    kept = json.loads((run.path / "preprocess.json").read_text())["inputs"][0]
    step = run.status["best"]["step"]
    weights = load_file(run.path / "checkpoints" / f"step-{step:012d}" / "model.safetensors")
    weight, bias = sorted(weights.values(), key=lambda value: -value.ndim)
    expected = (x - kept["mean"]) / kept["deviation"] @ weight.T + bias
    np.testing.assert_allclose(np.load("out.npy"), expected, rtol=1e-4, atol=1e-5)


def test_many_rows_are_predicted_in_parts(cli, priced):
    count = 150_000
    frame = pl.DataFrame({"size": np.arange(count) / 1000, "city": ["Ulm"] * count})
    frame.write_csv("many.csv")
    assert "150,000 predictions in out.csv" in cli("predict", "run", "--input", "many.csv", "--output", "out.csv").out
    out = pl.read_csv("out.csv")
    assert out["size"].to_list() == frame["size"].to_list()
    np.testing.assert_allclose(out["predicted_price"][::1000].to_numpy(), by_hand(priced, frame[::1000]), rtol=1e-4)


WRONG = {
    "no run": (("eval",), "eval: which run?"),
    "a setting of training": (("eval", "run", "optim.lr=3"), "optim.lr=3: can't be changed for an evaluation"),
    "no such checkpoint": (
        ("eval", "run", "--checkpoint", "77"),
        "--checkpoint=77: run has no such checkpoint; allowed: best, last, ",
    ),
    "no rows": (("predict", "run"), "predict: which rows?"),
    "both": (("predict", "run", "--row=1,2", "--input", "new.csv"), "both --input and --row"),
    "too few values": (
        ("predict", "run", "--row=1"),
        "--row=1: has 1 values, but the model takes 2; allowed: size, city",
    ),
    "text for a number": (("predict", "run", "--row=big,Ulm"), "size is 'big', but the model takes numbers"),
    "no such input": (("predict", "run", "--input", "none.csv"), "--input=none.csv: no such file"),
    "a strange input": (("predict", "run", "--input", "run/config.yaml"), "this file type can't be read"),
    "a strange output": (
        ("predict", "run", "--input", "new.csv", "--output", "o.xls"),
        "--output=o.xls: this file type can't be written",
    ),
    "no folder": (("predict", "run", "--input", "new.csv", "--output", "no/o.csv"), "no such folder"),
    "onto itself": (("predict", "run", "--input", "new.csv", "--output", "new.csv"), "is the input file"),
    "a hole": (("predict", "run", "--input", "hole.csv"), "hole.csv: line 3: size is empty or not finite"),
    "text in a file": (("predict", "run", "--input", "text.csv"), "text.csv: line 2: size is 'x'"),
    "a column less": (("predict", "run", "--input", "less.csv"), "has no column city"),
    "no format": (("export", "run"), "export: in which format?; allowed: --format safetensors"),
    "a strange format": (
        ("export", "run", "--format=onx"),
        "--format=onx: no such format; allowed: onnx, pt2, safetensors; did",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_words_are_answered_in_one_line(cli, priced, case):
    words, message = WRONG[case]
    Path("hole.csv").write_text("size,city\n5,Ulm\n,Ulm\n")
    Path("text.csv").write_text("size,city\nx,Ulm\n")
    Path("less.csv").write_text("size\n5\n")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    result = cli(*words)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_weights_load_with_numpy_alone(cli, priced):
    result = cli("export", "run", "--format", "safetensors", "--output", "out")
    assert result.code == 0, result.err
    step = priced.status["best"]["step"]
    original = load_file(priced.path / "checkpoints" / f"step-{step:012d}" / "model.safetensors")
    exported = load_file("out/model.safetensors")
    assert exported.keys() == original.keys()
    assert all(np.array_equal(exported[name], original[name]) for name in original)
    assert Path("out/preprocess.json").read_bytes() == (priced.path / "preprocess.json").read_bytes()


def raw(frame: pl.DataFrame) -> np.ndarray:
    cities = [["Bonn", "Kiel", "Ulm"].index(city) for city in frame["city"]]
    return np.stack([frame["size"].to_numpy(), cities], axis=1).astype(np.float64)


def test_a_graph_of_torch_takes_raw_numbers(cli, priced, houses):
    assert cli("export", "run", "--format", "pt2", "--output", "out").code == 0
    model = torch.export.load("out/model.pt2").module()
    for rows in (houses, houses.head(1)):
        found = model(torch.from_numpy(raw(rows)))[:, 0].numpy()
        np.testing.assert_allclose(found, by_hand(priced, rows), rtol=1e-5)


def test_onnx_takes_raw_numbers(cli, priced, houses):
    import onnxruntime

    result = cli("export", "run", "--format", "onnx", "--output", "out")
    assert result.code == 0, result.err
    session = onnxruntime.InferenceSession("out/model.onnx", providers=["CPUExecutionProvider"])
    for rows in (houses, houses.head(1)):
        (found,) = session.run(None, {"raw": raw(rows)})
        np.testing.assert_allclose(found[:, 0], by_hand(priced, rows), rtol=1e-5)
    assert sorted(path.name for path in Path("out").iterdir()) == ["model.onnx", "preprocess.json"]


@pytest.mark.parametrize(
    ("model", "why"),
    [("numpy", "NumPy"), ("dynamic", "its computation is random in every pass"), ("product", "it takes no inputs")],
)
def test_what_is_no_graph_is_refused_in_words_and_its_weights_are_exported(cli, train, model, why):
    train(f"model={model}", "steps=1")
    for kind in ("pt2", "onnx"):
        result = cli("export", "run", "--format", kind)
        assert result.code == 2
        assert why in result.err
        assert "allowed: --format safetensors" in result.err
        assert [path.name for path in Path().iterdir()] == ["run"]
    assert cli("export", "run", "--format", "safetensors").code == 0
    assert Path("exported-run/model.safetensors").exists()


@pytest.mark.parametrize("command", [("eval",), ("predict", "--row=1,2"), ("export", "--format", "pt2")])
def test_code_of_others_is_not_run(cli, own_part, train, command, stranger):
    source = "from trainer.models import Linear\n\n\nclass Part(Linear):\n    pass\n"
    own_part("model", "mine", source.replace("Linear", "TwoLayerNet"))
    train("model=mine", "data.inputs=2", "data.outputs=1", "steps=1")
    sys.modules.pop("own_mine")
    assert cli(command[0], "run", *command[1:]).code == 0
    shutil.rmtree("exported-run", ignore_errors=True)
    stranger()
    sys.modules.pop("own_mine", None)
    refused = cli(command[0], "run", *command[1:])
    assert refused.code == 2
    assert "--trust-code" in refused.err
    assert "own_mine" not in sys.modules
    assert cli(command[0], "run", *command[1:], "--trust-code").code == 0


def test_rows_may_come_through_a_pipe(cli, train):
    rows = Path("rows.csv")
    rows.write_text("a,y\n1,2\n2,4\n3,6\n")
    train("experiment=table", "data.path=rows.csv", "data.target=y", "data.validation=0", "steps=2", "batch_size=3")
    assert cli("predict", "run", "--input", "rows.csv", "--output", "file.csv").code == 0
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(rows.read_bytes()))
    writer.start()
    assert cli("predict", "run", "--input", "pipe", "--output", "piped.csv").code == 0
    writer.join()
    assert Path("piped.csv").read_bytes() == Path("file.csv").read_bytes()
    before = os.dup(0)
    try:
        for content, code in ((rows.read_bytes(), 0), (b"", 2)):
            rows.write_bytes(content)
            with open(rows) as typed:
                os.dup2(typed.fileno(), 0)
                result = cli("predict", "run", "--input", "-", "--output", "typed.csv")
            assert result.code == code, result.err
    finally:
        os.dup2(before, 0)
    assert "--input=-: " in result.err
    assert Path("typed.csv").read_bytes() == Path("file.csv").read_bytes()


STRANGE = {"no-break space": "New\u00a0York", "backslash": "a\\b", "quotes": 'a"b', "escape": "a\x1b[31mb"}


@pytest.mark.parametrize("case", STRANGE)
@pytest.mark.parametrize("where", ["category", "class"])
def test_names_stay_what_they_are_from_training_to_prediction(cli, train, case, where):
    name = STRANGE[case]
    random = np.random.default_rng(0)
    names = random.choice([name, "other"], 40)
    number = np.where(names == name, 5.0, 1.0) + random.normal(0, 0.01, 40)
    pl.DataFrame({"name": names, "number": number}).write_csv("t.csv")
    target = "number" if where == "category" else "name"
    words = ("experiment=table", "data.path=t.csv", f"data.target={target}", "model=linear", "optim.lr=0.1")
    run = train(*words, "batch_size=8")
    evaluated = json.loads(cli("eval", "run", "--json").out)
    assert evaluated["loss"] == pytest.approx(run.status["best"]["value"], rel=1e-4)
    result = cli("predict", "run", "--input", "t.csv", "--output", "o.csv")
    assert "not seen" not in result.err
    found = pl.read_csv("o.csv")[f"predicted_{target}"].to_list()
    assert found == names.tolist() if where == "class" else np.abs(found - number).max() < 1
    assert cli("resume", "run", "epochs=11").code == 0


@pytest.mark.parametrize(("old", "target"), [("size", "price"), ("Ulm", "city"), ("Ulm", "price")])
def test_names_that_a_terminal_would_obey_are_printed_escaped(cli, train, houses, old, target):
    name = "[red]x[/red]\x1b]0;owned\x07[link=file:///etc]"
    shown = name.replace("\x1b", "\\x1b").replace("\x07", "\\x07")
    Path("evil.csv").write_text(Path("houses.csv").read_text().replace(old, name))
    train("experiment=table", "data.path=evil.csv", f"data.target={target}", "epochs=2", "batch_size=8")
    said = ""
    for words in (
        ("eval", "run"),
        ("show", "run"),
        ("predict", "run", "--input", "houses.csv", "--output", "o.csv"),  # to a pipe a table goes as it is
        ("predict", "run", "--row=nothing=1,city=2"),
        ("predict", "run", "--row=1"),
        ("predict", "run", "--row=1,2"),
    ):
        result = cli(*words)
        assert "\x1b]" not in result.out + result.err, words
        assert "\x07" not in result.out + result.err, words
        said += "".join((result.out + result.err).split())
    assert shown in said or (old, target) == ("Ulm", "price")  # where it is no name of a column or class


def test_eval_does_not_call_rows_held_out_that_were_trained_on(cli, priced, houses):
    assert "60 of these data" in cli("eval", "run", "data.validation=0.9").out
    with open("houses.csv", "a") as file:
        file.write("50,Ulm,100000\n")
    assert "61 of these data" in cli("eval", "run").out
    assert cli("eval", "run", "seed=5").code == 2


def test_other_columns_than_those_learned_from_are_refused(cli, priced, houses):
    Path("text.csv").write_text("size,city,price\n50,Ulm,cheap\n60,Bonn,dear\n")
    np.savez("t.npz", x=np.ones((4, 4)), y=np.ones(4))
    for words, message in (
        (("data.target=size",), "has city, price -> size, but the run learned from size, city -> price"),
        (("data.path=text.csv",), "price holds text, but the run was trained on numbers"),
        (("data=npz", "data.path=t.npz"), "the run learned from size, city"),
    ):
        result = cli("eval", "run", *words)
        assert result.code == 2
        assert message in result.err


def test_large_numbers_and_missing_cells_go_through_a_graph(cli, train):
    random = np.random.default_rng(0)
    time = 1_700_000_000 + random.uniform(0, 100, 60).round(3)
    lines = ["time,k,y", *(f"{t:.3f},a,{(t - 1_700_000_000) / 10:.4f}" for t in time)]
    lines[3] = "," + lines[3].partition(",")[2]
    Path("t.csv").write_text("\n".join(lines) + "\n")
    words = ("experiment=table", "data.path=t.csv", "data.target=y", "data.nan=mean", "batch_size=8")
    train(*words, "model.sizes=[8]", "epochs=40", "data.exclude=[k]")
    assert cli("export", "run", "--format", "pt2", "--output", "out").code == 0
    assert cli("predict", "run", "--input", "t.csv", "--output", "o.csv").code == 0
    expected = pl.read_csv("o.csv")
    raw = expected["time"].fill_null(float("nan")).to_numpy()[:, None].copy()
    found = torch.export.load("out/model.pt2").module()(torch.from_numpy(raw))[:, 0].numpy()
    np.testing.assert_allclose(found, expected["predicted_y"].to_numpy(), rtol=1e-4, atol=1e-4)
    assert np.ptp(found) > 1


def test_an_export_does_not_write_into_a_run(cli, priced):
    before = (priced.path / "preprocess.json").read_bytes()
    result = cli("export", "run", "--format", "safetensors", "--output", "run")
    assert result.code == 2
    assert "is a run, and nothing is written into runs" in result.err
    assert (priced.path / "preprocess.json").read_bytes() == before


HUGE = {"column": "x", "kind": "array", "shape": [10**12, 10**9], "whole": False, "mean": [], "deviation": []}
BROKEN = {
    "no inputs": lambda kept: kept.update(inputs=[]),
    "a column twice": lambda kept: kept["inputs"].append(kept["inputs"][0]),
    "a deviation of 0": lambda kept: kept["inputs"][0].update(deviation=0.0),
    "a value twice": lambda kept: kept["inputs"][1].update(values=["a", "a"]),
    "a mark without a value to put there": lambda kept: kept["inputs"][0].update(indicator=True),
    "a column less": lambda kept: kept["inputs"].pop(),
    "another target": lambda kept: kept["targets"].append({**kept["targets"][0], "column": "z"}),
    "a huge array": lambda kept: kept.update(inputs=[HUGE]),
    "another format": lambda kept: kept.update(format=99),
    "another kind": lambda kept: kept["inputs"][0].update(kind="picture"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_preprocess_json_that_is_not_right_is_refused_in_one_line(cli, priced, case):
    path = priced.path / "preprocess.json"
    kept = json.loads(path.read_text())
    BROKEN[case](kept)
    path.write_text(json.dumps(kept))
    for words in (("predict", "run", "--row=50,Ulm"), ("export", "run", "--format", "safetensors")):
        result = cli(*words)
        assert result.code == 2
        assert result.err.count("\n") == 1
        assert "preprocess.json" in result.err


def test_blank_lines_other_separators_and_names_of_files_are_read_alike(cli, train):
    rows = [f"{i}:{'Ulm' if i % 2 else 'Bonn'}:{i * 10}.5" for i in range(1, 31)]
    Path("t[1].CSV").write_text("\n".join(["size:city:price", *rows, "", "7:Ulm:70.5"]) + "\n")
    words = ("experiment=table", "data.path='t[1].CSV'", "data.target=price", "data.separator=':'", "batch_size=8")
    train(*words, "steps=3")
    result = cli("predict", "run", "--input", "t[1].CSV", "--output", "o.csv")
    assert result.code == 0, result.err
    assert pl.read_csv("o.csv").height == 31


@pytest.mark.parametrize("cell", ["{},5", "{},000", "{} €", "$ {}.50"])
def test_a_number_written_another_way_is_not_taken_for_a_name(cli, cell):
    rows = "".join(f"{i};{cell.format(10 + i)}\n" for i in range(30))
    Path("t.csv").write_text(f"x;y\n{rows}")
    result = cli("run", "experiment=table", "data.path=t.csv", "data.target=y")
    assert result.code == 2
    assert "line 2: " in result.err
    assert "looks like a number but can't be read as one" in result.err


def test_whole_numbers_reach_a_model_of_words_as_whole_numbers(cli, train, own_part):
    own_part(
        "model",
        "words",
        "from torch import nn\n\n\nclass Part(nn.Module):\n"
        "    def __init__(self, outputs: int):\n"
        "        super().__init__()\n"
        "        self.table = nn.Embedding(10, 4)\n"
        "        self.last = nn.Linear(4, outputs)\n\n"
        "    def forward(self, x):\n"
        "        return self.last(self.table(x).mean(1))\n",
    )
    own_part(
        "data",
        "tokens",
        "import torch\nfrom trainer.data import Data\n\n\nclass Part(Data):\n"
        "    def __init__(self, validation: float = 0.2):\n"
        "        x = torch.randint(0, 10, (20, 3))\n"
        "        super().__init__(x, x.sum(1).float(), validation)\n",
        "validation: 0.2\n",
    )
    train("model=words", "data=tokens", "loss=mse", "steps=2")
    assert cli("predict", "run", "--row=1,2,3").code == 0
    assert cli("export", "run", "--format", "pt2").code == 0


@pytest.mark.parametrize(
    ("hidden", "words", "extra"),
    [
        ("polars", ("predict", "run", "--row=50,Ulm"), "polars: pip install polars (the extra `data`)"),
        ("onnxruntime", ("export", "run", "--format", "onnx"), "onnxruntime (the extra `export`)"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(cli, priced, monkeypatch, hidden, words, extra):
    monkeypatch.setitem(sys.modules, hidden, None)
    result = cli(*words)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert extra in result.err


def test_a_config_of_something_else_is_no_run_to_an_export(cli, priced):
    Path("config.yaml").write_text("mine: 1\n")
    assert cli("export", "run", "--format", "safetensors", "--output", "deep/er").code == 0
    assert cli("export", "run", "--format", "safetensors", "--output", "run/deep/er").code == 2


def test_flags_that_say_nothing_together_are_refused(cli, priced):
    for words in (("--row=50,Ulm", "--output", "o.csv"), ("--input", "new.csv", "--json")):
        result = cli("predict", "run", *words)
        assert result.code == 2
        assert "only works with" in result.err
    assert not Path("o.csv").exists()
