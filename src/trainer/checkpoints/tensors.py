"""Reads and writes named tensors in the safetensors format, reusing memory for writes and reading without a copy.

A file consists of 8 bytes with the length of a JSON header, the header, and the data of the tensors one after another:
https://github.com/huggingface/safetensors#format. The `safetensors` package is not used because it neither aligns the
tensors that it reads nor computes their SHA-256 on the way.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.files import plain_json, reading

# In the order in which the safetensors package writes them: the largest first.
_DTYPES = {
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F32": torch.float32,
    "U32": torch.uint32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_RANKS = {dtype: rank for rank, dtype in enumerate(_CODES)}
_ALIGNED = 64  # bytes, like torch's allocations
_LARGE = 2**20  # bytes
_MOST_DIMENSIONS = 64  # torch's limit; multiplying many large numbers takes long
LONGEST_HEADER = 2**24  # bytes
MOST_TENSORS = 100_000  # torch needs more than a kilobyte for each tensor
_MANY = 1000  # with fewer tensors, the header can't be too long
_MOST_VALUES = 1_000_000  # names, types and sizes in a header


class Image:
    """The content of a file of tensors, in memory that can be refilled.

    Args:
        tensors: Tensors by name, whose types and shapes define the layout.

    Raises:
        TypeError: The format has no code for the type of a tensor.
        ValueError: There are too many tensors.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.dtype not in _CODES:
                raise TypeError(f"{name} is of type {tensor.dtype}, which a checkpoint can't hold")
        require_room(tensors)
        self._layout = _layout(tensors)
        header, places, end = _header(tensors)

        # Aligned data are copied faster, so the header is placed in front of the aligned position.
        memory = torch.empty(len(header) + end + _ALIGNED, dtype=torch.uint8)
        start = -(memory.data_ptr() + len(header)) % _ALIGNED
        data = memory[start + len(header) :]
        self._tensors = {n: data[place].view(tensors[n].dtype).view(tensors[n].shape) for n, place in places.items()}
        self.content = _bytes_of(memory)[start : start + len(header) + end]
        self.content[: len(header)] = header

    def fits(self, tensors: dict[str, Tensor]) -> bool:
        """Return whether the layout is that of tensors with these names, types and shapes."""
        return self._layout == _layout(tensors)

    def fill(self, tensors: dict[str, Tensor]) -> Image:
        """Copy tensors of this layout into the memory."""
        for name, tensor in tensors.items():
            _copy(tensor.detach(), self._tensors[name])
        return self


def require_room(tensors: dict[str, Tensor]) -> None:
    """Check that a file of these tensors could be read back.

    Raises:
        ValueError: There are too many tensors, or their names are too long.
    """
    if len(tensors) > MOST_TENSORS:
        raise ValueError(f"{len(tensors):,} tensors are more than the {MOST_TENSORS:,} that a checkpoint can hold")
    if len(tensors) > _MANY and (length := len(_header(tensors)[0])) > LONGEST_HEADER:
        raise ValueError(
            f"the names of the tensors take {length:,} bytes; a checkpoint has room for {LONGEST_HEADER:,}"
        )


def image(tensors: dict[str, Tensor], spent: Image | None = None) -> Image:
    """Return the file of tensors, in the memory of `spent`, which is no longer needed, if the layout is the same."""
    return (spent if spent is not None and spent.fits(tensors) else Image(tensors)).fill(tensors)


def read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a file, aligned as torch aligns them, and the SHA-256 of the whole file.

    The alignment matters because the bits of torch's sums can depend on it.

    Raises:
        OSError: The file can't be read.
        ValueError: The file is not in the safetensors format or exceeds a limit.
    """
    with reading.summed(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(file.size - 8, LONGEST_HEADER):
            raise ValueError(f"the header would have {length:,} bytes")
        tensors = {}
        for name, dtype, shape, size in _entries(file.read(length), file.size - 8 - length):
            memory = torch.empty(size, dtype=torch.uint8)
            file.into(_bytes_of(memory))
            tensors[name] = memory.view(dtype).view(shape)
        return tensors, file.sum


def _copy(source: Tensor, target: Tensor) -> None:
    is_plain = source.device.type == "cpu" and source.is_contiguous() and source.is_floating_point()
    if is_plain and source.nbytes >= _LARGE:  # saves a third of the time, because memcpy bypasses the caches
        np.copyto(target.view(-1).view(torch.uint8).numpy(), source.view(-1).view(torch.uint8).numpy())
    else:
        target.copy_(source)


def _bytes_of(memory: Tensor) -> memoryview:
    array: Any = memory.numpy()
    return memoryview(array)


def _layout(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _header(tensors: dict[str, Tensor]) -> tuple[bytes, dict[str, slice], int]:
    """Return the header of a file with its length, each tensor's place in the data, and the size of the data."""
    entries, places, end = {}, {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (_RANKS[item[1].dtype], item[0])):
        begin, end = end, end + tensor.numel() * tensor.itemsize
        entries[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        places[name] = slice(begin, end)
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, places, end


def _entries(header: bytes, size: int) -> list[tuple[str, torch.dtype, list[int], int]]:
    """Return (name, type, shape, bytes) of each tensor, in the order of the data, which take `size` bytes."""
    if (tensors := header.count(b"{")) > MOST_TENSORS + 2:  # two more: the outermost dict and __metadata__
        raise ValueError(f"its header names {tensors:,} tensors, more than the limit of {MOST_TENSORS:,}")
    plain_json.require_few(header, 3 * MOST_TENSORS + 2, _MOST_VALUES)
    try:
        listed = json.loads(header)
        listed.pop("__metadata__", None)
        entries = [(*e["data_offsets"], name, _DTYPES[e["dtype"]], e["shape"]) for name, e in listed.items()]
        entries.sort(key=lambda entry: entry[:2])
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header is invalid: {type(error).__name__}: {error}") from error
    found, at = [], 0
    for begin, end, name, dtype, shape in entries:
        whole = (
            isinstance(shape, list)
            and len(shape) <= _MOST_DIMENSIONS
            and all(type(n) is int and 0 <= n < 2**63 for n in (begin, end, *shape))
        )
        if not whole or begin != at or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"its header gives {name!r} the wrong place, type or shape")
        found.append((name, dtype, shape, end - begin))
        at = end
    if at != size:
        raise ValueError(f"its header describes {at:,} bytes of data, but there are {size:,}")
    return found
