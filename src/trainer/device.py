"""Where to compute and in which numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from trainer.errors import UsageError, refusal
from trainer.settings import DeviceSettings

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def choose(settings: DeviceSettings) -> torch.device:
    """Return the device that the settings mean on this machine.

    Raises:
        UsageError: The machine does not have it, or it lacks the dtype; says why.
    """
    kind = settings.type
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if kind == "mps" and settings.dtype == "float64":
            kind = "cpu"  # Apple's GPUs have no float64
    if kind == "cuda" and not torch.cuda.is_available():
        raise _missing("cuda", "this torch was built without CUDA" if torch.version.cuda is None else "no GPU answers")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise _missing(
            "mps",
            "no Apple GPU here" if torch.backends.mps.is_built() else "this torch was built without MPS",
        )
    if kind == "mps" and settings.dtype == "float64":
        raise refusal("device.dtype=float64", "mps has no float64", "float32, bfloat16, or device=cpu")
    if kind == "cuda" and settings.index >= torch.cuda.device_count():
        names = [f"{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
        raise refusal(f"device.index={settings.index}", "no such GPU", names)
    if kind != "cuda" and settings.index != 0:
        raise refusal(f"device.index={settings.index}", f"{kind} has one device", "0")
    return torch.device(kind, settings.index) if kind == "cuda" else torch.device(kind)


def _missing(kind: str, why: str) -> UsageError:
    return refusal(f"device={kind}", f"not available here: {why}", "device=cpu, device=auto")


def prepare(settings: DeviceSettings) -> None:
    """Set the number of threads and the deterministic mode of this process."""
    if settings.threads is not None and settings.threads != torch.get_num_threads():
        torch.set_num_threads(settings.threads)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(settings.deterministic)


def autocast(device: torch.device, settings: DeviceSettings) -> AbstractContextManager[object]:
    """Return a context, reusable step after step, in which safe operations run in bfloat16 if `amp` says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.amp)


@contextmanager
def default_dtype(name: str) -> Iterator[None]:
    """Draw and create tensors directly in a dtype for the duration of a block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[name])
    try:
        yield
    finally:
        torch.set_default_dtype(before)
