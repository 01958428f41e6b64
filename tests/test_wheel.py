"""What one installs is whole: the wheel, without this checkout, trains from any directory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from trainer.commands import init
from trainer.version import __version__

ROOT = Path(__file__).parents[1]


def call(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_config_and_module(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"trainer/configs/{p.relative_to(ROOT / 'configs')}" for p in (ROOT / "configs").rglob("*.yaml")}
    example = {f"trainer/examples/my_model/{name}" for name in init.FILES}
    modules = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src").rglob("*.py")}
    modules |= {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src").rglob("commands/*.txt")}
    assert names >= configs | example | modules | {"trainer/py.typed"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests", "scripts")) for name in names)


def test_the_installed_wheel_trains_and_resumes_in_another_directory(wheel, tmp_path):
    environment = tmp_path / "environment"
    call(sys.executable, "-m", "venv", "--without-pip", environment)
    # The packages of this environment are visible there, its editable install of the project is not.
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = environment / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = environment / "bin" / "trainer"
    call(command, "run", "model=dynamic", "optim=sgd_momentum", "steps=3", cwd=elsewhere)
    call(command, "resume", "last", "steps=5", cwd=elsewhere)
    (run,) = (elsewhere / "runs").glob("2*")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 5
    pressed = "COMP_LINE='trainer run model=nu' COMP_POINT=20; _trainer; echo $COMPREPLY"
    assert call("bash", "-c", f'eval "$({command} completion bash)"; {pressed}', cwd=elsewhere) == "numpy\n"
    call(command, "init", "first", cwd=elsewhere)
    assert all((elsewhere / "first" / name).is_file() for name in init.FILES)
    assert "numpy" in call(command, "list", "model", cwd=elsewhere)
    source = (ROOT / "src/trainer/models/function_net.py").read_text()
    shown = call(command, "ladder", "--source", "function", cwd=elsewhere)
    assert "class " in shown
    assert {line[2:] for line in shown.splitlines() if line.startswith("+ ")} <= set(source.splitlines())
    for words, candidate in (("run --", "--dry-run"), ("ladder --source ", "function"), ("run optim=", "optim=adam")):
        assert candidate in call(command, "completion", "fish", "--", *words.split(" "), cwd=elsewhere)
    call(command, "run", "experiment=my_experiment", "steps=2", cwd=elsewhere / "first")


def test_the_commands_of_the_installation_page_install_it(tmp_path):
    """They run as the page shows them, but take packages from this environment and not from an index."""
    for name in ("src", "configs", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE | re.DOTALL)
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **offline, "HOME": str(tmp_path), "PATH": path, "PYTHONPATH": ""}
    done = subprocess.run(
        ["bash", "-ec", "".join(blocks)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(blocks) == 2
    assert done.stdout.splitlines()[-1] == f"trainer {__version__}"
    (built,) = (tmp_path / "dist").iterdir()
    assert built.name in (ROOT / "docs" / "install.md").read_text()
