"""Predicts from rows of a file, in parts, or from rows on the command line."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trainer.analysis.prediction_remarks import Remarks
from trainer.analysis.trained_model import TrainedModel
from trainer.data import Preprocess, files, packed
from trainer.data.arrays import ArrayFile
from trainer.data.columns import as_names, encoded
from trainer.data.csv_text import Form
from trainer.data.missing_words import UNSAID, words_of
from trainer.errors import refusal, unknown
from trainer.files import writing

if TYPE_CHECKING:
    import polars as pl

_ROWS = 65_536  # read at a time
_NUMBERS = 2**22  # passed to the model at a time
_OF_PROBABILITIES = (".CrossEntropyLoss", ".NLLLoss")  # a softmax turns their scores into probabilities
Tell = Callable[[str], None]
TABLES, ARRAYS = (".csv", ".tsv", ".txt", ".parquet"), (".npy",)


def of_rows(model: TrainedModel, rows: Sequence[str], warn: Tell, force: bool = False) -> list[dict[str, Any]]:
    """Return the predictions for typed rows, by the names of the targets.

    Args:
        model: The model.
        rows: Values in the order of the columns, or NAME=VALUE, separated by commas.
        warn: Receives warnings about values that the model has never seen.
        force: Whether to predict even if all values of a column are new to the model.

    Raises:
        UsageError: A row does not match the model's inputs.
    """
    preprocess = _require_inputs(model)
    polars = files.load_polars()
    if preprocess.array is not None:
        raw = np.array([_numbers(row, preprocess.width) for row in rows]).reshape(-1, *preprocess.array["shape"])
        _require_finite(torch.from_numpy(raw), lambda row: f"--row={rows[row]}")
        named = _named(model, _predicted(model, torch.from_numpy(raw)))
    else:
        cells = [_cells(row, preprocess.columns) for row in rows]
        columns = {name: [row[index] or None for row in cells] for index, name in enumerate(preprocess.columns)}
        frame = polars.DataFrame(columns, schema=dict.fromkeys(columns, polars.String))
        remarks = Remarks(preprocess)
        named = _of_frame(model, frame, lambda row: f"--row={rows[row]}", remarks)
        remarks.require_seen(f"--row={rows[0]}", force)
        remarks.tell(warn)
    return [{name: values[index] for name, values in named.items()} for index in range(len(rows))]


def of_file(model: TrainedModel, source: Path, target: Path | Tell, tell: Tell, warn: Tell, force: bool = False) -> int:
    """Write the predictions for the rows of a file, next to its columns if it is a table.

    Args:
        model: The model.
        source: A table or an array.
        target: The file to write, or a function that receives CSV text.
        tell: Receives the progress.
        warn: Receives warnings about values that the model has never seen.
        force: Whether to predict even if all values of a column are new to the model.

    Returns:
        Number of rows.

    Raises:
        UsageError: The file does not match the model's inputs.
    """
    preprocess = _require_inputs(model)
    files.opened(source, "--input").close()  # a file that can't be read is refused first
    suffix = source.suffix.lower()
    if packed.bare(source).suffix.lower() not in TABLES and suffix not in ARRAYS:
        kinds = (*TABLES, *(f".csv{end}" for end in packed.SUFFIXES), *ARRAYS)
        raise refusal(f"--input={source}", "this file type can't be read", kinds)
    written = (".csv", ".npy") if suffix in ARRAYS else (".csv", ".parquet")
    if isinstance(target, Path) and target.suffix not in written:
        raise refusal(f"--output={target}", "this file type can't be written", written)
    if isinstance(target, Path) and not target.absolute().parent.is_dir():
        raise refusal(f"--output={target}", f"no such folder: {target.absolute().parent}")
    if suffix in ARRAYS:
        if preprocess.array is None:
            raise refusal(f"--input={source}", f"the model takes columns: {', '.join(preprocess.columns)}", TABLES)
        parts = _of_array(model, source)
    else:
        parts = _of_table(model, source, warn, force)
    return _write(parts, target, tell)


def _of_table(model: TrainedModel, source: Path, warn: Tell, force: bool) -> Iterator[Any]:
    """Yield parts of a table with the predicted columns, none before each column had a value that the model knows."""
    preprocess = _require_inputs(model)
    place = f"--input={source}"
    form = Form.of(model.settings.data)
    start, waiting, remarks = 0, [], Remarks(preprocess)
    for frame in _parts(source, form):
        if not form.header and start == 0:
            _require_width(model, frame.width, place)
        columns = _columns(preprocess, frame, place)
        where = partial(_line, source, form, start)
        named = _of_frame(model, frame.select(columns), where, remarks, form.decimal)
        names = _free(frame.columns, [*named], warn if start == 0 else None)
        waiting.append(frame.with_columns([_series(ours, named[name], preprocess) for name, ours in names.items()]))
        start += frame.height
        if remarks.all_seen:
            yield from waiting
            waiting = []
    if start == 0:
        raise refusal(place, "has no rows")
    remarks.require_seen(place, force)
    yield from waiting
    remarks.tell(warn)


def _free(columns: Sequence[str], names: Sequence[str], warn: Tell | None) -> dict[str, str]:
    """Return what predicted columns are called beside those of a table: a number follows a name that is taken."""
    found: dict[str, str] = {}
    for name in names:
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        taken = {*columns} | ({*names} - {name})
        found[name] = next(one for one in itertools.chain([name], numbered) if one not in taken)
        if found[name] != name and warn is not None:
            warn(f"the table has a column {name}; what is predicted stands in {found[name]}")
    return found


def _series(name: str, values: list[Any], preprocess: Preprocess) -> pl.Series:
    """Return a predicted column of the type that its values have, even if all are missing."""
    polars = files.load_polars()
    is_class = preprocess.classes is not None and name.startswith("predicted_")
    column: pl.Series = polars.Series(name, values, dtype=polars.String if is_class else polars.Float64)
    return column


def _require_width(model: TrainedModel, width: int, place: str) -> None:
    """Refuse a table without names whose columns are counted otherwise; only targets at the end may be absent."""
    learned = model.rundir.read_status().get("data", {}).get("width", width)
    targets = {one["column"] for one in _require_inputs(model).targets}
    last = {f"column_{number}" for number in range(learned - len(targets) + 1, learned + 1)}
    if width != learned and not (width == learned - len(targets) and last == targets):
        raise refusal(place, f"has {width} columns without names; the model was trained on {learned}")


def _columns(preprocess: Preprocess, frame: pl.DataFrame, place: str) -> list[str]:
    """Return the input columns of a table: by name, or all of them if the model takes an array."""
    if preprocess.array is None:
        for name in preprocess.columns:
            if name not in frame.columns:
                there = f"has no column {name}; it has {', '.join(frame.columns)}"
                raise refusal(place, f"{there}; the model takes {', '.join(preprocess.columns)}")
        return preprocess.columns
    if len(frame.columns) != preprocess.width:
        raise refusal(place, f"has {len(frame.columns)} columns, but the model takes {preprocess.width} numbers")
    return list(frame.columns)


def _parts(source: Path, form: Form) -> Iterator[Any]:
    if source.suffix.lower() == ".parquet":
        yield from files.parquet_parts(source, "--input", _ROWS)
        return
    yield from files.csv_parts(source, "--input", _ROWS, form)  # cells as text


def _of_frame(
    model: TrainedModel, frame: pl.DataFrame, place: Callable[[int], str], remarks: Remarks, decimal: str = "."
) -> dict[str, list[Any]]:
    polars = files.load_polars()
    preprocess = _require_inputs(model)
    words = words_of(model.settings.data.get("missing", UNSAID))
    if preprocess.array is not None:
        kinds = dict.fromkeys(frame.columns, "number")
    else:
        kinds = {one["column"]: one["kind"] for one in preprocess.inputs}
    typed = []
    for name, kind in kinds.items():
        column = frame[name]
        if kind == "number":
            numbers, wrong = files.as_numbers(column, words.numbers, decimal)
            if wrong.any():
                row = int(wrong.arg_true()[0])
                cell = column[row].strip() if isinstance(column[row], str) else column[row]
                raise refusal(place(row), f"{name} is {cell!r}, but the model takes numbers there")
            column = numbers
        else:
            column = as_names(column, words.of_names(column))
        typed.append(column)
    frame = polars.DataFrame(typed)
    if preprocess.array is not None:
        raw = torch.from_numpy(frame.to_numpy().reshape(-1, *preprocess.array["shape"]).copy())
    else:
        raw = encoded(frame, preprocess)
    cells = preprocess.holes(raw)
    holes = cells.flatten(1)
    if bool(holes.any()) and model.settings.data.get("nan") != "drop":
        row, index = holes.nonzero()[0].tolist()
        raise refusal(
            place(row), f"{frame.columns[index]} is empty or not finite, and the model has no value to replace it"
        )
    remarks.note(frame, raw, holes)
    named = _named(model, _predicted(model, torch.where(cells, 0.0, raw)))
    for values in named.values():
        for hole in holes.any(1).nonzero().flatten().tolist():
            values[hole] = None
    return named


def _of_array(model: TrainedModel, source: Path) -> Iterator[Any]:
    polars = files.load_polars()
    preprocess = _require_inputs(model)
    assert preprocess.array is not None
    array = ArrayFile(source, "--input")
    if [*array.shape[1:]] != preprocess.array["shape"]:
        rows = f"rows of shape {[*array.shape[1:]]}"
        raise refusal(f"--input={source}", f"has {rows}, but the model takes {preprocess.array['shape']}")
    for start in range(0, len(array), _ROWS):
        raw = torch.from_numpy(array[np.arange(start, min(start + _ROWS, len(array)))])
        _require_finite(raw, partial(_row_of, source, start))
        yield polars.DataFrame(_named(model, _predicted(model, raw)))


def _row_of(source: Path, start: int, row: int) -> str:
    return f"--input={source}: row {start + row:,}"


def _require_finite(raw: Tensor, place: Callable[[int], str]) -> None:
    holes = (~raw.isfinite()).flatten(1).any(1)
    if bool(holes.any()):
        raise refusal(place(int(holes.nonzero()[0, 0])), "has a number that is not finite")


def _predicted(model: TrainedModel, raw: Tensor) -> Tensor:
    return torch.cat([model.predict(part) for part in raw.split(max(_NUMBERS // max(raw[0].numel(), 1), 1))])


def _named(model: TrainedModel, predictions: Tensor) -> dict[str, list[Any]]:
    """Return predictions as columns: the number for each target, or the class and its probability."""
    preprocess = _require_inputs(model)
    if preprocess.classes is None:
        table = predictions.flatten(1) if predictions.ndim > 1 else predictions[:, None]
        names = [one["column"] for one in preprocess.targets]
        return {f"predicted_{name}": table[:, index].tolist() for index, name in enumerate(names)}
    name = preprocess.targets[0]["column"]
    best = [preprocess.classes[index] for index in predictions.argmax(1).tolist()]
    if not str(model.settings.loss.get("_target_")).endswith(_OF_PROBABILITIES):
        return {f"predicted_{name}": best}
    return {f"predicted_{name}": best, f"probability_{name}": predictions.double().softmax(1).amax(1).tolist()}


def _write(parts: Iterator[Any], target: Path | Tell, tell: Tell) -> int:
    """Write the parts as one table, completely or not at all; return the number of rows."""
    polars = files.load_polars()
    count = 0
    if not isinstance(target, Path):
        for part in parts:
            target(part.write_csv(include_header=count == 0))
            count += part.height
        return count
    with writing.replacing(target.absolute()) as file:
        if target.suffix == ".csv":
            for part in parts:
                part.write_csv(file, include_header=count == 0)
                count += part.height
                tell(f"{count:,} rows")
            return count
        table = polars.concat(list(parts))
        if target.suffix == ".parquet":
            table.write_parquet(file)
        else:
            np.save(file, table.select(polars.col("^predicted_.*$")).to_numpy(), allow_pickle=False)
        return int(table.height)


def _require_inputs(model: TrainedModel) -> Preprocess:
    if model.preprocess is None:
        raise refusal(model.rundir.short, "the model takes no inputs; `trainer show` has its parameters")
    return model.preprocess


def _line(source: Path, form: Form, start: int, row: int) -> str:
    """Return in words the place of a row in a file.

    Args:
        source: The file.
        form: The form of a CSV file.
        start: The number of rows before the part.
        row: The index of the row in the part.
    """
    if source.suffix.lower() == ".parquet":
        return f"--input={source}: row {start + row + 1:,}"
    return f"--input={source}: line {files.line_of(source, start + row, form, '--input'):,}"


def _cells(row: str, columns: Sequence[str]) -> list[str]:
    """Return the cells of a typed row in the order of the columns."""
    cells = [cell.strip() for cell in next(csv.reader([row]), [])]
    if cells and all("=" in cell for cell in cells) and any(cell.partition("=")[0] in columns for cell in cells):
        named = dict(cell.split("=", 1) for cell in cells)
        for name in named.keys() - set(columns):
            raise unknown(f"--row={row}", f"the model takes no {name}", name, columns)
        if lacking := [name for name in columns if name not in named]:
            raise refusal(f"--row={row}", f"has no {lacking[0]}", columns)
        return [named[name] for name in columns]
    if len(cells) != len(columns):
        raise refusal(f"--row={row}", f"has {len(cells)} values, but the model takes {len(columns)}", columns)
    return cells


def _numbers(row: str, width: int) -> list[float]:
    try:
        numbers = [float(cell) for cell in row.split(",")]
    except ValueError as error:
        raise refusal(f"--row={row}", f"is not a row of numbers: {error}") from error
    if len(numbers) != width:
        raise refusal(f"--row={row}", f"has {len(numbers)} numbers, but the model takes {width}")
    return numbers
