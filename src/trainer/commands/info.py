"""`trainer info`: versions, devices, threads, and the places of configs and runs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainer.config import arguments
from trainer.config.catalog import Catalog
from trainer.config.settings import DeviceSettings
from trainer.errors import refusal
from trainer.runs import directory
from trainer.runs.newest import RUNS
from trainer.terminal import screen
from trainer.version import __version__

PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf", "rich", "safetensors")
EXTRAS = {"scikit-learn": "data", "hydra-joblib-launcher": "cluster"}


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, ("--json",), "info")
    if words.overrides:
        raise refusal(words.overrides[0], "info takes no such word", "--json")
    facts = gather()
    if words.flags:
        screen.as_json(facts)
        return 0
    screen.heading("versions", facts["system"])
    screen.rows(
        {
            name: found or f"not installed: pip install {name} (the extra `{EXTRAS[name]}`)"
            for name, found in facts["versions"].items()
        }
    )
    screen.heading("devices", f"device=auto is {facts['auto']} here")
    screen.rows({device["device"]: described(device) for device in facts["devices"]})
    screen.heading("places", "seen from this directory")
    count = facts["runs"]["count"]
    screen.rows(
        {
            "configs": ", ".join(facts["configs"]),
            "runs": f"{facts['runs']['path']} ({f'{count:,} there' if count else 'none yet'})",
        }
    )
    screen.next_commands({"trainer list": "see what can be selected", "trainer run": "train the default model"})
    return 0


def gather() -> dict[str, Any]:
    """Return everything that is shown, as plain data; memory in bytes."""
    from trainer.training import devices as device

    return {
        "versions": versions(),
        "system": platform.platform(),
        "auto": str(device.choose(DeviceSettings())),
        "devices": devices(),
        "configs": [str(folder) for folder in Catalog().folders],
        "runs": {"path": str(RUNS.absolute()), "count": len(directory.every())},
    }


def versions() -> dict[str, str | None]:
    """Return the version of each package that results depend on; None if it is not installed."""
    found: dict[str, str | None] = {"trainer": __version__, "python": platform.python_version()}
    for name in (*PACKAGES, *EXTRAS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def devices() -> list[dict[str, Any]]:
    """Return the devices that torch can use on this machine."""
    import torch

    found: list[dict[str, Any]] = [
        {
            "device": "cpu",
            "name": processor(),
            "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        }
    ]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            found.append({"device": f"cuda:{index}", "name": properties.name, "memory": properties.total_memory})
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": platform.processor(), "memory": torch.mps.recommended_max_memory()})
    return found


def processor() -> str:
    """Return the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def described(device: dict[str, Any]) -> str:
    """Return a device as one line of text."""
    text = f"{device['name']}, {device['memory'] / 2**30:,.1f} GiB"
    if "cores" in device:
        cores, threads = device["cores"], device["threads"]
        text += f", {cores} core{'s' * (cores != 1)}, {threads} thread{'s' * (threads != 1)}"
    return text
