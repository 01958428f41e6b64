"""Files of tensors are those of the safetensors package, byte for byte; what is none is refused."""

from __future__ import annotations

import hashlib
import json

import pytest
import safetensors.torch
import torch

from trainer.checkpoints import tensors as tensor_file

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.bool, torch.complex64),
]


def tensors(number: int = 0) -> dict[str, torch.Tensor]:
    """One of each type and more, in an order that is not that of the file."""
    found = {"none": torch.empty(0, 4), "number": torch.tensor(2.5 + number), "ü\n": torch.full((3,), -0.0)}
    for i, dtype in enumerate(DTYPES):
        found[f"{i * 7 % 16:02d}"] = torch.randint(0, 2, (3, i % 4 + 1)).to(dtype)
    return {**found, "large": torch.randn(600, 601), "columns": torch.randn(700, 600).T}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bytes_of(a) == bytes_of(b)


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def test_a_file_is_that_of_the_package():
    given = tensors()
    expected = safetensors.torch.save({name: tensor.contiguous() for name, tensor in given.items()})
    assert bytes(tensor_file.image(given).content) == expected
    assert bytes(tensor_file.image({}).content) == safetensors.torch.save({})


def test_memory_is_used_again_where_it_fits():
    first, second = tensors(), tensors(1)
    image = tensor_file.image(first)
    again = tensor_file.image(second, image)
    assert again is image
    assert bytes(again.content) == bytes(tensor_file.image(second).content)
    for other in ({**second, "number": torch.tensor([2.5])}, {**second, "number": torch.tensor(2)}, {"number": second}):
        if isinstance(other["number"], dict):
            other = {"number": torch.tensor(1.0)}
        assert bytes(tensor_file.image(other, image).content) == bytes(tensor_file.image(other).content)


def test_what_is_written_is_read(tmp_path):
    given = tensors()
    file = tmp_path / "f"
    file.write_bytes(tensor_file.image(given).content)
    found, total = tensor_file.read(file)
    assert total == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.keys() == given.keys()
    for name, tensor in found.items():
        assert same(tensor, given[name])
        assert tensor.data_ptr() % 64 == 0


def test_a_file_of_the_package_with_metadata_is_read(tmp_path):
    given = {"a": torch.randn(3, 2), "b": torch.arange(5)}
    safetensors.torch.save_file(given, tmp_path / "f", metadata={"format": "pt"})
    found, _ = tensor_file.read(tmp_path / "f")
    assert all(same(found[name], given[name]) for name in given)


def test_a_type_that_files_do_not_know_is_refused():
    with pytest.raises(TypeError, match=r"w is of type torch\.complex128, which a checkpoint can't hold"):
        tensor_file.image({"w": torch.ones(2, dtype=torch.complex128)})


def entry(begin: object = 0, end: object = 8, shape: object = (2,), dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [begin, end]}


HOSTILE = {
    "no header": b"",
    "a header that ends early": (100).to_bytes(8, "little") + b"{}",
    "a header without end": (2**63).to_bytes(8, "little") + b"{}",
    "no JSON": b"[" * 8,
    "nested": b"[" * 200_000,
    "no text": b"\xff" * 8,
    "a list": [],
    "a number": {"w": 1},
    "no shape": {"w": {"dtype": "F32", "data_offsets": [0, 8]}},
    "another type": {"w": entry(dtype="F33")},
    "a list as type": {"w": entry(dtype=["F32"])},
    "a text as shape": {"w": entry(shape="2")},
    "numbers that are none": {"w": entry(shape=(True, 2))},
    "broken numbers": {"w": entry(shape=(2.0,))},
    "negative": {"w": entry(shape=(-1, -2))},
    "too large": {"w": entry(shape=(2**40,))},
    "far too large": {"w": entry(shape=(2**64, 0), end=0)},
    "too small": {"w": entry(shape=(1,))},
    "overlapping": {"v": entry(), "w": entry()},
    "a hole": {"w": entry(4, 8, (1,))},
    "beyond the end": {"w": entry(0, 16, (4,))},
    "less than there is": {"w": entry(0, 4, (1,))},
    "offsets that are none": {"w": entry("0", "8")},
    "three offsets": {"w": {**entry(), "data_offsets": [0, 8, 8]}},
    "nothing": {},
}


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_such_file_is_refused(tmp_path, header):
    """As the package refuses it."""
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    if not header.endswith(b"{}") or header == b"{}":
        header = len(header).to_bytes(8, "little") + header
    (tmp_path / "f").write_bytes(header + (b"\0" * 8 if header[8:] else b""))
    with pytest.raises(safetensors.SafetensorError):
        safetensors.torch.load((tmp_path / "f").read_bytes())
    with pytest.raises((ValueError, RuntimeError)):
        tensor_file.read(tmp_path / "f")
