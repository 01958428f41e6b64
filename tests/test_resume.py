"""A run that was killed or stopped, and resumed, ends with the bits of one that never stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from conftest import Run, wait_until

COMMON = ("steps=300", "batch_size=16", "data.validation=0.25", "checkpoint.every=40", "data.inputs=20")


@pytest.mark.parametrize("model", ["two_layer", "numpy"])
def test_killed_and_resumed_is_never_stopped(train, cli, fork, model):
    words = (f"model={model}", *COMMON)
    straight = train(*words, name="straight")
    child = fork("run", "run_dir=killed", *words)
    wait_until(lambda: len(list(Path("killed").glob("checkpoints/step-*"))) > 1)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert cli("resume", "killed").code == 0
    assert Run(Path("killed")).bits() == straight.bits()
