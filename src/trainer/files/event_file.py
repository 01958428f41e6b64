"""Reads TensorBoard event files, which may be untrusted, with size limits that TensorBoard's own reader lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trainer.files import reading

LONGEST_RECORD = 2**20  # bytes; parsed as a protocol buffer, a record can take 50 times as many


def records(path: Path) -> Iterator[bytes]:
    """Yield the records of an event file up to the first truncated or damaged one; oversized records are skipped.

    Raises:
        OSError: The file can't be read.
    """
    with os.fdopen(reading.opened(path), "rb") as file:
        end = os.fstat(file.fileno()).st_size
        while len(header := file.read(12)) == 12 and header[8:] == _sum(header[:8]):
            length = int.from_bytes(header[:8], "little")
            if length > end - file.tell() - 4:
                return
            if length > LONGEST_RECORD:
                file.seek(length + 4, os.SEEK_CUR)
                continue
            record = file.read(length)
            if file.read(4) != _sum(record):
                return
            yield record


def _sum(data: bytes) -> bytes:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    return int(masked_crc32c(data)).to_bytes(4, "little")
