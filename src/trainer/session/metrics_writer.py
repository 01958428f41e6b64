"""Writes metrics.jsonl: one row per step and one per evaluation, the same bytes for the same run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from pathlib import Path
from typing import IO

from torch import nn

from trainer.files import reading, writing
from trainer.files.plain_json import finite
from trainer.training.loop import Row, due
from trainer.training.parameters import few_parameters

_STEP = {"step", "epoch", "loss", "lr"}  # keys in the row of a step
_encode = json.JSONEncoder(allow_nan=False).encode
_BUFFERED_SECONDS = 1.0  # writing each row at once would take longer than a step of a small model


def cut_back(path: Path, length: int) -> bool:
    """Cut metrics.jsonl to the length that a checkpoint recorded; return False if rows were missing.

    A shorter file is cut after its last complete row; truncating it to the length would pad it with zero bytes.
    """
    if not path.exists():
        return length == 0
    with open(path, "rb+") as file:
        whole = _end_of_row(file, min(length, os.fstat(file.fileno()).st_size))
        file.truncate(whole)
    return whole == length


def _end_of_row(file: IO[bytes], end: int) -> int:
    """Return the position after the last complete row before `end`, searching backwards."""
    while end > 0:
        start = max(end - reading.LONGEST_ROW, 0)
        file.seek(start)
        if newline := file.read(end - start).rfind(b"\n") + 1:
            return start + newline
        end = start
    return 0


class Lines:
    """Turns the rows of the loop into the lines of metrics.jsonl.

    Args:
        log_every: Steps between rows.
        model: The model; its parameters are in the rows if they are few.
    """

    def __init__(self, log_every: int, model: nn.Module) -> None:
        self._log_every = log_every
        self._model = model if few_parameters(model) is not None else None

    def line(self, row: Row) -> str | None:
        """Return the line of a row, None if the row is not kept."""
        if "loss" in row:
            if not due(row["step"], self._log_every):
                return None
            if self._model is not None:
                row = {**row, "parameters": few_parameters(self._model)}
            elif row.keys() == _STEP and math.isfinite(row["loss"]) and math.isfinite(row["lr"]):
                # Every step has such a row, and formatting it here takes a third of the time of json.dumps.
                step, epoch, loss, lr = row["step"], row["epoch"], row["loss"], row["lr"]
                return f'{{"step": {step}, "epoch": {epoch}, "loss": {loss!r}, "lr": {lr!r}}}\n'
        try:
            return _encode(row) + "\n"
        except ValueError:  # a number is not finite, which is rare
            return _encode(finite(row)) + "\n"


class MetricsFile:
    """Appends the rows of a run to metrics.jsonl.

    Args:
        path: The file; created if it does not exist.
        log_every: Steps between rows.
        model: The model; its parameters are in the rows if they are few.
    """

    def __init__(self, path: Path, log_every: int, model: nn.Module) -> None:
        self._file = writing.Appending(path)
        with os.fdopen(reading.opened(path), "rb") as file:
            self._sum = hashlib.file_digest(file, "sha256")  # updated with every append
        self._lines = Lines(log_every, model)
        self._waiting: list[str] = []
        self._flushed = time.monotonic()

    def __call__(self, row: Row) -> None:
        """Queue a row, to be written later together with others."""
        if (line := self._lines.line(row)) is not None:
            self._waiting.append(line)
        if time.monotonic() - self._flushed >= _BUFFERED_SECONDS:
            self.flush()

    def flush(self) -> int:
        """Write the waiting rows and return the length of the file."""
        if self._waiting:
            content = "".join(self._waiting).encode()
            self._waiting.clear()
            self._file.write(content)
            self._sum.update(content)
        self._flushed = time.monotonic()
        return self._file.size

    @property
    def sum(self) -> str:
        """The SHA-256 of the rows written so far."""
        return self._sum.hexdigest()

    def sync(self) -> None:
        """Wait until all written rows are on disk; may be called from another thread."""
        self._file.sync()

    def close(self) -> None:
        """Write the waiting rows and close the file if it is open."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                self._file.close()
