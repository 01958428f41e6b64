"""Runs that somebody hostile has sent: whatever command opens them, nothing of theirs is executed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from instants import content, train_and_copy

from trainer import fit
from trainer.errors import UsageError
from trainer.terminal.completion import after

CANARY = "executed"
EVIL = f"open({CANARY!r}, 'w').close()\nfrom torch import nn, optim\n"
TINY = ("model=mlp", "data.samples=8", "data.inputs=3", "data.outputs=1", "checkpoint.every=1")
IMPORTING = (  # commands that would build the model of run X
    ("eval", "X"),
    ("predict", "X", "--row", "1,2,3"),
    ("export", "X", "--format", "safetensors"),
    ("inspect", "X"),
    ("show", "X", "--parameters"),
    ("reproduce", "X"),
    ("resume", "X", "steps=5"),
    ("run", "run_dir=X", "resume=true"),
)
LOOKING = (  # commands that import nothing, and must work
    ("runs", "."),
    ("runs", "X"),
    ("show", "X"),
    ("show", "X", "--json"),
    ("plot", "X", "-o", "curve.csv"),
    ("compare", "X", "good"),
    ("verify", "X"),
    ("trust", "X", "--dry-run"),
    ("trust", ".", "--dry-run"),
    ("list",),
    ("list", "model"),
    ("eval", "--help"),
)


def config(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change config.yaml, and status.json with it, as one who wants to be believed would."""
    settings = yaml.safe_load((run / "config.yaml").read_text())
    change(settings)
    (run / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    status(run, config=settings)


def status(run: Path, **change: Any) -> None:
    told = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**told, **change}))


def target(run: Path, name: str, group: str = "model") -> None:
    config(run, lambda settings: settings[group].update(_target_=name))


def vouched(run: Path, *sources: Path) -> None:
    """Let status.json hold the SHA-256 of sources under every name that they could have."""
    sums = {}
    for source in sources:
        sum_ = hashlib.sha256(source.read_bytes()).hexdigest()
        sums |= {str(source): sum_, source.name: sum_, f"{run.name}/{source.name}": sum_}
    status(run, code=sums)


def beside(run: Path) -> None:
    (run / "payload.py").write_text(EVIL)
    (run / "__init__.py").write_text(EVIL)
    target(run, "X.payload.Net")
    vouched(run, run / "payload.py")


def sibling(run: Path) -> None:
    Path("runs/helper").mkdir(parents=True)
    Path("runs/helper/evil.py").write_text(EVIL)
    target(run, "runs.helper.evil.Net")
    vouched(run, Path("runs/helper/evil.py"))


def kept(run: Path, name: str = "evil") -> None:
    (run / "code").mkdir()
    (run / f"code/{name}.py").write_text(EVIL + "class Net(nn.Linear): pass\n")
    target(run, f"{name}.Net")
    status(run, code={f"{name}.py": hashlib.sha256((run / f"code/{name}.py").read_bytes()).hexdigest()})


def kept_and_here(run: Path) -> None:
    kept(run)
    shutil.copy(run / "code/evil.py", "evil.py")


def compiled(run: Path) -> None:
    kept(run)
    (run / "code/evil.py").unlink()
    (run / "code/evil.so").write_bytes(b"\x7fELF")
    (run / "code/__pycache__").mkdir()
    (run / "code/__pycache__/evil.cpython-311.pyc").write_bytes(b"\0" * 16)


def logger(run: Path) -> None:
    Path("evil.py").write_text(EVIL)
    config(run, lambda settings: settings.update(logger={"evil": {"_target_": "evil.Logger"}}))
    vouched(run, Path("evil.py"))


def segment(run: Path) -> None:
    """An earlier stretch of the run names the class, which only repeating it would need."""
    Path("evil.py").write_text(EVIL)
    told = json.loads((run / "status.json").read_text())
    first = {**told["segments"][0], "config": {**told["config"], "model": {"_target_": "evil.Net"}}}
    status(run, segments=[first, {**told["segments"][0], "from_step": 2}])


ATTACKS: dict[str, Callable[[Path], None]] = {
    "a module beside config.yaml": beside,
    "a module in a sibling folder": sibling,
    "the standard library": lambda run: target(run, "venv.__main__.Net"),
    "an installed package": lambda run: target(run, "hydra._internal.utils._get_cls_name"),
    "a module in code/": kept,
    "a module in code/ and the same here": kept_and_here,
    "compiled code": compiled,
    "a logger": logger,
    "an optimizer": lambda run: target(run, "this.Optimizer", "optim"),
    "an earlier segment": segment,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_command_executes_what_a_run_brings(cli, attack):
    train_and_copy(cli, *TINY, "model.sizes=[4]", good=3)
    shutil.copytree("good", "X")
    ATTACKS[attack](Path("X"))
    imported = {*sys.modules}
    before = content(Path("X"))
    for words in IMPORTING:
        result = cli(*words)
        assert not list(Path().rglob(CANARY)), words
        assert result.code == 2, (words, result.out, result.err)
        assert result.err.splitlines()[-1].startswith("error: "), words
    for words in LOOKING:
        result = cli(*words)
        assert not list(Path().rglob(CANARY)), words
        refused = ("verify", "trust") if attack == "compiled code" else ("verify",)
        assert result.code == 0 or words[0] in refused, (words, result.err)
        assert "Traceback" not in result.err, words
    with pytest.raises(UsageError):
        fit(resume="X", steps=5)
    for words in (["show", "X", ""], ["eval", ""], ["run", "model="]):
        after(words)
    assert not list(Path().rglob(CANARY))
    new = {*sys.modules} - imported
    assert not {name for name in new if name.split(".")[0] in ("evil", "X", "runs", "venv", "this")}
    assert content(Path("X")) == before


@pytest.mark.parametrize("launcher", ["local", "processes", "vectorized", "joblib", "basic"])
@pytest.mark.parametrize("attack", ["a module in code/ and the same here", "the standard library"])
def test_no_launcher_executes_what_a_sweep_brings(cli, attack, launcher):
    words = ("model=mlp", "model.sizes=[4]", "data.samples=8", "data.inputs=3", "steps=2", "seed=0,1")
    assert cli("run", "-m", "run_dir=sweep", f"hydra/launcher={launcher}", *words).code == 0
    ATTACKS[attack](Path("sweep/001"))
    for more in ((), ("hydra/launcher=local",)):
        result = cli("resume", "sweep", "steps=3", *more)
        assert not list(Path().rglob(CANARY))
        assert result.code == 2
        assert "evil.Net" in result.err or "venv.__main__.Net" in result.err
    assert cli("show", "sweep").code == cli("runs", "sweep").code == 0


def test_a_flag_that_was_given_once_is_needed_again(cli, own_part, stranger):
    net = (
        "class Part(nn.Linear):\n    def __init__(self, inputs, outputs):\n        super().__init__(inputs, outputs)\n"
    )
    own_part("model", "net", EVIL + net, "inputs: null\noutputs: null\n")
    assert cli("run", "run_dir=X", "model=net", "data.inputs=3", "steps=2").code == 0
    Path("own_net.py").unlink()
    stranger()
    for flags, executes in ((), False), (("--trust-code",), True), ((), False):
        Path(CANARY).unlink()  # it was there, so a canary means something
        sys.modules.pop("own_net", None)
        result = cli("resume", "X", "steps=3", *flags)
        assert (result.code == 0, Path(CANARY).exists()) == (executes, executes), result.err
        Path(CANARY).touch()


@pytest.mark.parametrize("key", ["monitor", "name", "init_from", "run_dir", "mode"])
def test_nothing_is_interpolated_in_a_stored_configuration(cli, key, monkeypatch):
    monkeypatch.setenv("PRIVATE", "the-secret-value")
    train_and_copy(cli, "data.validation=0.25", X=3)
    config(Path("X"), lambda settings: settings.update({key: "${oc.env:PRIVATE}"}))
    for words in (*IMPORTING, *LOOKING):
        result = cli(*words)
        assert "the-secret-value" not in result.out + result.err, words
    assert cli("resume", "X", "steps=5").code == 2


def test_a_command_that_is_printed_is_quoted(cli):
    train_and_copy(cli, "data.inputs=3", X=3)
    helps = [{"words": {"optim.lr": "1e-3; touch OWNED", "x; touch OWNED": "1"}, "text": "this helps"}]
    good = [{"words": {"optim.lr": "1e-3; touch OWNED"}, "text": "this helps"}]
    for told in (helps, good):
        failed = {"step": 2, "from_step": 0, "helps": told}
        status(Path("X"), state="failed", error="the loss is not finite", diagnosis=failed)
        for flag in ((), ("--json",)):
            assert cli("show", "X", *flag).code == 0
        printed = cli("show", "X").out
        assert "OWNED" not in re.sub(r"'[^']*'", "", printed), printed
    assert "'optim.lr=1e-3; touch OWNED'" in printed
    assert not Path("OWNED").exists()
    assert os.listdir("X")


@pytest.mark.parametrize("launcher", ["local", "processes", "vectorized", "joblib", "basic"])
def test_configs_in_a_sweep_are_not_its_launcher(cli, launcher, monkeypatch):
    """Standing in a sweep makes its folder the one whose ./configs are read."""
    words = ("data.inputs=3", "steps=2", "seed=0,1", f"hydra/launcher={launcher}")
    assert cli("run", "-m", "run_dir=sweep", *words).code == 0
    for state in Path("sweep").glob("*/status.json"):
        state.write_text(state.read_text().replace('"done"', '"waiting"'))
    monkeypatch.chdir("sweep")
    Path("configs/hydra/launcher").mkdir(parents=True)
    Path("site").mkdir()
    Path("site/x.pth").write_text(f"import os; open({str(Path(CANARY).absolute())!r}, 'w').close()\n")
    ours = {"local": "Local", "processes": "Processes", "vectorized": "Vectorized"}
    target = f"_target_: trainer.launchers.{ours.get(launcher, 'Local')}\n"
    Path(f"configs/hydra/launcher/{launcher}.yaml").write_text(f"defaults:\n  - evil\n  - _self_\n{target}")
    Path("configs/hydra/launcher/local.yaml").write_text(f"defaults:\n  - evil\n  - _self_\n{target}")
    Path("configs/hydra/launcher/evil.yaml").write_text("x:\n  _target_: site.addsitedir\n  sitedir: site\n")
    for more in (), ("hydra/launcher=local",):
        assert cli("resume", ".", *more).code == 0
    shutil.rmtree("configs/hydra")
    Path("configs/schema.yaml").write_text("logger:\n  evil:\n    _target_: evil.Logger\n")
    assert "configs/schema.yaml: has the name of a file of trainer's" in cli("resume", ".", "steps=6", "logger=csv").err
    assert not Path(CANARY).exists()


OWN_LOGGER = "from trainer.loggers import Csv\nclass Part(Csv):\n    pass\n"


@pytest.mark.parametrize("launcher", [None, "local", "processes", "joblib"])
def test_what_lies_in_code_is_not_vouched_for_by_a_section_that_is_typed(cli, own_part, launcher, monkeypatch):
    """A run without code of its own brings modules of names that are imported late, or not here, with right sums."""
    own_part("logger", "mine", OWN_LOGGER)
    words = ("data.inputs=3", "steps=2", "run_dir=X")
    sweep = () if launcher is None else ("-m", "seed=0,1", f"hydra/launcher={launcher}")
    assert cli("run", *sweep, *words).code == 0
    for run in [Path("X")] if launcher is None else [Path("X/000"), Path("X/001")]:
        for name in ("stray_absent", "sklearn/datasets/_late", "own_mine"):
            file = run / f"code/{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(OWN_LOGGER if name == "own_mine" else EVIL)
        sums = {str(p.relative_to(run / "code")): hashlib.sha256(p.read_bytes()).hexdigest() for p in run.rglob("*.py")}
        status(run, code=sums)
    result = cli("resume", "X", "logger=mine", "steps=4")
    assert result.code == 0, result.err
    for run in [Path("X")] if launcher is None else [Path("X/000"), Path("X/001")]:
        assert [*content(run / "code")] == ["own_mine.py"]
        assert {*json.loads((run / "status.json").read_text())["code"]} == {"own_mine.py"}
    assert not list(Path().rglob(CANARY))


def test_a_name_of_pythons_own_in_code_is_refused(cli):
    train_and_copy(cli, *TINY, "model.sizes=[4]", X=3)
    (Path("X/code/venv")).mkdir(parents=True)
    Path("X/code/venv/__main__.py").write_text("class Net: pass\n")
    target(Path("X"), "venv.__main__.Net")
    sum_ = hashlib.sha256(Path("X/code/venv/__main__.py").read_bytes()).hexdigest()
    status(Path("X"), code={"venv/__main__.py": sum_})
    for words, code in (("eval", "X"), 2), (("eval", "X", "--trust-code"), 2), (("trust", "X"), 1):
        result = cli(*words)
        assert result.code == code
        assert "has the name of a standard library module" in result.err


@pytest.mark.parametrize("sweep", [False, True])
def test_what_status_json_repeats_is_laundered_by_no_resume(cli, sweep):
    """Neither is a class that only status.json names executed, nor does it come onto the list."""
    extra = ("-m", "seed=0,1") if sweep else ()
    assert cli("run", *extra, "run_dir=X", "data.inputs=3", "steps=2").code == 0
    run = Path("X/000") if sweep else Path("X")
    told = json.loads((run / "status.json").read_text())
    status(run, config={**told["config"], "model": {"_target_": "this.X"}})
    before = {*sys.modules}
    for words in (("resume", "X", "steps=4"), ("reproduce", "X"), ("resume", "X", "steps=4", "--trust-code")):
        assert cli(*words).code == 2, words
    assert "this" not in {*sys.modules} - before
    assert not [file for file in Path(os.environ["XDG_STATE_HOME"]).rglob("*") if file.is_file()]


def test_a_status_of_other_kinds_is_shown_as_far_as_it_goes(cli):
    train_and_copy(cli, "data.validation=0.25", "data.inputs=3", good=3)
    shutil.copytree("good", "X")
    told = json.loads(Path("X/status.json").read_text())
    best = {"step": 1, "metric": "validation_loss", "value": 0.5}
    for change in ({"logger": "x"}, {"logger": 1e30}, {"mode": {}}, {"mode": [1]}, {"checkpoint": 5}, {"device": None}):
        status(Path("X"), config={**told["config"], **change}, best=best)
        for words in (("show", "X"), ("show", "X", "--json"), ("compare", "X", "good"), ("runs", "."), ("verify", "X")):
            result = cli(*words)
            assert result.code in (0, 1), (change, words, result.err)


def test_an_array_that_unpacks_to_far_more_than_the_file_is_refused(refused):
    zeros = np.zeros(2**25 + 2**22)
    np.savez_compressed("bomb.npz", x=zeros, y=np.zeros(4))
    words = ("run", "data=npz", "data.path=bomb.npz", "model=mlp", "run_dir=run")
    assert "x.npy unpacks to 301,990,016 bytes" in refused(*words)


def test_a_launcher_of_very_many_processes_is_not_taken_from_a_sweep(cli, stranger):
    assert cli("run", "-m", "run_dir=X", "steps=2", "seed=0,1", "hydra/launcher=joblib").code == 0
    sweep = json.loads(Path("X/sweep.json").read_text())
    sweep["launcher"]["overrides"].append("hydra.launcher.n_jobs=5000")
    Path("X/sweep.json").write_text(json.dumps(sweep))
    assert "hydra.launcher.n_jobs=5000: is a launcher that could run anything" in cli("resume", "X", "steps=3").err
