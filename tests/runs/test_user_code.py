"""The user's own modules: kept with the run, imported from what was kept, and only if their user vouches for them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import Run
from instants import at_every_change, content, ending

from trainer.launch import sweep

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


def trusted() -> set[str]:
    """The digests that are on the list of whoever calls commands now."""
    return {file.name for file in Path(os.environ["XDG_STATE_HOME"]).rglob("*") if file.is_file()}


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
    assert result.err.startswith(f"error: {Path(own[1]).absolute()}.py: differs from the copy that the run keeps")
    assert "`trainer resume run steps=3 --force`" in result.err
    assert content(Path("run")) == before
    result = cli("resume", "run", "steps=3", "--force")
    assert result.code == 0
    warning = f"warning: {Path(own[1]).absolute()}.py differs from the copy that the run keeps: results may differ"
    assert warning in result.err
    assert Path(f"run/code/{own[1]}.py").read_text() == "WIDTH = 7  # as before\n"
    forget(*own)
    assert cli("resume", "run", "steps=4").code == 0


@pytest.mark.parametrize(
    "words",
    ["eval run", "inspect run", "show run --parameters", "predict run --row=1,2,3,4", "export run --format pt2"],
)
def test_each_command_warns_of_a_changed_module_that_it_uses(cli, own, words):
    Path(f"{own[1]}.py").write_text("WIDTH = 7  # as before\n")
    command, run, *flags = words.split()
    result = cli(command, run, "--force", *flags)
    assert result.code == 0, result.err
    assert f"warning: {Path(own[1]).absolute()}.py differs from the copy that the run keeps" in result.err


def test_the_copies_of_a_changed_module_can_be_used(cli, own):
    shutil.copytree("run", "kept")
    assert cli("resume", "kept", "steps=3").code == 0
    forget(*own)
    Path(f"{own[1]}.py").write_text("WIDTH = 9\n")
    assert cli("resume", "run", "steps=3", "--trust-code").code == 0
    assert ending("run") == ending("kept")
    assert Path(f"run/code/{own[1]}.py").read_text() == "WIDTH = 7\n"


def test_a_run_of_ones_own_opens_wherever_it_lies(cli, own, monkeypatch):
    Path("elsewhere").mkdir()
    Path("run").rename("moved")
    monkeypatch.chdir("elsewhere")
    assert cli("resume", "../moved", "steps=3").code == 0
    assert not list(Path("../moved/code").rglob("*.pyc"))
    assert str(Path.cwd()) not in sys.path
    assert not any(folder.endswith("code") for folder in sys.path)


def test_a_run_of_somebody_elses_needs_the_flag_each_time(cli, own, stranger):
    stranger()
    for steps in (3, 4):
        result = cli("resume", "run", f"steps={steps}")
        assert result.code == 2
        assert f"read run/code/{own[0]}.py, run/code/{own[1]}.py first" in result.err
        assert f"`trainer resume run steps={steps} --trust-code` runs it once" in result.err
        assert "`trainer trust run`" in result.err
        assert cli("resume", "run", f"steps={steps}", "--trust-code").code == 0
        forget(*own)
    assert trusted() == set()


def test_a_module_of_that_name_is_not_enough(cli, own, monkeypatch):
    """Neither is it executed, where the run is one's own, nor does it vouch for one that is not."""
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    Path(f"{own[0]}.py").write_text("raise SystemExit('never imported')\n")
    result = cli("resume", "../run", "steps=3")
    assert result.code == 2
    assert result.err.startswith(f"error: {Path.cwd() / own[0]}.py: differs")
    assert "never imported" not in result.err
    assert cli("resume", "../run", "steps=3", "--trust-code").code == 0


def test_what_a_run_claims_is_no_proof(cli, own, stranger, monkeypatch):
    """Sums of its own, modules beside it that are the very same, or standing in its directory."""
    stranger()
    status = json.loads(Path("run/status.json").read_text())
    for code in ({}, {f"{own[1]}.py": status["code"][f"{own[1]}.py"]}, {f"../{own[0]}.py": "0"}):
        Path("run/status.json").write_text(json.dumps({**status, "code": code}))
        assert "--trust-code" in cli("resume", "run", "steps=3").err
    shutil.copytree("run/code", "run", dirs_exist_ok=True)
    monkeypatch.chdir("run")
    assert "--trust-code" in cli("resume", ".", "steps=3").err


def test_any_change_of_the_code_is_another_code(cli, own):
    """A module, an argument, a class that an earlier segment names: the list no longer has it."""
    config, status = Path("run/config.yaml"), Path("run/status.json")
    before, segments = config.read_text(), status.read_text()
    for text in (before.replace("inputs: 4", "inputs: 5"), before.replace(f"{own[0]}.Net", f"{own[1]}.Net")):
        assert text != before
        config.write_text(text)
        assert "--trust-code" in cli("resume", "run", "steps=3").err
    config.write_text(before)
    told = json.loads(segments)
    told["segments"][0]["config"] = {"loss": {"_target_": "os.system"}}
    status.write_text(json.dumps(told))
    assert "os.system" in cli("reproduce", "run").err
    status.write_text(segments)
    Path("run/code/more.py").write_text("")
    assert "--trust-code" in cli("resume", "run", "steps=3").err
    Path("run/code/more.py").unlink()
    assert cli("resume", "run", "steps=3").code == 0


def test_the_flag_covers_only_what_came_with_the_run(cli, own, stranger):
    """Not what is installed here, which one could not have read beside the run."""
    stranger()
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace(f"{own[0]}.Net", "venv.__main__.Net"))
    result = cli("resume", "run", "steps=3", "--trust-code")
    assert result.code == 2
    assert "model._target_=venv.__main__.Net: is code that did not come with the run" in result.err
    assert "`trainer trust run`" in result.err


def test_trust_adds_a_run_to_the_list_for_good(cli, own, stranger):
    stranger()
    shown = cli("trust", "run", "--dry-run")
    assert (shown.code, f"{own[0]}.Net (inputs=4" in shown.out, trusted()) == (0, True, set())
    assert f"run/code/{own[1]}.py" in shown.out
    assert cli("trust", "run").code == 0
    assert len(trusted()) == 1
    assert cli("resume", "run", "steps=3").code == 0
    forget(*own)
    (told,) = json.loads(cli("trust", ".", "--forget", "--json").out)
    assert (told["trusted"], told["runs"], trusted()) == (False, ["run"], set())
    assert cli("resume", "run", "steps=4").code == 2


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda place: os.environ.pop("HOME"), "HOME is not set"),
        (lambda place: place.mkdir(parents=True) or place.chmod(0o777), "others can write to"),
        (lambda place: place.mkdir(parents=True) or os.chown(place, 12345, -1), "belongs to another user"),
        (lambda place: place.parent.mkdir(parents=True) or place.symlink_to("/tmp"), "is not a folder"),
        (lambda place: place.parent.parent.mkdir(parents=True) or place.parent.write_text(""), "is not a folder"),
    ],
    ids=["no home", "others may write", "another user's", "a link", "a file"],
)
def test_a_list_that_cannot_vouch_counts_as_none(cli, own, monkeypatch, spoil, why, tmp_path_factory):
    """Training goes on and says what that means for later."""
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    place = Path(os.environ["HOME"], ".local/state/trainer/trusted")
    if why == "belongs to another user" and os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    spoil(place)
    result = cli("run", "model=own", "run_dir=second", "steps=2", "data.inputs=4")
    assert result.code == 0
    assert why in result.err
    assert result.err.count("later commands will need --trust-code") == 1
    forget(*own)
    refused = cli("resume", "second", "steps=3")
    assert (refused.code, why in refused.err) == (2, True)
    assert cli("resume", "second", "steps=3", "--trust-code").code == 0


def test_nothing_is_noted_where_there_is_no_code_of_ones_own(cli):
    assert cli("run", "steps=2").code == 0
    assert trusted() == set()


def test_a_new_section_that_is_typed_joins_what_was_trusted(cli, own, own_part, stranger):
    own_part("schedule", "flat", "from trainer.schedules import Constant\nclass Part(Constant):\n    pass\n")
    before = trusted()
    assert cli("resume", "run", "steps=3", "schedule=flat").code == 0
    forget(*own, "own_flat")
    assert trusted() > before
    assert cli("resume", "run", "steps=4").code == 0
    forget(*own, "own_flat")
    stranger()
    assert cli("resume", "run", "steps=5", "schedule=flat").code == 2
    assert cli("resume", "run", "steps=5", "schedule=flat", "--trust-code").code == 0
    assert trusted() == set()


def test_a_lazy_import_takes_what_was_kept_or_nothing(cli, stranger):
    """A module that is imported inside a function is kept; one that was not does not come from the directory."""
    source = "from torch import nn\nclass Net(nn.Linear):\n    def forward(self, x):\n        import {}\n"
    source += "        return super().forward(x)\n"
    Path("own_lazy.py").write_text(source.format("own_later_1"))
    Path("own_later_1.py").write_text("")
    Path("configs/model").mkdir(parents=True)
    Path("configs/model/lazy.yaml").write_text("_target_: own_lazy.Net\nin_features: 4\nout_features: 1\n")
    words = ("run_dir=run", "steps=2", "data.inputs=4", "data.outputs=1")
    assert cli("run", "model=lazy", *words).code == 0
    assert {*Run(Path("run")).status["code"]} == {"own_lazy.py", "own_later_1.py"}
    forget("own_lazy", "own_later_1")
    before = _sum("run/code/own_lazy.py")
    Path("run/code/own_lazy.py").write_text(source.format("own_later_2"))
    status = Path("run/status.json")
    status.write_text(status.read_text().replace(before, _sum("run/code/own_lazy.py")))
    Path("own_later_2.py").write_text("open('executed', 'w')\n")
    stranger()
    Path("own_lazy.py").unlink()
    result = cli("eval", "run", "--trust-code")
    assert (result.code, Path("executed").exists()) == (1, False), result.err
    assert "own_later_2" in result.err
    forget("own_lazy", "own_later_1")


def _sum(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


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


def test_a_lost_status_does_not_make_code_unknown(cli, own):
    Path("run/status.json").write_text("{")
    assert cli("resume", "run", "steps=3").code == 0


def test_a_config_beside_the_run_is_not_the_runs(cli, own):
    Path("config.yaml").write_text("mine: 1\n")
    assert cli("resume", "run", "steps=3").code == 0


def test_a_module_that_is_gone_has_changed(cli, own):
    """The class is there in another form, and what it imported is not."""
    Path(f"{own[0]}.py").write_text(NET.format(parts="math").replace("WIDTH", "pi") + "\n")
    Path(f"{own[1]}.py").unlink()
    assert "differs from the copy that the run keeps" in cli("resume", "run", "steps=3").err


def test_a_copy_that_has_changed_is_not_trusted(cli, own):
    Path(f"run/code/{own[1]}.py").write_text("WIDTH = 8\n")
    problem = f"run/code/{own[1]}.py has changed: its SHA-256 differs"
    assert cli("resume", "run", "steps=3").code == 2
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


@pytest.mark.parametrize("launcher", ["local", "processes", "vectorized", "joblib"])
def test_a_sweep_imports_what_was_kept_wherever_it_runs(cli, own, stranger, monkeypatch, launcher):
    words = ("model=own", "run_dir=sweep", "steps=2", "seed=0,1", "data.inputs=4", f"hydra/launcher={launcher}")
    assert cli("run", "-m", *words).code == 0
    forget(*own)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert cli("resume", "../sweep", "steps=3").code == 0
    forget(*own)
    stranger()
    result = cli("resume", "../sweep", "steps=4")
    assert result.code == 2
    assert "--trust-code" in result.err
    assert "`trainer trust ../sweep`" in result.err
    result = cli("resume", "../sweep", "steps=4", "--trust-code")
    assert result.code == 0, result.err
    run = Run(Path("../sweep/001"))
    assert (run.status["step"], len(run.status["code"])) == (4, 2)


def test_a_worker_refuses_what_has_changed_since_it_was_checked(cli, own, monkeypatch):
    """Between the check and the start of a job, its configuration names another class."""
    assert cli("run", "-m", "model=own", "run_dir=sweep", "steps=2", "seed=0,1", "data.inputs=4").code == 0
    forget(*own)
    (Path("evil_late.py")).write_text("open('executed', 'w')\n")
    launch = sweep.train

    def change_then_launch(*arguments):
        config = Path("sweep/001/config.yaml")
        config.write_text(config.read_text().replace(f"{own[0]}.Net", "evil_late.Net"))
        return launch(*arguments)

    monkeypatch.setattr(sweep, "train", change_then_launch)
    result = cli("resume", "sweep", "steps=3")
    assert result.code == 1
    assert not Path("executed").exists()
    assert Run(Path("sweep/000")).status["state"] == "done"
    assert "has changed since it was checked" in Run(Path("sweep/001")).status["error"]


def test_a_launcher_of_somebody_elses_is_never_used(cli, stranger):
    words = ("run_dir=sweep", "steps=2", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.pre_dispatch=all")
    assert cli("run", "-m", *words).code == 0
    assert len(trusted()) == 1
    stranger()
    for flag in ((), ("--trust-code",)):
        result = cli("resume", "sweep", "steps=3", *flag)
        assert result.code == 2
        assert "hydra.launcher.pre_dispatch=all: is a launcher that could run anything" in result.err
        assert "hydra/launcher=local" in result.err
    assert cli("resume", "sweep", "steps=3", "hydra/launcher=local").code == 0
    assert Run(Path("sweep/001")).status["step"] == 3
    assert json.loads(Path("sweep/sweep.json").read_text())["launcher"]["overrides"] == ["hydra/launcher=local"]
    assert cli("resume", "sweep", "steps=4").code == 0


def test_a_launcher_of_ones_own_needs_no_flag(cli):
    words = ("run_dir=sweep", "steps=2", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.pre_dispatch=all")
    assert cli("run", "-m", *words).code == 0
    assert cli("resume", "sweep", "steps=3").code == 0


def test_resume_true_wants_the_same_modules(cli, own, stranger):
    """Its code is what is typed: no flag is needed, whoever types it."""
    stranger()
    words = ("run", "model=own", "run_dir=run", "resume=true", "data.inputs=4")
    assert cli(*words, "steps=3").code == 0
    assert trusted() == set()
    forget(*own)
    Path(f"{own[1]}.py").write_text("WIDTH = 8\n")
    result = cli(*words, "steps=4")
    assert result.code == 2
    assert "differs from the copy that the run keeps" in result.err


def test_resume_true_takes_no_code_that_was_not_typed(cli, own, stranger):
    """loss=auto stands for what the run has, which may be somebody else's."""
    stranger()
    config = Path("run/config.yaml")
    config.write_text(re.sub(r"loss:\n  _target_: .*", "loss:\n  _target_: evil_loss.Loss", config.read_text()))
    Path("evil_loss.py").write_text("open('executed', 'w')\n")
    result = cli("run", "model=own", "loss=auto", "run_dir=run", "resume=true", "data.inputs=4", "steps=3")
    assert (result.code, Path("executed").exists()) == (2, False)
    assert "evil_loss" in result.err


def test_what_lies_in_the_working_directory_shadows_nothing(tmp_path):
    """Also when started as `python -m trainer`, which puts that directory first."""
    Path("yaml.py").write_text("raise SystemExit('shadowed')\n")
    assert os.system(f"{sys.executable} -m trainer list model > out 2>&1") == 0
    assert "two_layer" in Path("out").read_text()


def test_resume_true_fills_in_widths_that_an_option_does_not_name(cli, own_part):
    net = "from torch import nn\nclass Part(nn.Linear):\n    def __init__(self, inputs, outputs):\n"
    own_part("model", "bare", f"{net}        super().__init__(inputs, outputs)\n")
    words = ("run", "model=bare", "data.inputs=3", "steps=2", "run_dir=run", "resume=true")
    assert cli(*words).code == 0
    assert cli(*words).code == 0


def test_a_module_that_is_no_python_is_no_obstacle(cli, own_part):
    """As one that is imported where that works, and else done without."""
    Path("own_legacy.py").write_text('print "two"\n')
    net = "from torch import nn\ntry:\n    import own_legacy\nexcept SyntaxError:\n    pass\n"
    net += (
        "class Part(nn.Linear):\n    def __init__(self, inputs, outputs):\n        super().__init__(inputs, outputs)\n"
    )
    own_part("model", "tolerant", net)
    assert cli("run", "model=tolerant", "data.inputs=3", "steps=2").code == 0


def test_a_launcher_config_of_ones_own_is_used(cli):
    Path("configs/hydra/launcher").mkdir(parents=True)
    target = "_target_: trainer.launch.launchers.Processes\nn_jobs: 1\n"
    Path("configs/hydra/launcher/mine.yaml").write_text(target)
    assert cli("run", "-m", "seed=0,1", "steps=2", "run_dir=sweep", "hydra/launcher=mine").code == 0
    assert cli("resume", "sweep", "steps=3").code == 0
    assert len(trusted()) == 1


def test_trust_shows_all_that_it_adds(cli, own, stranger):
    """Also classes that only an earlier segment names, beside another of the same group."""
    stranger()
    status = Path("run/status.json")
    told = json.loads(status.read_text())
    told["segments"][0]["config"] = {"model": {"_target_": "subprocess.Popen", "args": ["touch", "OWNED"]}}
    status.write_text(json.dumps(told))
    shown = cli("trust", "run", "--dry-run").out
    assert f"{own[0]}.Net" in shown
    assert "subprocess.Popen (args=['touch', 'OWNED'])" in shown
    assert re.search(r"not in code/: subprocess.Popen +.*subprocess.py", shown)


def test_trust_goes_on_after_a_run_that_cannot_be_read(cli, own, stranger):
    shutil.copytree("run", "bad")
    Path("bad/config.yaml").write_text("[")
    stranger()
    result = cli("trust", ".")
    assert (result.code, len(trusted())) == (1, 1)
    assert "warning: bad/config.yaml can't be read" in result.err


def test_a_module_finds_what_lies_beside_it(cli, own_part):
    net = "from pathlib import Path\nfrom torch import nn\nWIDTH = int(Path(__file__).with_name('width').read_text())\n"
    net += "class Part(nn.Linear):\n    def __init__(self, inputs, outputs):\n"
    own_part("model", "beside", f"{net}        super().__init__(inputs, outputs)\n", "inputs: null\noutputs: null\n")
    Path("width").write_text("3")
    assert cli("run", "model=beside", "data.inputs=3", "steps=2", "run_dir=run").code == 0
    forget("own_beside")
    assert cli("resume", "run", "steps=3").code == 0


def test_other_files_in_code_are_no_obstacle(cli, own):
    Path("run/code/__pycache__").mkdir()
    Path("run/code/__pycache__/x.cpython-311.pyc").write_bytes(b"")
    Path("run/code/.own.py.123").write_bytes(b"")
    assert cli("resume", "run", "steps=3").code == 0


@pytest.mark.parametrize("sweep", [False, True])
def test_a_run_opens_wherever_a_change_of_its_code_was_killed(cli, own, sweep):
    """After each change of the disk while a resume takes an edited module and another setting."""
    words = ("model=own", "steps=2", "data.inputs=4", "checkpoint.every=1")
    assert cli("run", *(("-m", "seed=0,1") if sweep else ()), "run_dir=base", *words).code == 0
    Path(f"{own[1]}.py").write_text("WIDTH = 7  # edited\n")
    instants = []

    def act() -> None:
        shutil.copytree("base", f"kill-{len(instants)}")
        instants.append(1)

    forget(*own)
    with at_every_change(act):
        assert cli("resume", "base", "steps=3", "model.inputs=4", "--force").code == 0
    assert len(instants) > 10
    for number in range(len(instants)):
        forget(*own)
        result = cli("resume", f"kill-{number}", "steps=3", "--force")
        assert result.code == 0, (number, result.err)
