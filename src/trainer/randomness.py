"""Seeds, saves and restores the global random generators, and derives seeds from the seed of a run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# One number per purpose, so that no two purposes share a stream.
ORDER, SPLIT, EVALUATION, TRIAL = 1, 2, 3, 4
ITEM = 1000  # and above: one per epoch


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch on every device, as a plain script would."""
    reseed(seed)
    if torch.accelerator.is_available():  # skipped otherwise: it takes a hundred times as long as the rest
        torch.manual_seed(seed)


def reseed(seed: int) -> None:
    """Seed the generators of the CPU, in a hundredth of the time of torch.manual_seed."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def derived(seed: int, purpose: int, number: int) -> int:
    """Return a 64-bit seed that is a pure function of its arguments."""
    state = np.random.SeedSequence([seed, purpose, number]).generate_state(1, np.uint64)
    return int(state[0])


def permutation(count: int, seed: int) -> torch.Tensor:
    """Return a random permutation of `count` rows without using the global generators."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed the generators for a block and restore them afterwards, so that the block does not affect training."""
    python, numpy_, devices = random.getstate(), np.random.get_state(), _torch_states()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    _seed_torch(seed, devices)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_)
        _set_torch_states(devices)


def state_dict() -> dict[str, Any]:
    """Return the state of every global generator, including those of GPUs."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "name": name,
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        **_torch_states(),
    }


def position() -> dict[str, Any]:
    """Return a comparable state per library, which differs once anything has been drawn from its generators."""
    _, keys, *rest = np.random.get_state(legacy=True)
    devices = [one if isinstance(one, list) else [one] for one in _torch_states().values()]
    return {
        "python": random.getstate(),
        "numpy": (np.asarray(keys).tobytes(), *rest),
        "torch": [state.numpy().tobytes() for states in devices for state in states],
    }


def load_state_dict(state: dict[str, Any]) -> None:
    """Restore every global generator from the result of `state_dict`; missing devices are skipped."""
    python, numpy_ = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy_["keys"].numpy().astype(np.uint32)
    if not 0 <= numpy_["position"] <= keys.size:  # NumPy would read out of bounds
        raise ValueError(f"NumPy's generator can't be at position {numpy_['position']}")
    np.random.set_state((numpy_["name"], keys, numpy_["position"], numpy_["has_gauss"], numpy_["cached"]))
    _set_torch_states(state)


def _torch_states() -> dict[str, Any]:
    states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _seed_torch(seed: int, devices: dict[str, Any]) -> None:
    """Seed the saved generators; torch.manual_seed would also seed a GPU that is not in use yet."""
    torch.default_generator.manual_seed(seed)
    if "cuda" in devices:
        torch.cuda.manual_seed_all(seed)
    if "mps" in devices:
        torch.mps.manual_seed(seed)


def _set_torch_states(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        for index, one in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(one, index)
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
