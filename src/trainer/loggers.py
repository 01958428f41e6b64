"""Loggers: write the metrics of a run to places besides metrics.jsonl. session/logger_feed.py passes them the rows."""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any

from trainer.config.settings import flat
from trainer.errors import lacking, require
from trainer.files import event_file, reading, writing
from trainer.text import show

Row = Mapping[str, Any]
_MOST_LINE = 2 * reading.LONGEST_ROW  # bytes of a CSV line, which may combine two rows


class Logger:
    """The base class of loggers; derive your own from it.

    A logger is constructed before the run directory exists, to refuse wrong settings, and writes nothing before `open`.
    """

    def open(self, run_dir: Path, step: int) -> None:
        """Start logging.

        Args:
            run_dir: The run directory, which already holds config.yaml.
            step: Number of finished steps when the run starts or resumes. All rows up to this step are passed again, so
                a logger can rewrite its file, and a newly added logger gets every row.
        """

    def __call__(self, rows: Sequence[Row]) -> None:
        """Write the next rows of metrics.jsonl; called about once a second.

        Args:
            rows: Rows of steps, {"step": 1, "epoch": 0, "loss": 2.5, "lr": 0.1}, with "parameters" for small models,
                and rows of evaluations, {"step": 1, "epoch": 0, "validation_loss": 2.7}; None stands for a non-finite
                number.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Finish after the last row: when this returns, everything must be on disk, and the run counts as done."""

    def is_whole(self, run_dir: Path, rows: Iterable[Row]) -> bool:
        """Return whether all rows of a finished run have been written; `trainer resume` adds missing ones.

        Args:
            run_dir: The run directory.
            rows: All rows of metrics.jsonl.
        """
        return True


class Csv(Logger):
    """Writes metrics.csv: one line per step, with columns for the evaluation after it, and no timestamps."""

    def open(self, run_dir: Path, step: int) -> None:
        """Start with an empty file."""
        self._path = run_dir / "metrics.csv"
        self._path.unlink(missing_ok=True)
        self._columns: list[str] = []
        self._row: dict[str, Any] = {}  # the last step, whose evaluation may follow

    def __call__(self, rows: Sequence[Row]) -> None:
        """Append the rows of all steps but the last one."""
        *finished, self._row = _by_step([self._row, *rows])
        self._append(finished)

    def close(self) -> None:
        """Append the last row."""
        self._append([self._row] if self._row else [])
        writing.sync(self._path)

    def is_whole(self, run_dir: Path, rows: Iterable[Row]) -> bool:
        """Return whether metrics.csv holds exactly these rows."""
        seen: dict[str, None] = {}
        try:
            descriptor = reading.opened(run_dir / "metrics.csv")
        except OSError:
            return False
        with os.fdopen(descriptor, "rb") as file:
            columns = next(csv.reader([_line(file).decode(errors="replace")]), [])
            for row in _by_step(rows):
                seen.update(dict.fromkeys(row))
                if not seen.keys() <= set(columns) or _line(file) != _csv(columns, [row]):
                    return False
            return list(seen) == columns and not file.read(1)

    def _append(self, rows: Sequence[Row]) -> None:
        names = dict.fromkeys(chain.from_iterable(rows))
        if new := [name for name in names if name not in self._columns]:
            self._add_columns(new)
        writing.append(self._path, _csv(self._columns, rows))

    def _add_columns(self, names: Sequence[str]) -> None:
        """Add columns to the table, empty in the existing rows."""
        content = self._path.read_bytes() if self._columns else b""
        self._columns += names
        header = _csv(self._columns, [{name: name for name in self._columns}])
        rows = content.partition(b"\n")[2].replace(b"\n", b"," * len(names) + b"\n")
        writing.replace(self._path, header + rows)


class TensorBoard(Logger):
    """Writes TensorBoard event files: metrics as scalars, settings as hyperparameters.

    torch.utils.tensorboard.SummaryWriter is not used: it imports TensorFlow where that is installed, does not sync its
    file to the disk, and names files by the clock alone, so after the clock has been set back TensorBoard reads a
    resumed run before the original and drops its steps.

    Args:
        steps: Number of steps of the run.
        points: Approximate maximum number of points of a training curve; longer runs are thinned. Evaluations are
            always written.

    Raises:
        UsageError: tensorboard is not installed.
        ValueError: `points` is below 1.
    """

    def __init__(self, steps: int, points: int = 10_000) -> None:
        require("points", points, points >= 1, "at least 1")
        try:
            import tensorboard.summary.writer.record_writer  # noqa: F401
        except ImportError as error:
            raise lacking("logger=tensorboard", "tensorboard", "tensorboard") from error
        self._every = -(-steps // points)

    def open(self, run_dir: Path, step: int) -> None:
        """Start another file; TensorBoard discards the steps of older files that this one repeats."""
        from tensorboard.compat.proto import event_pb2
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        from trainer.files import plain_yaml  # imports YAML

        folder = run_dir / "tensorboard"
        writing.make_folders(folder)
        files = sorted(folder.glob("events.out.tfevents.*"))
        self._first, self._stretch = min(_end(files)[0], step + 1), -1
        # TensorBoard reads files in the order of their names, so the numbers must rise even if the clock does not.
        seconds = max([int(time.time()), *(number + 1 for number in map(_seconds, files))])
        self._path = folder / f"events.out.tfevents.{seconds:010d}.trainer"
        now = time.time()
        settings = hparams_pb(_hyperparameters(plain_yaml.data(run_dir / "config.yaml")), trial_id=str(run_dir))
        events = [
            event_pb2.Event(wall_time=now, file_version="brain.Event:2"),
            event_pb2.Event(
                wall_time=now,
                step=self._first,
                session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START),
            ),
            event_pb2.Event(wall_time=now, summary=settings),
        ]
        writing.append(self._path, _records(events))

    def __call__(self, rows: Sequence[Row]) -> None:
        """Append the rows that the older files don't hold."""
        from tensorboard.compat.proto import event_pb2, summary_pb2

        events, now = [], time.time()
        for row in self._thinned(rows):
            if row["step"] >= self._first:
                values = [
                    summary_pb2.Summary.Value(tag=tag, simple_value=math.nan if value is None else value)
                    for tag, value in _tagged(row)
                ]
                summary = summary_pb2.Summary(value=values)
                events.append(event_pb2.Event(wall_time=now, step=row["step"], summary=summary))
        writing.append(self._path, _records(events))

    def close(self) -> None:
        """Sync the file to the disk."""
        writing.sync(self._path)

    def is_whole(self, run_dir: Path, rows: Iterable[Row]) -> bool:
        """Return whether the curves reach the last of these rows; a kill can only cut off the end."""
        last, tags = _end(sorted((run_dir / "tensorboard").glob("events.out.tfevents.*")))
        self._stretch = -1
        rest = [row for row in self._thinned(rows) if row["step"] >= last]
        return all(row["step"] == last and tags.issuperset(tag for tag, _ in _tagged(row)) for row in rest)

    def _thinned(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield all evaluations, and the steps that the limit of points allows."""
        for row in rows:
            if "loss" in row:
                stretch = row["step"] // self._every
                if stretch == self._stretch:
                    continue
                self._stretch = stretch
            yield row


def numbers(row: Row) -> Row:
    """Return the numbers of a row by dotted names; a parameter of several numbers has one for each."""
    if "parameters" not in row:
        return row
    return {name: value for key in row for name, value in _flat(key, row[key])}


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(f"{name}.{key}", inner)
    else:
        yield name, value


def _tagged(row: Row) -> Iterator[tuple[str, Any]]:
    """Yield the numbers of a row by the names of their curves."""
    for name, value in numbers(row).items():
        if name not in ("step", "epoch"):
            yield name.replace(".", "/", 1), value


def _by_step(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Yield one merged row per step; empty rows are skipped."""
    row: dict[str, Any] = {}
    for one in rows:
        if row and one["step"] != row["step"]:
            yield row
            row = {}
        row.update(numbers(one))
    if row:
        yield row


def _line(file: IO[bytes]) -> bytes:
    return file.readline(_MOST_LINE)


def _csv(columns: Sequence[str], rows: Iterable[Row]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([row.get(name) for name in columns] for row in rows)
    return text.getvalue().encode()


def _records(events: Iterable[Any]) -> bytes:
    """Return TensorBoard events as the bytes of an event file."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    writer = RecordWriter(content)
    for event in events:
        writer.write(event.SerializeToString())
    return content.getvalue()


def _end(files: Iterable[Path]) -> tuple[int, set[str]]:
    """Return the last step in event files, 0 if there is none, and its tags; truncated records are ignored."""
    last, tags = 0, set[str]()
    for file in files:
        for event in _events(file):
            step = min(last, event.step - 1) if event.HasField("session_log") else max(last, event.step)
            if step != last:
                last, tags = step, set()
            if step == event.step:
                tags.update(value.tag for value in event.summary.value)
    return max(last, 0), tags


def _events(file: Path) -> Iterator[Any]:
    """Yield the events of a file up to the first unreadable one."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto import event_pb2

    with suppress(OSError, DecodeError):
        for record in event_file.records(file):
            yield event_pb2.Event.FromString(record)


def _seconds(file: Path) -> int:
    number = file.name.split(".")[3]
    return int(number) if number.isdecimal() else 0


def _hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as TensorBoard hyperparameters: plain values, and the class name of each component."""
    found: dict[str, Any] = {}
    for key, value in flat({name: part for name, part in config.items() if name != "logger"}).items():
        if key.endswith("._target_"):
            found[key.removesuffix("._target_")] = str(value).rpartition(".")[2]
        elif value is not None:
            found[key] = value if isinstance(value, bool | int | float | str) else show(value)
    return found
