"""The user's own modules: kept with the run, and imported again only when they are the same or trusted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import Run
from instants import content, ending

NET = """
from torch import nn
from {parts} import WIDTH

class Net(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs))
"""
names = iter(range(1000))


@pytest.fixture
def own(cli, monkeypatch):
    """A run of a model of one's own, whose module imports another; then as in a new process."""
    net, parts = f"own_net_{next(names)}", f"own_parts_{next(names)}"
    Path("configs/model").mkdir(parents=True)
    Path("configs/model/own.yaml").write_text(f"_target_: {net}.Net\ninputs: null\noutputs: null\n")
    Path(f"{net}.py").write_text(NET.format(parts=parts))
    Path(f"{parts}.py").write_text("WIDTH = 7\n")
    assert cli("run", "model=own", "run_dir=run", "steps=2", "data.inputs=4").code == 0
    forget(net, parts)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # an edit within a second would not be noticed
    yield net, parts
    forget(net, parts)


def forget(*modules: str) -> None:
    for name in modules:
        sys.modules.pop(name, None)
    shutil.rmtree("__pycache__", ignore_errors=True)
    sys.path[:] = [folder for folder in sys.path if not folder.startswith(str(Path.cwd()))]


def test_what_a_run_imports_is_kept_with_it(own):
    run = Run(Path("run"))
    expected = {f"{name}.py": Path(f"{name}.py").read_bytes() for name in own}
    assert content(run.path / "code") == expected
    assert run.status["code"] == {name: hashlib.sha256(data).hexdigest() for name, data in expected.items()}


def test_ones_own_modules_need_no_flag(cli, own):
    assert cli("resume", "run", "steps=3").code == 0


def test_a_module_that_has_changed_is_another_run(cli, own):
    Path(f"{own[1]}.py").write_text("WIDTH = 7  # as before\n")
    before = content(Path("run"))
    result = cli("resume", "run", "steps=3")
    assert result.code == 2
    assert result.err.startswith(f"error: {own[1]}.py: has changed since the run started")
    assert "`trainer resume run steps=3 --force`" in result.err
    assert content(Path("run")) == before
    result = cli("resume", "run", "steps=3", "--force")
    assert result.code == 0
    assert f"warning: {own[1]}.py has changed since the run started" in result.err
    assert Path(f"run/code/{own[1]}.py").read_text() == "WIDTH = 7  # as before\n"
    forget(*own)
    assert cli("resume", "run", "steps=4").code == 0


def test_the_copies_of_a_changed_module_can_be_used(cli, own):
    shutil.copytree("run", "kept")
    assert cli("resume", "kept", "steps=3").code == 0
    forget(*own)
    Path(f"{own[1]}.py").write_text("WIDTH = 9\n")
    assert cli("resume", "run", "steps=3", "--trust-code").code == 0
    assert ending("run") == ending("kept")
    assert Path(f"run/code/{own[1]}.py").read_text() == "WIDTH = 7\n"


def test_elsewhere_the_flag_is_needed(cli, own, monkeypatch):
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    result = cli("resume", "../run", "steps=3")
    assert result.code == 2
    assert "read ../run/code first" in result.err
    assert "`trainer resume ../run steps=3 --trust-code`" in result.err
    assert cli("resume", "../run", "steps=3", "--trust-code").code == 0
    assert not list(Path("../run/code").rglob("*.pyc"))


def test_a_module_of_that_name_is_not_enough(cli, own, monkeypatch):
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    Path(f"{own[0]}.py").write_text("raise SystemExit('never imported')\n")
    result = cli("resume", "../run", "steps=3")
    assert result.code == 2
    assert "never imported" not in result.err


def test_what_status_json_claims_is_no_proof(cli, own):
    """Sums that fit no file of the working directory, or leave the model's module out."""
    status = json.loads(Path("run/status.json").read_text())
    for code in ({}, {f"{own[1]}.py": status["code"][f"{own[1]}.py"]}, {f"../{own[0]}.py": "0"}):
        Path("run/status.json").write_text(json.dumps({**status, "code": code}))
        assert "--trust-code" in cli("resume", "run", "steps=3").err


def test_a_run_cannot_vouch_for_its_own_code(cli, own, monkeypatch):
    """Standing in its directory makes nothing of what lies there the user's own."""
    shutil.copytree("run/code", "run", dirs_exist_ok=True)
    monkeypatch.chdir("run")
    assert "--trust-code" in cli("resume", ".", "steps=3").err


def test_modules_elsewhere_on_the_path_are_ones_own_too(cli, monkeypatch):
    """As with src/ on PYTHONPATH, or a package that is installed for editing."""
    Path("src/layout").mkdir(parents=True)
    Path("src/layout/__init__.py").touch()
    Path("src/layout/net.py").write_text(NET.format(parts=".parts"))
    Path("src/layout/parts.py").write_text("WIDTH = 3\n")
    Path("configs/model").mkdir(parents=True)
    Path("configs/model/own.yaml").write_text("_target_: layout.net.Net\ninputs: null\noutputs: null\n")
    monkeypatch.syspath_prepend("src")
    assert cli("run", "model=own", "run_dir=run", "steps=2", "data.inputs=4").code == 0
    assert {*Run(Path("run")).status["code"]} == {"layout/__init__.py", "layout/net.py", "layout/parts.py"}
    for name in ("layout", "layout.net", "layout.parts"):
        sys.modules.pop(name)
    assert cli("resume", "run", "steps=3").code == 0


def test_a_module_that_is_not_used_any_more_is_not_kept(cli, own):
    Path(f"{own[0]}.py").write_text(NET.format(parts="math").replace("import WIDTH", "import pi").replace("WIDTH", "7"))
    assert cli("resume", "run", "steps=3", "--force").code == 0
    assert [*content(Path("run/code"))] == [f"{own[0]}.py"]
    assert cli("verify", "run").code == 0


def test_a_lost_status_does_not_make_code_unknown_for_good(cli, own):
    Path("run/status.json").write_text("{")
    assert "--trust-code" in cli("resume", "run", "steps=3").err
    assert cli("resume", "run", "steps=3", "--trust-code").code == 0
    forget(*own)
    assert cli("resume", "run", "steps=4").code == 0


def test_a_config_beside_the_run_is_not_the_runs(cli, own):
    Path("config.yaml").write_text("mine: 1\n")
    assert cli("resume", "run", "steps=3").code == 0


def test_a_module_that_is_gone_has_changed(cli, own):
    """The class is there, and what it imported is not."""
    Path(f"{own[0]}.py").write_text(NET.format(parts="math").replace("WIDTH", "pi") + "\n")
    Path(f"{own[1]}.py").unlink()
    assert "has changed since the run started" in cli("resume", "run", "steps=3").err


def test_a_copy_that_has_changed_is_not_trusted(cli, own):
    Path(f"run/code/{own[1]}.py").write_text("WIDTH = 8\n")
    problem = f"run/code/{own[1]}.py has changed: its SHA-256 differs"
    assert problem in cli("resume", "run", "steps=3", "--trust-code").err
    result = cli("verify", "run")
    assert (result.code, problem in result.out) == (1, True)


def test_copies_that_differ_between_jobs_are_not_mixed(cli, own):
    assert cli("run", "-m", "model=own", "run_dir=sweep", "steps=2", "seed=0,1", "data.inputs=4").code == 0
    for path, text in ((f"code/{own[1]}.py", "WIDTH = 8\n"), ("status.json", None)):
        file = Path("sweep/001") / path
        sums = [hashlib.sha256(data).hexdigest() for data in (b"WIDTH = 7\n", b"WIDTH = 8\n")]
        file.write_text(text or file.read_text().replace(*sums))
    result = cli("resume", "sweep", "steps=3", "--trust-code")
    assert result.code == 2
    assert "differ; resume the jobs one by one" in result.err


def test_a_sweep_needs_the_flag_as_well(cli, own, monkeypatch):
    assert cli("run", "-m", "model=own", "run_dir=sweep", "steps=2", "seed=0,1", "data.inputs=4").code == 0
    forget(*own)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    result = cli("resume", "../sweep", "steps=3")
    assert result.code == 2
    assert "--trust-code" in result.err
    result = cli("resume", "../sweep", "steps=3", "--trust-code")
    assert result.code == 0, result.err
    run = Run(Path("../sweep/001"))
    assert (run.status["step"], len(run.status["code"])) == (3, 2)


def test_resume_true_wants_the_same_modules(cli, own):
    words = ("run", "model=own", "run_dir=run", "resume=true", "data.inputs=4")
    Path(f"{own[1]}.py").write_text("WIDTH = 8\n")
    result = cli(*words, "steps=3")
    assert result.code == 2
    assert "has changed since the run started" in result.err


def test_what_lies_in_the_working_directory_shadows_nothing(tmp_path):
    """Also when started as `python -m trainer`, which puts that directory first."""
    Path("yaml.py").write_text("raise SystemExit('shadowed')\n")
    assert os.system(f"{sys.executable} -m trainer list model > out 2>&1") == 0
    assert "two_layer" in Path("out").read_text()
