"""Windows is not supported: `trainer` says so in one line there, and creates nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A process as on Windows: its name for the system, and none of the modules that only Unix has.
WINDOWS = """
import os, signal, sys
sys.platform = "win32"
for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios"):
    sys.modules[name] = None  # importing it raises ImportError
del os.fork
from trainer.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def call(workdir, *words):
    return subprocess.run([sys.executable, "-c", WINDOWS, *words], cwd=workdir, capture_output=True, text=True)


@pytest.mark.parametrize("words", [("run",), ("run", "-m", "seed=0,1"), ("runs",), ("info",), ("resume", "last")])
def test_a_command_ends_in_one_line(workdir, words):
    done = call(workdir, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: trainer does not run on Windows")
    assert done.stderr.count("\n") == 1
    assert not done.stdout
    assert not list(workdir.iterdir())


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("--version",)])
def test_help_is_shown(workdir, words):
    done = call(workdir, *words)
    assert done.returncode == 0, done.stderr
    assert "trainer" in done.stdout
