"""`trainer info`: what one is asked for when something does not work."""

from __future__ import annotations

import json
import os
import platform

import torch

import trainer


def test_versions_devices_and_places(cli, workdir):
    result = cli("info")
    assert (result.code, result.err) == (0, "")
    for text in (trainer.__version__, platform.python_version(), torch.__version__, "hydra-core", "cpu", "GiB"):
        assert text in result.out
    assert f"{workdir / 'runs'} (none yet)" in result.out
    assert "trainer list" in result.out


def test_for_programs(cli, workdir):
    facts = json.loads(cli("info", "--json").out)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["versions"]["trainer"] == trainer.__version__
    cpu = facts["devices"][0]
    assert (cpu["device"], cpu["threads"], cpu["cores"]) == ("cpu", torch.get_num_threads(), os.cpu_count())
    assert cpu["memory"] > 2**28
    assert facts["auto"] == "cpu" or torch.cuda.is_available() or torch.backends.mps.is_available()
    assert facts["runs"] == {"path": str(workdir / "runs"), "count": 0}


def test_runs_and_configs_are_those_of_this_directory(cli, workdir):
    (workdir / "configs").mkdir()
    assert cli("run", "steps=1", "data.inputs=2").code == 0
    facts = json.loads(cli("info", "--json").out)
    assert facts["runs"]["count"] == 1
    assert str(workdir / "configs") in facts["configs"]


def test_a_wrong_word_gets_one_line(cli):
    result = cli("info", "--jsn")
    assert (result.code, result.out) == (2, "")
    assert result.err == "error: --jsn: no such flag; allowed: --help, --json; did you mean --json?\n"
