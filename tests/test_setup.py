"""scripts/setup prints one line, and pip's output only if the installation fails."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A Python that installs nothing: `-m venv DIR` copies it into DIR/bin, `-m pip` prints a line and may fail.
PYTHON = """#!/usr/bin/env bash
case "$*" in
    -c*) exit "${OLD:-0}" ;;
    --version) echo "Python 3.9.1" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip "*) echo "Collecting torch"; echo "WARNING: a warning" >&2; exit "${FAILS:-0}" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/setup", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def setup(checkout, *words, **environment):
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(checkout / "python"), **environment}
    return subprocess.run([checkout / "scripts/setup", *words], env=environment, capture_output=True, text=True)


def test_the_first_time_prints_one_line_and_the_second_none(checkout):
    done = setup(checkout, "data")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"Installing trainer .* minutes \.\.\. done in \d+ s\n", done.stderr)
    assert not done.stdout
    assert (checkout / ".venv/bin/python").exists()
    again = setup(checkout, "data")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert "Installing" in setup(checkout, "dev").stderr


def test_a_failure_shows_the_output_of_pip_and_is_tried_again(checkout):
    done = setup(checkout, "data", FAILS="1")
    assert done.returncode == 1
    assert "failed\nCollecting torch\nWARNING: a warning\nerror: " in done.stderr
    assert setup(checkout, "data").stderr.endswith(" s\n")


def test_another_version_of_torch_gets_an_environment_beside_it(checkout):
    assert ".venv-torch-2.9.0" in setup(checkout, "dev", "2.9.0").stderr
    assert "torch==2.9.0\n" in (checkout / ".venv-torch-2.9.0/constraints.txt").read_text()


def test_an_old_python_is_refused_in_one_line(checkout):
    done = setup(checkout, "data", OLD="1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Python 3.9.1 is too old")
    assert done.stderr.count("\n") == 1
    assert not (checkout / ".venv").exists()
