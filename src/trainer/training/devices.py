"""The device, dtype and threads of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch

from trainer.config.settings import DeviceSettings
from trainer.errors import UsageError, refusal

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def choose(settings: DeviceSettings, cpu_only: bool = False) -> torch.device:
    """Return the device that the settings select on this machine.

    Args:
        settings: The settings of the device.
        cpu_only: Whether the model supports only the CPU, which `auto` then selects.

    Raises:
        UsageError: The machine lacks the device, or the device lacks the dtype.
    """
    kind, dtype = settings.type, settings.dtype
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if cpu_only or (kind == "mps" and dtype == "float64"):  # Apple's GPUs have no float64
            kind = "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise _missing("cuda", "this torch was built without CUDA" if torch.version.cuda is None else "no GPU found")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise _missing(
            "mps",
            "no Apple GPU here" if torch.backends.mps.is_built() else "this torch was built without MPS",
        )
    if kind == "mps" and dtype == "float64":
        raise refusal("device.dtype=float64", "mps has no float64", "float32, bfloat16, or device=cpu")
    if settings.amp and dtype == "float64":
        raise refusal("device.amp=true device.dtype=float64", "amp has no effect on float64", "one of them")
    if kind == "cuda" and settings.index >= torch.cuda.device_count():
        names = [f"{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
        raise refusal(f"device.index={settings.index}", "no such GPU", names)
    if kind != "cuda" and settings.index != 0:
        raise refusal(f"device.index={settings.index}", f"{kind} has one device", "0")
    device = torch.device(kind, settings.index) if kind == "cuda" else torch.device(kind)
    _require_working(device, settings)
    return device


def _missing(kind: str, why: str) -> UsageError:
    return refusal(f"device={kind}", f"not available here: {why}", "device=cpu, device=auto")


def _require_working(device: torch.device, settings: DeviceSettings) -> None:
    """Refuse a device that can't allocate a number of the dtype: it is busy or too old, or its driver is broken."""
    try:
        torch.zeros(1, dtype=DTYPES[settings.dtype], device=device)
        with autocast(device, settings):
            pass
    except (RuntimeError, TypeError, AssertionError) as error:  # the type depends on the device
        amp = " device.amp=true" if settings.amp else ""
        what = f"device={device.type} device.dtype={settings.dtype}{amp}"
        raise refusal(what, f"can't be used here: {str(error).splitlines()[0]}", "device=cpu") from error


@contextmanager
def memory_of(device: torch.device) -> Iterator[None]:
    """Turn an out-of-memory error of a GPU in a block into a refusal.

    Raises:
        UsageError: The memory of the GPU is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = f"model and data don't fit into its memory: {str(error).splitlines()[0]}"
        raise refusal(f"device={device.type}", reason, "device=cpu") from error


def prepare(settings: DeviceSettings) -> None:
    """Set the number of threads and the deterministic mode of this process."""
    own = _own_threads()
    threads = settings.threads or own
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it
    torch.use_deterministic_algorithms(settings.deterministic)


def one_thread() -> None:
    """Make one thread the default of runs in this process."""
    torch.set_num_threads(1)
    _own_threads.cache_clear()


@contextmanager
def put_back() -> Iterator[None]:
    """Restore the threads and the deterministic mode of this process after a block."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    _own_threads.cache_clear()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        _own_threads.cache_clear()


@cache
def _own_threads() -> int:
    """Return the number of threads before any run changes it: jobs of a sweep must not inherit it from each other."""
    return torch.get_num_threads()


def autocast(device: torch.device, settings: DeviceSettings) -> AbstractContextManager[object]:
    """Return a reusable context in which safe operations run in bfloat16 if `amp` is on."""
    return torch.autocast(device.type, torch.bfloat16) if settings.amp else nullcontext()


@contextmanager
def default_dtype(name: str) -> Iterator[None]:
    """Make a dtype the default of new tensors in a block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[name])
    try:
        yield
    finally:
        torch.set_default_dtype(before)
