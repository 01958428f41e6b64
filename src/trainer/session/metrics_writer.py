"""Writes metrics.jsonl: a row a step and a row an evaluation, the same bytes for the same run."""

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

_STEP = {"step", "epoch", "loss", "lr"}  # the row of a step
_encode = json.JSONEncoder(allow_nan=False).encode
_BUFFERED_SECONDS = 1.0  # a write a row would cost more than a small model's step


def cut_back(path: Path, length: int) -> bool:
    """Cut metrics.jsonl back to the length that a checkpoint recorded; say whether whole rows of it were all there.

    Of a shorter file the whole rows are kept: truncating would pad it with zero bytes.
    """
    if not path.exists():
        return length == 0
    with open(path, "rb+") as file:
        whole = _end_of_row(file, min(length, os.fstat(file.fileno()).st_size))
        file.truncate(whole)
    return whole == length


def _end_of_row(file: IO[bytes], end: int) -> int:
    """Return where the last whole row of the first bytes of a file ends, looking from their end."""
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
        model: Its parameters are in the rows when they are few.
    """

    def __init__(self, log_every: int, model: nn.Module) -> None:
        self._log_every = log_every
        self._model = model if few_parameters(model) is not None else None

    def line(self, row: Row) -> str | None:
        """Return the line of a row, None for one that is not kept."""
        if "loss" in row:
            if not due(row["step"], self._log_every):
                return None
            if self._model is not None:
                row = {**row, "parameters": few_parameters(self._model)}
            elif row.keys() == _STEP and math.isfinite(row["loss"]) and math.isfinite(row["lr"]):
                # What json writes, in a third of the time: there is such a row for every step.
                step, epoch, loss, lr = row["step"], row["epoch"], row["loss"], row["lr"]
                return f'{{"step": {step}, "epoch": {epoch}, "loss": {loss!r}, "lr": {lr!r}}}\n'
        try:
            return _encode(row) + "\n"
        except ValueError:  # rare enough to be found by failing
            return _encode(finite(row)) + "\n"


class MetricsFile:
    """Appends the rows of a run to metrics.jsonl.

    Args:
        path: The file; created if need be.
        log_every: Steps between rows.
        model: Its parameters are in the rows when they are few.
    """

    def __init__(self, path: Path, log_every: int, model: nn.Module) -> None:
        self._file = writing.Appending(path)
        with os.fdopen(reading.opened(path), "rb") as file:
            self._sum = hashlib.file_digest(file, "sha256")  # of what is there, and then of what is appended
        self._lines = Lines(log_every, model)
        self._waiting: list[str] = []
        self._flushed = time.monotonic()

    def __call__(self, row: Row) -> None:
        """Take a row; it is written later, together with others."""
        if (line := self._lines.line(row)) is not None:
            self._waiting.append(line)
        if time.monotonic() - self._flushed >= _BUFFERED_SECONDS:
            self.flush()

    def flush(self) -> int:
        """Write what has been taken and return the length of the file."""
        if self._waiting:
            content = "".join(self._waiting).encode()
            self._waiting.clear()
            self._file.write(content)
            self._sum.update(content)
        self._flushed = time.monotonic()
        return self._file.size

    @property
    def sum(self) -> str:
        """The SHA-256 of the file, of what has been written."""
        return self._sum.hexdigest()

    def sync(self) -> None:
        """Return when all rows that have been written are on the disk; another thread may ask for it."""
        self._file.sync()

    def close(self) -> None:
        """Write the rest and close the file, unless it has been closed already."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                self._file.close()
