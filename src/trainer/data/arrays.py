"""Arrays in NumPy files: .npz files are read whole, .npy files row by row."""

from __future__ import annotations

import os
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer import quoting
from trainer.data.base import Data
from trainer.data.batches import Rows
from trainer.data.files import opened
from trainer.data.preprocess import Array, Preprocess, are_indices, targets_of
from trainer.errors import RunFailed, nearest, refusal
from trainer.files import data_file

_UNPACKED, _MOST_TIMES = 2**28, 200  # accepted unpacked bytes of an array, and ratio to the file size above that
_CHUNK_NUMBERS = 2**22  # numbers read at a time for means and deviations


class Arrays(Data):
    """Inputs and targets given as arrays.

    Args:
        x: Inputs (rows, ...), possibly in a file.
        y: Targets (rows,) or (rows, outputs).
        standardize: Whether to scale each input feature to mean 0 and standard deviation 1 over the training rows.
        validation: Fraction of the rows held out.
        classes: Whether the targets are class indices; None treats integers from 0 as such if they are few.
        source: The setting that names the arrays and its value, for messages.

    Raises:
        UsageError: The arrays are not finite numbers, or their rows don't match.
    """

    def __init__(self, x: Any, y: Any, standardize: bool, validation: float, classes: bool | None, source: str) -> None:
        for name, array in (("inputs", x), ("targets", y)):
            if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8 or not array.dtype.isnative:
                raise refusal(source, f"the {name} have the dtype {array.dtype}, not a numeric dtype of this machine")
            if not array.shape:
                raise refusal(source, f"the {name} are a single number, not rows")
        if len(x.shape) == 1 or 0 in x.shape[1:]:
            raise refusal(source, f"the inputs have the shape {[*x.shape]}, not rows of numbers", "(rows, ...)")
        if len(x) != len(y):
            raise refusal(source, f"there are {len(x):,} rows of inputs and {len(y):,} of targets")
        if len(x) == 0:
            raise refusal(source, "there are no rows")
        y = np.array(y)
        y = y[:, 0] if classes and y.shape[1:] == (1,) else y
        _require_finite(y, source, "targets")
        names = _classes_of(y, classes, source)
        targets = torch.from_numpy(y.astype(np.int64 if names else np.float64))
        super().__init__(torch.zeros(len(y), 0), targets, validation, names)
        self._raw, self._standardize, self._source = x, standardize, source
        if names is None and y.dtype.kind in "biu":
            self.warnings = ("the targets are whole numbers and are treated as numbers, not classes",)

    def prepare(self, seed: int, kept: Preprocess | None = None) -> None:
        """Split the rows, and fit means and standard deviations unless `kept` has them."""
        super().prepare(seed)
        shape = [*self._raw.shape[1:]]
        if kept is not None and (kept.array is None or kept.array["shape"] != shape):
            learned = ", ".join(kept.columns) if kept.array is None else f"the shape {kept.array['shape']}"
            raise refusal(self._source, f"has rows of the shape {shape}, but the run learned from {learned}")
        self._preprocess = kept or self._fit()
        self.x = self._prepared()

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing of the arrays."""
        return self._preprocess

    def _prepared(self) -> Tensor:
        _require_finite(self._raw, self._source, "inputs")
        return self._preprocess.prepare(torch.from_numpy(self._raw))

    def _fit(self) -> Preprocess:
        mean, deviation = ([], []) if not self._standardize else self._moments()
        array = Array(
            column="x", kind="array", shape=[*self._raw.shape[1:]], whole=False, mean=mean, deviation=deviation
        )
        count = self.outputs or 0
        return Preprocess([array], targets_of(["y"] if count == 1 else [f"y{i}" for i in range(count)], self.classes))

    def _moments(self) -> tuple[list[float], list[float]]:
        """Return the mean and standard deviation of each input feature over the training rows."""
        rows = np.arange(len(self._raw)) if self.training is None else self.training.numpy()
        size = max(_CHUNK_NUMBERS // max(int(np.prod(self._raw.shape[1:])), 1), 1)
        chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
        total = sum(self._chunk(chunk).sum(0) for chunk in chunks)
        mean = np.asarray(total) / len(rows)
        squares = sum(((self._chunk(chunk) - mean) ** 2).sum(0) for chunk in chunks)
        deviation = np.sqrt(np.asarray(squares) / len(rows))
        deviation = np.where(deviation > 1e-12 * np.abs(mean), deviation, 1)
        return mean.ravel().tolist(), deviation.ravel().tolist()

    def _chunk(self, rows: Any) -> Any:
        return self._raw[rows].astype(np.float64)


def _require_size(archive: Any, name: str, size: int, what: str) -> None:
    """Refuse an array that unpacks to an implausible size, as in a decompression bomb."""
    packed = archive.zip.getinfo(f"{name}.npy" if f"{name}.npy" in archive.zip.namelist() else name)
    if packed.file_size > max(_UNPACKED, _MOST_TIMES * size):
        reason = f"{packed.filename} unpacks to {packed.file_size:,} bytes, over {_MOST_TIMES} times the whole file"
        raise refusal(what, reason, "numpy.savez, which does not compress")


class Npz(Arrays):
    """Arrays in one .npz file.

    Args:
        path: The file.
        x: Name of the inputs (rows, ...) in the file.
        y: Name of the targets (rows,) or (rows, outputs).
        standardize: Whether to scale each input feature to mean 0 and standard deviation 1 over the training rows.
        validation: Fraction of the rows held out.
        classes: Whether the targets are class indices; None treats integers from 0 as such if they are few.
    """

    def __init__(
        self,
        path: str,
        x: str = "x",
        y: str = "y",
        standardize: bool = False,
        validation: float = 0.2,
        classes: bool | None = None,
    ) -> None:
        self.files = (Path(path),)
        what = f"data.path={path}"
        found = []
        try:
            with opened(self.files[0], "data.path") as file, np.load(file, allow_pickle=False) as archive:
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise refusal(what, "holds one array, not several", (), "data=npy")
                for key, name in (("x", x), ("y", y)):
                    if name not in archive:
                        near, there = nearest(name, archive.files), sorted(archive.files)
                        meant = near and quoting.typed(f"data.{key}", near)
                        raise refusal(f"data.{key}={name}", "the file has no such array", there, meant)
                    _require_size(archive, name, self.files[0].stat().st_size, what)
                    found.append(archive[name])
        except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise refusal(what, f"is not an .npz file of numbers: {error}") from error
        super().__init__(found[0], found[1], standardize, validation, classes, what)


class Npy(Arrays):
    """Inputs in a .npy file, read row by row so that the file may exceed the memory, and targets in another.

    Args:
        path: The file of the inputs (rows, ...).
        targets: The file of the targets (rows,) or (rows, outputs), read whole.
        standardize: Whether to scale each input feature to mean 0 and standard deviation 1 over the training rows.
        validation: Fraction of the rows held out.
        classes: Whether the targets are class indices; None treats integers from 0 as such if they are few.
    """

    def __init__(
        self,
        path: str,
        targets: str,
        standardize: bool = False,
        validation: float = 0.2,
        classes: bool | None = None,
    ) -> None:
        self.files = (Path(path), Path(targets))
        array = ArrayFile(self.files[0], "data.path")
        with opened(self.files[1], "data.targets") as file:
            y = _load(file, self.files[1], "data.targets")
        super().__init__(array, y, standardize, validation, classes, f"data.path={path}")

    def _prepared(self) -> Tensor:
        return torch.zeros(self.rows, 0)  # FileRows prepares rows when it reads them

    def _chunk(self, rows: Any) -> Any:
        values = self._raw[rows].astype(np.float64)
        _require_finite(values, self._source, "inputs")
        return values

    @property
    def inputs(self) -> int:
        """Number of input features of a row."""
        return int(np.prod(self._raw.shape[1:]))

    def example(self) -> Tensor:
        """Return the inputs of one row (1, ...)."""
        return self._preprocess.prepare(torch.from_numpy(self._raw[np.arange(1)]))

    def part(self, rows: Tensor | None, form: Callable[[Tensor], Tensor], device: torch.device) -> Rows:
        """Return a source of batches over some rows, which are read from the file when needed."""
        numbers = torch.arange(self.rows) if rows is None else rows
        return FileRows(self._raw, numbers, form(self.y)[numbers].to(device), self._preprocess)


class ArrayFile:
    """An array in a .npy file whose rows are read on access and not cached.

    Memory mapping would be faster, but if the file shrinks, an access kills the process without a message.

    Args:
        path: The file.
        key: The setting that names the file, for messages.

    Raises:
        UsageError: The file is not a .npy file of rows.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self._file = path, opened(path, key)
        header = _load(data_file.name_of(self._file, path), path, key, "r")
        if not header.flags.c_contiguous:
            raise refusal(f"{key}={path}", "is stored in column order; save it again with numpy.ascontiguousarray")
        self.shape, self.dtype = header.shape, header.dtype
        self._start, self._row_bytes = header.offset, header[:1].nbytes

    def __del__(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):
            self._file.close()

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> Any:
        """Return the rows with these numbers.

        Raises:
            RunFailed: The file has become shorter.
        """
        taken = np.empty((len(rows), *self.shape[1:]), self.dtype)
        ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        start = 0
        for end in ends:  # adjacent rows are read together
            part = memoryview(taken[start:end].data).cast("B")
            offset = self._start + int(rows[start]) * self._row_bytes
            while len(part):  # a system call reads at most 2 GiB
                read = os.preadv(self._file.fileno(), [part], offset)
                if read == 0:
                    raise RunFailed(f"{self.path} has shrunk since the run started: its rows are gone")
                part, offset = part[read:], offset + read
            start = end
        return taken


class FileRows(Rows):
    """Rows of an array in a file.

    Args:
        array: The array.
        numbers: The numbers of the rows.
        y: The targets of these rows (rows, ...).
        preprocess: The preprocessing, applied to rows when they are read.
    """

    def __init__(self, array: ArrayFile, numbers: Tensor, y: Tensor, preprocess: Preprocess) -> None:
        self._array, self._numbers, self._y, self._preprocess = array, numbers, y, preprocess
        self.device, self._dtype = y.device, torch.get_default_dtype()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._numbers)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows given by their numbers, read from the file and prepared."""
        numbers = self._numbers[rows.cpu()]
        raw = torch.from_numpy(self._array[numbers.numpy()])
        if raw.is_floating_point() and not bool(raw.sum().isfinite()) and not bool(raw.isfinite().all()):
            row = int(numbers[int((~raw.flatten(1).isfinite()).any(1).nonzero()[0, 0])])
            raise RunFailed(f"{self._array.path}: an input in row {row:,} is not finite")
        x = raw if not self._preprocess.inputs[0]["mean"] else self._preprocess(raw)
        return x.to(self.device, self._dtype), self._y.index_select(0, rows)


def _load(file: Any, path: Path, key: str, mode: Any = None) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.load(file, mmap_mode=mode, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise refusal(f"{key}={path}", f"is not a .npy file of numbers: {error}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise refusal(f"{key}={path}", "holds several arrays", (), "data=npz")
    if array.ndim == 0:
        raise refusal(f"{key}={path}", "is a single number, not rows")
    return array


def _classes_of(y: Any, asked: bool | None, source: str) -> list[str] | None:
    """Return the names of the classes that the targets index; None for numeric targets.

    Raises:
        UsageError: Classes are required, and a target is not an index.
    """
    if asked is False or (asked is None and (y.ndim > 1 or not are_indices(np.unique(y).tolist()))):
        return None
    if y.ndim > 1:
        raise refusal(
            source, f"the targets have the shape {list(y.shape)}, not one index per row", "data.classes=false"
        )
    wrong = (y % 1 != 0) | (y < 0)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise refusal("data.classes=true", f"the target of row {row:,} is {y[row]}, not a class index")
    row = int(np.argmax(y))
    if y[row] >= max(len(y), 2):
        raise refusal("data.classes=true", f"the target of row {row:,} is {y[row]}, more than the number of rows")
    return [str(index) for index in range(int(y[row]) + 1)]


def _require_finite(values: Any, source: str, what: str) -> None:
    if values.dtype.kind == "f" and not bool(np.isfinite(values).all()):
        bad = ~np.isfinite(values).reshape(len(values), -1)
        count, row = int(bad.sum()), int(np.argmax(bad.any(1)))
        raise refusal(source, f"{count:,} of the {what} are not finite, the first in row {row:,}")
