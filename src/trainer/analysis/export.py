"""Exports models for other tools, as named weights or as a graph, and checks the exported file."""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from trainer import randomness
from trainer.analysis.formats import FORMATS
from trainer.analysis.trained_model import TrainedModel
from trainer.checkpoints.manifest import MODEL, require_sum, sum_of_file, verifying
from trainer.errors import RunFailed, UsageError, lacking, refusal
from trainer.files import writing
from trainer.files.plain_json import as_json
from trainer.training.instantiate import reason_of

TOLERANCE = 1e-5  # relative to the largest prediction
_ROWS = 16  # rows to compare
PREPROCESS = "preprocess.json"


class Whole(nn.Module):
    """Maps raw inputs to targets in their own units: preprocessing, model and inverse scaling.

    Args:
        trained: The trained model.
    """

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.model = trained.model.cpu()
        self._trained, self._preprocess = trained, trained.preprocess

    def forward(self, raw: Tensor) -> Tensor:
        """Return targets or class scores, float32 (rows, outputs), for raw inputs (rows, ...)."""
        assert self._preprocess is not None
        prediction: Tensor = self.model(self._trained.inputs(raw))
        return self._preprocess.restored(prediction).float()


def write(model: TrainedModel, kind: str, folder: Path) -> float | None:
    """Export a model into a folder, with its preprocess.json.

    Args:
        model: The model.
        kind: safetensors, pt2 or onnx.
        folder: The folder; created if needed.

    Returns:
        The largest difference between predictions of the model and the exported one, relative to the largest
        prediction; None for safetensors, whose weights are equal.

    Raises:
        UsageError: The model is not a fixed computation.
        RunFailed: The exported model differs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / FORMATS[kind]
        difference: float | None = _WRITERS[kind](model, path)
        content = path.read_bytes()
    writing.make_folders(folder)
    writing.replace(folder / FORMATS[kind], content)
    if model.preprocess is not None:
        writing.replace(folder / PREPROCESS, as_json(model.preprocess.to_json(), in_ascii=False))
    return difference


def described(model: TrainedModel, kind: str, difference: float | None) -> dict[str, str]:
    """Return a description of an export, by heading."""
    size = sum(p.numel() for p in model.model.parameters())
    lines = {"holds": f"{size:,} parameters"}
    if difference is None:
        return {**lines, "checked": "reloaded with NumPy alone: the same numbers"}
    assert model.preprocess is not None
    array = model.preprocess.array
    columns = [f"{one['column']}{' (index)' * (one['kind'] == 'category')}" for one in model.preprocess.inputs]
    if array is not None:
        columns = [f"array {array['shape']}"]
    targets = model.preprocess.classes or [one["column"] for one in model.preprocess.targets]
    return {
        **lines,
        "takes": f"raw numbers, {str(_examples(model).dtype).removeprefix('torch.')} (rows, ...): {', '.join(columns)}",
        "returns": f"{'scores of ' if model.preprocess.classes else ''}{', '.join(targets)}",
        "checked": f"reloaded: predictions differ by at most {difference:.1g}, relative to the largest",
    }


def _write_safetensors(model: TrainedModel, path: Path) -> None:
    with verifying(model.checkpoint.path) as expected:
        shutil.copyfile(model.checkpoint.path / MODEL, path)
        require_sum(path, sum_of_file(path), expected[MODEL])
    try:
        found = load_file(path)
    except TypeError:  # NumPy has no bfloat16
        return
    for name, value in found.items():
        if not np.array_equal(value, model.checkpoint.weights[name].numpy()):
            raise RunFailed(f"{name} differs in the exported file")


def _write_pt2(model: TrainedModel, path: Path) -> float:
    whole, raw = _whole(model), _examples(model)
    program = _traced(model, whole, raw)
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    return _compared(model, raw, lambda rows: loaded(rows))


def _write_onnx(model: TrainedModel, path: Path) -> float:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise lacking("--format=onnx", "onnx onnxscript onnxruntime", "export") from error
    whole, raw = _whole(model), _examples(model)
    program = _traced(model, whole, raw)
    with _silence():
        onnx = torch.onnx.export(program, input_names=["raw"], output_names=["prediction"], dynamo=True)
    assert onnx is not None
    onnx.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _compared(model, raw, lambda rows: torch.from_numpy(session.run(None, {"raw": rows.numpy()})[0]))


_WRITERS: dict[str, Any] = {"safetensors": _write_safetensors, "pt2": _write_pt2, "onnx": _write_onnx}


def _whole(model: TrainedModel) -> Whole:
    """Return the whole computation on the CPU.

    Raises:
        UsageError: There are no inputs, or two passes over the same rows differ.
    """
    if model.preprocess is None:
        raise _no_graph(model, "it takes no inputs")
    if getattr(model.model, "cpu_only", False):
        raise _no_graph(model, "it computes with NumPy")
    whole = Whole(model).eval()
    whole.requires_grad_(False)
    raw = _examples(model)
    with torch.no_grad():
        passes = []
        for seed in range(8):
            with randomness.isolated(seed):
                passes.append(_passed(whole, raw))
    if not all(torch.equal(one, passes[0]) for one in passes):
        raise _no_graph(model, "its computation is random in every pass")
    return whole


def _passed(whole: Whole, raw: Tensor) -> Tensor:
    try:
        prediction: Tensor = whole(raw)
    except Exception as error:  # a user's model may raise any exception
        raise RunFailed(f"the model can't predict: {reason_of(error)}") from error
    return prediction


def _no_graph(model: TrainedModel, why: str) -> UsageError:
    name = model.rundir.read_status().get("choices", {}).get("model", type(model.model).__name__)
    return refusal(f"model={name}", f"can't be exported as a graph: {why}", "--format safetensors")


def _examples(model: TrainedModel) -> Tensor:
    """Return raw rows that resemble the training data: numbers around the means, and every category."""
    preprocess = model.preprocess
    assert preprocess is not None
    random = torch.Generator().manual_seed(0)
    if preprocess.array is not None and preprocess.array["whole"]:
        return torch.zeros(_ROWS, *preprocess.array["shape"], dtype=torch.int64)
    if preprocess.array is not None:
        array = preprocess.array
        raw = torch.randn(_ROWS, *array["shape"], generator=random, dtype=torch.float64)
        if array["mean"]:
            mean, deviation = torch.tensor([array["mean"], array["deviation"]], dtype=torch.float64)
            raw = raw * deviation.reshape(array["shape"]) + mean.reshape(array["shape"])
        return raw.float()
    columns = []
    for one in preprocess.inputs:
        if one["kind"] == "number":
            columns.append(torch.randn(_ROWS, generator=random).double() * one["deviation"] + one["mean"])
        else:
            columns.append(torch.arange(_ROWS).double() % (len(one["values"]) + 1))
        if one.get("indicator"):
            columns[-1][::3] = torch.nan
    return torch.stack(columns, dim=1)


def _traced(model: TrainedModel, whole: Whole, raw: Tensor) -> Any:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(whole, (raw,), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},))
    except Exception as error:  # the tracer or the model may raise any exception
        raise _no_graph(model, f"torch.export can't trace it: {reason_of(error)}") from error


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress the progress messages of torch."""
    talker = logging.getLogger("torch.onnx")
    level = talker.level
    talker.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        talker.setLevel(level)


def _compared(model: TrainedModel, raw: Tensor, loaded: Any) -> float:
    """Return the largest difference of predictions, relative to the largest one, for one row and for several.

    Raises:
        RunFailed: It is too large for rounding errors.
    """
    largest = 0.0
    for rows in (raw, raw[:1], raw[: _ROWS // 2]):
        with torch.no_grad():
            expected, found = model.predict(rows).float(), loaded(rows)
        if found.shape != expected.shape:
            raise RunFailed(f"the exported model returns the shape {list(found.shape)}, not {list(expected.shape)}")
        scale = max(float(expected.abs().max()), 1e-12)
        largest = max(largest, float((found - expected).abs().max()) / scale)
    if not largest <= TOLERANCE:
        raise RunFailed(f"the relative error of the exported model is {largest:.2g}, above {TOLERANCE:g}")
    return largest
