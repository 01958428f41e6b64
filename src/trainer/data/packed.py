"""Unpacks files that gzip or Zstandard have compressed."""

from __future__ import annotations

import gzip
import io
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from trainer.errors import lacking, refusal

SUFFIXES = (".gz", ".zst")
_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # the first bytes of such files
_UNPACKED, _MOST_TIMES = 2**28, 200  # accepted unpacked bytes, and ratio to the file size above that
_CHUNK = 2**20  # bytes


def bare(path: Path) -> Path:
    """Return a path without the suffix of a compressed file."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


@contextmanager
def unpacked(file: io.BufferedReader, what: str) -> Iterator[io.BufferedReader]:
    """Yield a temporary file of the unpacked content of a file; the file itself if it is not compressed.

    Args:
        file: The file, at its start.
        what: The setting that names the file and its value, for messages.

    Raises:
        UsageError: The content can't be unpacked, or has an implausible size, as in a decompression bomb.
    """
    start = file.read(4)
    file.seek(0)
    if not start.startswith((_GZIP, _ZSTANDARD)):
        yield file
        return
    most = max(_UNPACKED, _MOST_TIMES * file.seek(0, io.SEEK_END))
    file.seek(0)
    content, error_of_kind = _reader(file, start, what)
    with temporary() as whole:
        try:
            while chunk := content.read(_CHUNK):
                whole.write(chunk)
                if whole.tell() > most:
                    raise refusal(what, f"unpacks to more than {most:,} bytes", "an unpacked file")
        except (EOFError, OSError, error_of_kind) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk, not the content
            raise refusal(what, f"can't be unpacked: {error}") from error
        whole.seek(0)
        yield cast("io.BufferedReader", whole)


def temporary() -> Any:
    """Return a temporary file that is deleted when it is closed; on Linux it has no name that could be left behind."""
    return tempfile.TemporaryFile() if sys.platform == "linux" else tempfile.NamedTemporaryFile()


def name_of(file: IO[bytes]) -> str:
    """Return a name that opens an open file again."""
    return f"/proc/self/fd/{file.fileno()}" if sys.platform == "linux" else str(file.name)


def _reader(file: io.BufferedReader, start: bytes, what: str) -> tuple[Any, type[Exception]]:
    """Return a reader of the unpacked content, and the error that it raises besides EOFError and OSError."""
    if start.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file), zlib.error
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        raise lacking(f"{what}: is compressed with Zstandard", "backports.zstd", "data") from error
    return zstd.open(file), zstd.ZstdError
