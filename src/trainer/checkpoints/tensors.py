"""Files of named tensors in the safetensors format, written from memory that is kept and read without a second copy.

The format is 8 bytes with the length of a JSON header, the header, and the data of one tensor after the other:
https://github.com/huggingface/safetensors#format. The package of that name holds the interpreter's lock while it
copies, which would stop the training that a save in the background is there for.
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

# As the package orders them in a file: the largest first.
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
_ALIGNED = 64  # bytes, as torch allocates
_LARGE = 2**20  # bytes
_MOST_DIMENSIONS = 64  # as in torch; the product of many large numbers takes long
LONGEST_HEADER = 2**24  # bytes
MOST_TENSORS = 100_000  # torch takes more than a kilobyte for each
_MANY = 1000  # of fewer no names are too long
_MOST_VALUES = 1_000_000  # names, types and sizes of a header


class Image:
    """The content of a file of tensors, in memory that can be filled again and again.

    Args:
        tensors: What it has room for, by name.

    Raises:
        TypeError: One is of a type that such files do not know.
        ValueError: They are too many.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.dtype not in _CODES:
                raise TypeError(f"{name} is of type {tensor.dtype}, which a checkpoint can't hold")
        require_room(tensors)
        self._layout = _layout(tensors)
        header, places, end = _header(tensors)

        # Data that are aligned are copied faster; the header goes before them.
        memory = torch.empty(len(header) + end + _ALIGNED, dtype=torch.uint8)
        start = -(memory.data_ptr() + len(header)) % _ALIGNED
        data = memory[start + len(header) :]
        self._tensors = {n: data[place].view(tensors[n].dtype).view(tensors[n].shape) for n, place in places.items()}
        self.content = _bytes_of(memory)[start : start + len(header) + end]
        self.content[: len(header)] = header

    def fits(self, tensors: dict[str, Tensor]) -> bool:
        """Say whether it was made for tensors of these names, types and shapes."""
        return self._layout == _layout(tensors)

    def fill(self, tensors: dict[str, Tensor]) -> Image:
        """Copy the tensors that it was made for into it, and return when that is done."""
        for name, tensor in tensors.items():
            _copy(tensor.detach(), self._tensors[name])
        return self


def require_room(tensors: dict[str, Tensor]) -> None:
    """Refuse tensors of which a file would have more than is read again.

    Raises:
        ValueError: They are too many.
    """
    if len(tensors) > MOST_TENSORS:
        raise ValueError(f"{len(tensors):,} tensors are more than the {MOST_TENSORS:,} that a checkpoint may hold")
    if len(tensors) > _MANY and (length := len(_header(tensors)[0])) > LONGEST_HEADER:
        raise ValueError(f"their names take {length:,} bytes, more than the {LONGEST_HEADER:,} of a checkpoint")


def image(tensors: dict[str, Tensor], spent: Image | None = None) -> Image:
    """Return the file of tensors, in the memory of one that is no longer needed if that fits."""
    return (spent if spent is not None and spent.fits(tensors) else Image(tensors)).fill(tensors)


def read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a file, each in memory of torch's own alignment, and the SHA-256 of all its bytes.

    The bits of torch's sums may depend on the alignment.

    Raises:
        OSError: It can't be read.
        ValueError: It is no such file.
    """
    with reading.Summed(path) as file:
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
    if is_plain and source.nbytes >= _LARGE:  # takes two thirds of the time: memcpy writes past the caches
        np.copyto(target.view(-1).view(torch.uint8).numpy(), source.view(-1).view(torch.uint8).numpy())
    else:
        target.copy_(source)


def _bytes_of(memory: Tensor) -> memoryview:
    array: Any = memory.numpy()
    return memoryview(array)


def _layout(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _header(tensors: dict[str, Tensor]) -> tuple[bytes, dict[str, slice], int]:
    """Return the beginning of a file, where in the data after it each tensor is, and the bytes of the data."""
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
    """Return name, type, shape and bytes of each tensor in the order of the data, of which there are `size` bytes."""
    if (tensors := header.count(b"{")) > MOST_TENSORS + 2:  # the outermost, and one of texts of somebody's own
        raise ValueError(f"its header names {tensors:,} tensors, more than the {MOST_TENSORS:,} that it may")
    plain_json.require_few(header, 3 * MOST_TENSORS + 2, _MOST_VALUES)
    try:
        listed = json.loads(header)
        listed.pop("__metadata__", None)
        entries = [(*e["data_offsets"], name, _DTYPES[e["dtype"]], e["shape"]) for name, e in listed.items()]
        entries.sort(key=lambda entry: entry[:2])
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header is none: {type(error).__name__}: {error}") from error
    found, at = [], 0
    for begin, end, name, dtype, shape in entries:
        whole = (
            isinstance(shape, list)
            and len(shape) <= _MOST_DIMENSIONS
            and all(type(n) is int and 0 <= n < 2**63 for n in (begin, end, *shape))
        )
        if not whole or begin != at or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"its header places {name!r} wrongly")
        found.append((name, dtype, shape, end - begin))
        at = end
    if at != size:
        raise ValueError(f"its header describes {at:,} bytes of data, and there are {size:,}")
    return found
