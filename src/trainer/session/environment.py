"""Describes what the bits of a run depend on besides its settings: versions, machine, threads and code."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from typing import Any

import numpy
import torch

from trainer.version import __version__


def versions() -> dict[str, str]:
    """Return the versions of trainer, Python, torch and NumPy."""
    return {
        "trainer": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Return a description of this machine and the device in use."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "device": str(device),
        "threads": torch.get_num_threads(),
    }


def git_commit() -> str | None:
    """Return the git commit of the working directory, None outside a repository."""
    return _commit_of(os.getcwd())


@functools.cache  # modules are imported from the first commit, even if another is checked out later
def _commit_of(folder: str) -> str | None:
    command = ["git", "-C", folder, "rev-parse", "HEAD"]
    try:
        head = subprocess.run(command, capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() or None
