"""Where and in which numbers a run computes; what this machine lacks is refused with the reason."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import Run

from trainer import randomness
from trainer.config.settings import DeviceSettings
from trainer.errors import UsageError
from trainer.training import devices

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
SMALL = ("steps=20", "data.inputs=20", "optim.lr=1e-3")


def first_loss(dtype):
    """The first loss of a script that computes in a dtype throughout."""
    torch.manual_seed(0)
    with devices.default_dtype(dtype):
        x, y = torch.randn(64, 20), torch.randn(64, 10)
        first, second = torch.nn.Linear(20, 100), torch.nn.Linear(100, 10)
    return (second(first(x).clamp(min=0)) - y).pow(2).sum().item()


@pytest.mark.parametrize("dtype", DTYPES)
def test_data_and_weights_are_drawn_in_the_dtype(train, dtype):
    run = train(f"device.dtype={dtype}", *SMALL)
    assert {w.dtype for w in run.weights().values()} == {DTYPES[dtype]}
    assert run.steps[0]["loss"] == first_loss(dtype)
    assert run.steps[-1]["loss"] < run.steps[0]["loss"]
    assert torch.get_default_dtype() == torch.float32


def test_amp_computes_in_bfloat16_and_keeps_the_weights(train):
    exact, amp = train(*SMALL, name="exact"), train("device.amp=true", *SMALL, name="amp")
    assert {w.dtype for w in amp.weights().values()} == {torch.float32}
    assert amp.steps[0]["loss"] != exact.steps[0]["loss"]
    assert [row["loss"] for row in amp.steps] == pytest.approx([row["loss"] for row in exact.steps], rel=0.05)


@pytest.mark.parametrize("model", ["numpy", "tensor"])
def test_hand_written_products_stay_in_float32_under_amp(train, model):
    words = (f"model={model}", *SMALL)
    assert train("device.amp=true", *words, name="amp").bits() == train(*words, name="exact").bits()


def test_threads_are_those_asked_for_or_torchs_own_in_every_job():
    # In a process of its own: threads that other tests have started here would not be there in a fork.
    own = int(subprocess.check_output([sys.executable, "-c", "import torch; print(torch.get_num_threads())"]))
    words = ("run", "-m", "device.threads=2,null", "steps=1", "run_dir=sweep")
    subprocess.run([sys.executable, "-m", "trainer", *words], check=True, capture_output=True, timeout=120)
    for job, threads in (("000", 2), ("001", own)):
        assert yaml.safe_load(Path("sweep", job, "config.yaml").read_text())["device"]["threads"] == threads
        assert Run(Path("sweep", job)).status["segments"][0]["machine"]["threads"] == threads


def test_deterministic(train, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    train("device.deterministic=true", "steps=1", name="yes")
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    train("steps=1", name="no")
    assert not torch.are_deterministic_algorithms_enabled()


def test_cpu_can_be_asked_for(train):
    assert train("device=cpu", *SMALL, name="cpu").bits() == train(*SMALL, name="auto").bits()


no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
no_mps = pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is a GPU")
REFUSED = {
    "device=cpu device.index=1": "device.index=1: cpu has one device; allowed: 0",
    "device.threads=0": "device.threads=0: is out of range; allowed: at least 1",
    "device.dtype=float16": "device.dtype=float16: no such choice; allowed: float32, float64, bfloat16",
    "device.dtype=flaot32": "did you mean device.dtype=float32?",
    "device.amp=1": "device.amp=1: is not true or false",
    "device.amp=true device.dtype=float64": "amp has no effect on float64; allowed: one of them",
    "device.tpye=cpu": "device.tpye: no such setting",
    "device=gpu": "did you mean device=cuda?",
    "model=numpy device.dtype=bfloat16": "NumPy has no bfloat16; use device.dtype=float32",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_in_words(refused, words):
    assert REFUSED[words] in refused("run", *words.split())


@no_cuda
def test_cuda_without_a_gpu_says_why(cli):
    result = cli("run", "device=cuda")
    why = "this torch was built without CUDA" if torch.version.cuda is None else "no GPU found"
    line = f"error: device=cuda: not available here: {why}; allowed: device=cpu, device=auto\n"
    assert (result.code, result.err) == (2, line)


@no_mps
def test_mps_without_one_says_why(cli):
    result = cli("run", "device=mps")
    assert result.code == 2
    assert "device=mps: not available here: " in result.err


@pytest.fixture
def two_gpus(monkeypatch):
    """Let torch believe in two NVIDIA GPUs, which do not answer."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU of kind {index}")


@pytest.fixture
def apple_gpu(monkeypatch):
    """Let torch believe in an Apple GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


@no_cuda
def test_a_gpu_that_is_there_and_does_not_work_is_refused(two_gpus):
    for settings in (DeviceSettings(), DeviceSettings("cuda", 1)):
        with pytest.raises(
            UsageError, match=r"device=cuda device.dtype=float32: can't be used here: .*; allowed: device=cpu"
        ):
            devices.choose(settings)


def test_a_gpu_beyond_the_last_is_refused_with_their_names(two_gpus):
    with pytest.raises(
        UsageError, match=r"device.index=2: no such GPU; allowed: 0 \(GPU of kind 0\), 1 \(GPU of kind 1\)"
    ):
        devices.choose(DeviceSettings("cuda", 2))


def test_auto_is_the_cpu_for_models_that_compute_only_there(two_gpus):
    assert devices.choose(DeviceSettings(), cpu_only=True) == torch.device("cpu")


def test_auto_trains_numpy_on_the_cpu_where_there_is_a_gpu(train, two_gpus):
    assert train("model=numpy", "steps=1").status["segments"][0]["machine"]["device"] == "cpu"


def test_apples_gpu_has_no_float64(apple_gpu):
    assert devices.choose(DeviceSettings(dtype="float64")) == torch.device("cpu")
    with pytest.raises(
        UsageError, match=r"device.dtype=float64: mps has no float64; allowed: float32, bfloat16, or device=cpu"
    ):
        devices.choose(DeviceSettings("mps", dtype="float64"))


def test_what_does_not_fit_into_a_gpu_is_refused():
    with (
        pytest.raises(UsageError, match="device=cuda: model and data don't fit into its memory: CUDA out of memory"),
        devices.memory_of(torch.device("cuda", 0)),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_seeding_is_that_of_a_plain_script():
    randomness.seed_all(5)
    found = draws()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    assert found == draws()


def test_an_isolated_block_shifts_nothing_and_repeats_itself():
    randomness.seed_all(1)
    expected = draws()
    randomness.seed_all(1)
    with randomness.isolated(7):
        first = draws()
    with contextlib.suppress(ValueError), randomness.isolated(7):
        assert draws() == first
        raise ValueError
    assert draws() == expected != first


def test_generators_go_on_from_their_state():
    randomness.seed_all(2)
    draws(), random.gauss(0, 1), np.random.randn()  # each of the latter two keeps a second number for later
    state = randomness.state_dict()
    expected = [draws(), random.gauss(0, 1), np.random.randn()]
    randomness.seed_all(3)
    randomness.load_state_dict(state)
    assert [draws(), random.gauss(0, 1), np.random.randn()] == expected


def test_derived_seeds_differ_by_seed_purpose_and_number():
    seeds = {randomness.derived(a, b, c) for a in range(5) for b in range(5) for c in range(5)}
    assert len(seeds) == 125
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert randomness.derived(2**32 - 1, 1, 10**12) == randomness.derived(2**32 - 1, 1, 10**12)
