"""A wrong word gives one line on stderr that names key, value and what is right; exit 2; nothing is created."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from instants import begin, content

from trainer.cli import main

# command: what its one line must hold
WRONG = {
    # commands
    "rum": ["rum: no such command", "did you mean `trainer run`"],
    "model=dynamic": ["did you mean `trainer run model=dynamic`"],
    # groups, options and keys
    "run modle=numpy": ["modle=numpy: no such setting", "did you mean model=numpy?"],
    "run model=dynamc": ["model=dynamc: no such model", "allowed: autograd, dynamic", "did you mean model=dynamic?"],
    "run dynamic": ["dynamic: is not key=value", "did you mean model=dynamic?"],
    "run device=gpu": ["device=gpu", "did you mean device=cuda?"],
    "run loss=ce": ["loss=ce", "did you mean loss=cross_entropy?"],
    "run optim=momentum": ["did you mean optim=sgd_momentum?"],
    "run experiment=digit": ["experiment=digit: no such experiment", "did you mean experiment=digits?"],
    "run model.hiden=5": ["model.hiden", "has no argument hiden", "did you mean model.hidden?"],
    "run +model.hiden=5": ["model.hiden", "did you mean model.hidden?"],
    "run foo=1": ["foo=1: no such setting", "allowed: accumulate, batch_size"],
    "run +foo=1": ["foo=1: no such setting"],
    "run ++foo.bar=1": ["foo.bar=1: no such setting"],
    "run stps=5": ["stps=5: no such setting", "did you mean steps=5?"],
    "run lr=0.1": ["did you mean optim.lr=0.1?"],
    "run LR=0.1": ["did you mean optim.lr=0.1?"],
    "run learning_rate=0.1": ["did you mean optim.lr=0.1?"],
    "run momentum=0.9": ["did you mean optim.momentum=0.9?"],
    "run hidden=9": ["did you mean model.hidden=9?"],
    "run checkpoint.evry=5": ["checkpoint.evry: no such setting", "did you mean checkpoint.every?"],
    "run checkpoint=5": ["checkpoint=5: is a section"],
    "run hydra.rum.dir=x": ["hydra.rum.dir: trainer does not use it"],
    "run hydra.run.dir=x": ["hydra.run.dir", "did you mean run_dir?"],
    "run -m seed=1,2 hydra/launcher=jobli": [
        "hydra/launcher=jobli: no such option",
        "did you mean hydra/launcher=joblib?",
    ],
    "run model=[1,2]": ["model takes the name of an option"],
    "run ~optim.lr": ["~optim.lr: settings can't be deleted"],
    "run ~model": ["~model: settings can't be deleted", "allowed: model=OPTION"],
    "run model=numpy=": ["model=numpy=: no such model", "did you mean model=numpy?"],
    "run model = numpy": ["model: has no value", "model=OPTION, without spaces"],
    "run exp=digits": ["did you mean experiment=digits?"],
    # values
    "run optim.lr=abc": ["optim.lr=abc: is not a number"],
    "run optim.lr=1e": ["optim.lr=1e: is not a number"],
    "run optim.lr=-1": ["optim.lr=-1", "nvalid learning rate"],
    "run optim.lr=nan": ["optim.lr=nan: is not finite"],
    "run optim.lr=inf": ["optim.lr=inf: is not finite"],
    "run optim.lr=null": ["optim.lr=null: needs a value", "a number"],
    "run optim.lr=???": ["optim.lr: has no value; add optim.lr=VALUE"],
    "run optim.lr=[1,2]": ["optim.lr=[1,2]: is not a number"],
    "run optim.lr.foo=3": ["optim.lr is a value, not a section"],
    "run steps=0": ["steps=0: is out of range", "at least 1"],
    "run steps=1.5": ["steps=1.5: is not a whole number"],
    "run steps=5 epochs=3": ["steps=5 epochs=3", "both set the length"],
    "run epochs=0": ["epochs=0: is out of range"],
    "run batch_size=0": ["batch_size=0: is out of range"],
    "run batch_size=100": ["batch_size=100", "64 training rows", "1 to 64"],
    "run seed=-1": ["seed=-1: is out of range", "at least 0"],
    "run seed=4294967296": ["seed=4294967296: is out of range", "4,294,967,295"],
    "run seed=True": ["seed=true: is not a whole number"],
    "run seed=null": ["seed=null: needs a value"],
    "run seed=[1,2]": ["seed=[1,2]: is not a whole number"],
    "run mode=middle": ["mode=middle: no such choice", "min, max"],
    "run clip_norm=0": ["clip_norm=0: is out of range", "above 0"],
    "run max_divergence=0": ["max_divergence=0: is out of range"],
    "run checkpoint.keep=0": ["checkpoint.keep=0: is out of range"],
    "run device.dtype=float16": ["device.dtype=float16: no such choice", "float32, float64, bfloat16"],
    "run device.index=3": ["device.index=3", "allowed: 0"],
    "run device.threads=0": ["device.threads=0: is out of range"],
    "run model.hidden=True": ["model.hidden=true: is not a whole number"],
    "run model.hidden=1000000000000": ["model.hidden=1000000000000: needs more memory", "4000000000000000 bytes"],
    "run model.init=uniform": ["model.init=uniform: no such choice", "linear, normal"],
    "run model.inputs=5": ["model.inputs=5", "1000 inputs"],
    "run model.outputs=5": ["model.outputs=5", "10 outputs"],
    "run data.validation=1.5": ["data.validation=1.5", "below 1"],
    "run data.validation=0.001": ["data.validation=0.001", "at least 1 of the 64 rows"],
    "run data.samples=0": ["data.samples=0", "at least 1"],
    "run model=mlp model.dropout=1.5": ["model.dropout=1.5"],
    "run run_dir=/dev/null": ["run_dir=/dev/null: is a file"],
    "run -m seed=1,2 run_dir=/proc/nope": ["run_dir=/proc/nope: can't be created"],
    "run run_dir=/proc/nope": ["run_dir=/proc/nope: can't be created"],
    # what does not go together
    "run monitor=validation_loss": ["monitor=validation_loss: needs validation data", "data.validation=0.2"],
    "run data.validation=0.25 monitor=accuracy": ["monitor=accuracy: no such metric", "validation_loss"],
    "run accumulate=2": ["accumulate=2: one batch holds all 64 rows", "batch_size below 64"],
    "run patience=3": ["patience=3: needs validation data"],
    "run mode=max": ["mode=max: needs validation data"],
    "run schedule=plateau": ["schedule=plateau: needs validation data"],
    "run schedule=warmup_cosine steps=50 schedule.warmup=100": ["schedule.warmup=100", "50 steps"],
    "run loss=cross_entropy": ["loss=cross_entropy data=random", "needs class targets"],
    "run model=product data=random": ["model=product data=random", "data=none"],
    "run data=none": ["model=two_layer data=none", "model=product"],
    "run model=numpy device.dtype=bfloat16": ["NumPy has no bfloat16"],
    # the grammar of words
    "run 'seed=[1,2'": ["the '[' at character 6 is unbalanced"],
    "run name=a=b": ["""did you mean \"name='a=b'\"?"""],
    "run 'name=~/x y'": ["""did you mean \"name='~/x y'\"?"""],
    "run seed=1 seed=2": ["seed: is given twice: seed=1 and seed=2"],
    "run seed=1 +seed=2": ["seed: is given twice"],
    "run seed=1,2": ["seed=1,2: several values; allowed: -m to run each\n"],
    "run model.sizes=1,2": ["model.sizes=1,2: several values", "-m to run each, or 'model.sizes=[1,2]' for one list"],
    "run 'seed=range(5)'": ["seed=range(5): several values; allowed: -m to run each\n"],
    "run -m seed=1,2 hydra.launcher.foo=1": ["foo"],
    "run -m seed=1,2 +hydra.launcher.foo=1": ["foo"],
    "run -m 'optim.lr=interval(1e-3,1e-1)'": ["optim.lr=interval(1e-3,1e-1)", "list the values"],
    "run -m optim.lr=": ["optim.lr=: has no value"],
    "run -m 'seed=range(0,20000)'": ["20,000 jobs", "max_jobs=20000"],
    "run 'name=${name}'": ["name", "ecursive interpolation"],
    "run 'name=${oc.env:NOT_SET_ANYWHERE}'": ["the environment variable NOT_SET_ANYWHERE is not set"],
    "run 'name=${foo.bar}'": ["name: Interpolation key 'foo.bar' not found"],
    # flags
    "run --foo": ["--foo: no such flag", "--multirun"],
    "run --model=numpy": ["--model=numpy: is a setting, not a flag", "did you mean model=numpy?"],
    "run --steps 5": ["--steps: is a setting, not a flag", "did you mean steps=VALUE?"],
    "resume last -m": ["-m: no such flag", "--force"],
    "list --foo": ["--foo: no such flag; allowed: --config-dir, --help, --json"],
    "run --experimental-rerun x": ["--experimental-rerun: no such flag"],
    "run --config-dir=/nope": ["--config-dir=/nope: no such folder"],
    "run --cfg": ["--cfg: needs a value"],
    # classes
    "run optim._target_=os.system": ["optim._target_=os.system: is not a class derived from torch.optim.Optimizer"],
    "run optim._target_=torch.optim.SDG": ["did you mean torch.optim.SGD?"],
    "run model._target_=foo.Bar": ["model._target_=foo.Bar: can't be imported"],
    "run model._target_=null": ["model: selects nothing"],
    # sweeps: found before the first job runs
    "run -m seed=1,2 optim.lr=1e-4,-1": ["job 1 (seed=1 optim.lr=-1): optim.lr=-1"],
    "run -m model=numpy,dynamc": ["model=dynamc: no such model"],
    # runs
    "resume": ["which run?"],
    "resume nope": ["nope: no such run"],
    "resume last": ["there are no runs here yet"],
    "run init_from=nope": ["nope: no such run"],
    "run resume=true": ["resume=true", "run_dir"],
    "list modle": ["modle", "model"],
}


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_word_is_answered_in_one_line(refused, command):
    line = refused(*shlex.split(command))
    for part in WRONG[command]:
        assert part in line


def damage(name: str, content: bytes | None) -> Callable[[], None]:
    """A finished run whose newest checkpoint has a file with another content, or lacks it; the status is lost."""

    def prepare() -> None:
        finished()
        for folder in Path("run/checkpoints").iterdir():
            (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        Path("run/status.json").unlink()

    return prepare


def finished() -> None:
    path = begin("run", "steps=2", "data.inputs=4", "model.hidden=3")
    assert main(["resume", str(path)]) == 0


def another_format() -> None:
    finished()
    for file in Path("run/checkpoints").glob("*/*.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "format": 7}))


def edited(text: str) -> Callable[[], None]:
    def prepare() -> None:
        finished()
        Path("run/config.yaml").write_text(text)

    return prepare


SMALLER = "data.inputs=4 model.hidden=3"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
# what is there, command: exit code and what the last line on stderr must hold
GIVEN: dict[tuple[Callable[[], object], str], tuple[int, list[str]]] = {
    (finished, "run run_dir=run"): (2, ["run_dir=run: exists and is not empty", "trainer resume run, or resume=true"]),
    (finished, "resume run"): (0, []),
    (finished, "resume run steps=1"): (2, ["steps=1: the run has already taken 2 steps", "steps=2 or more"]),
    (finished, "resume run model.hidden=9"): (
        2,
        ["model.hidden=9: would make it a different run (it has 3)", "--force"],
    ),
    (finished, "resume run --force model.hidden=9 steps=3"): (2, ["linear1.weight: [3, 4] in the checkpoint, [9, 4]"]),
    (finished, f"run {SMALLER} run_dir=run resume=true seed=5"): (2, ["seed=5: would make it a different run"]),
    (finished, "run init_from=run"): (
        2,
        ["init_from=run: the weights do not fit the model", "linear1.weight: [3, 4]", "[100, 1000]"],
    ),
    (finished, "resume rum"): (2, ["rum: no such run"]),
    (finished, "verify rum"): (2, ["rum: no such run"]),
    (damage("model.safetensors", b"x"), "resume run"): (2, ["run: none of its checkpoints is good", "--force"]),
    (damage("training.safetensors", None), "resume run"): (2, ["run: none of its checkpoints is good"]),
    (damage("model.safetensors", b"<html>"), "run init_from=run"): (2, ["model.safetensors has 6 bytes instead of"]),
    (damage("model.safetensors", LFS), "run init_from=run"): (2, ["model.safetensors has"]),
    (damage("training.safetensors", None), "run init_from=run"): (2, ["training.safetensors is missing"]),
    (another_format, "resume run steps=5"): (2, ["has format 7, but this version reads 1"]),
    (edited("seed: 1\n\tx: 2\n"), "resume run"): (2, ["run/config.yaml can't be read: line 2"]),
    (edited("sed: 1\n"), "resume run"): (2, ["sed: no such setting", "did you mean seed?"]),
    (edited("seed: [1\n"), "resume run"): (2, ["run/config.yaml can't be read: line 2"]),
    (edited(""), "resume run"): (2, ["run/config.yaml is not a configuration"]),
    (lambda: Path("run").mkdir(), "resume run"): (2, ["/run is not a run: it has no config.yaml"]),
    (lambda: Path("run").mkdir(), "run init_from=run"): (2, ["/run is not a run: it has no config.yaml"]),
    (lambda: Path("run").write_text(""), "run run_dir=run"): (2, ["run_dir=run: is a file"]),
    (lambda: Path("run").write_text(""), "run run_dir=run/run"): (2, ["run_dir=run/run: can't be created: Not a dir"]),
    (lambda: None, f"run run_dir={'x' * 256}"): (2, ["x: can't be created: File name too long"]),
    (lambda: None, f"run -m seed=0,1 run_dir={'x' * 256}"): (2, ["x: can't be created: File name too long"]),
    (lambda: None, "run 'name=\"a\tb\"'"): (2, ["name=a\\tb: holds a control character"]),
    (lambda: None, "run 'run_dir=\"a\x1bb\"'"): (2, ["run_dir=a\\x1bb: holds a control character"]),
    (lambda: None, "run model=mlp model.norm=batch data.samples=17 batch_size=16"): (
        2,
        ["last batch of an epoch has one of 17 rows"],
    ),
    (lambda: None, "run model=mlp 'model.sizes=[100000000000]'"): (
        2,
        ["model.sizes=[100000000000]: needs more memory"],
    ),
    (lambda: None, "run epochs=1e9 --dry-run"): (0, []),
}


@pytest.mark.parametrize(
    ("prepare", "command"), GIVEN, ids=[f"{number}: {command[:60]}" for number, (_, command) in enumerate(GIVEN)]
)
def test_in_a_situation_too(cli, capfd, prepare, command):
    code, parts = GIVEN[prepare, command]
    prepare()
    before = {name: data for name, data in content(Path()).items() if not name.endswith("lock")}
    result = cli(*shlex.split(command))
    assert result.code == code, result.err
    assert {name: data for name, data in content(Path()).items() if not name.endswith("lock")} == before
    if code:
        line = result.err.splitlines()[-1]
        assert line.startswith("error: ")
        for part in parts:
            assert part in line


def test_any_path_will_do(cli):
    for path in ("a b/it's", "-dash", "ü/日本", "x" * 200, "../up/there"):
        quoted = path.replace("'", "\\'")
        result = cli("run", f"run_dir='{quoted}'", "steps=1", "data.inputs=4", "model.hidden=3")
        assert result.code == 0, result.err
        following = next(line for line in result.out.splitlines() if "trainer resume" in line)
        assert cli(*shlex.split(following[following.index("resume") :])).code == 0
        assert Path(path, "config.yaml").exists()


def test_no_home_is_needed(cli, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    assert cli("run", "steps=1", "data.inputs=4").code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("model=NUMPY optim=Adam", {"model": "numpy", "optim": "adam"}),
        ("steps=1e0", {}),
        ("+steps=1", {}),
        ("optim.weight_decay=1e-3 'optim.nesterov=false'", {}),
        ("""'name="~/x [y] é=,"'""", {}),
    ],
)
def test_what_people_mean_is_accepted(train, words, expected):
    run = train("steps=1" if "steps" not in words else "seed=0", *shlex.split(words))
    assert run.status["choices"].items() >= expected.items()
    assert run.status["step"] == 1


def test_a_rate_of_zero_is_warned_of(cli):
    result = cli("run", "steps=1", "optim.lr=0")
    assert result.code == 0
    assert "optim.lr=0: the weights will not change" in result.err


def config_file(folder: Path, text: str | bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.mark.parametrize(
    ("group", "text", "parts"),
    [
        ("optim", "_target_: torch.optim.SGD\n\tlr: 1\n", ["mine.yaml", "line 2"]),
        ("optim", "_target_: torch.optim.SGD\nlr: 1\nlr: 2\n", ["mine.yaml", "duplicate key lr", "line 3"]),
        ("optim", b"_target_: torch.optim.SGD # \xff\n", ["mine.yaml", "UTF-8"]),
        ("optim", "", ["mine.yaml: has no _target_"]),
        ("optim", "lr: 1\n", ["mine.yaml: has no _target_"]),
        ("optim", "- lr\n", ["mine.yaml: is a list"]),
        ("optim", "lr: [1\n", ["mine.yaml", "line"]),
        ("optim", "_target_: torch.optim.SGD\nlr: -1\n", ["optim.lr=-1: ", "(in configs/optim/mine.yaml)"]),
        ("optim", "_target_: torch.optim.SGD\nlr: ???\n", ["optim.lr: has no value; add optim.lr=VALUE"]),
        ("optim", "_target_: torch.optim.SGD\nrate: 1\n", ["optim.rate", "SGD has no argument rate"]),
        ("experiment", "steps: 5\n", ["mine.yaml", "# @package _global_"]),
        (
            "experiment",
            "# @package _global_\nstepz: 5\n",
            ["stepz: no such setting", "(in configs/experiment/mine.yaml)"],
        ),
        (
            "experiment",
            "# @package _global_\nmodel: mlp\n",
            ["model=mlp: is the name of an", "- override /model: mlp"],
        ),
        (
            "experiment",
            "# @package _global_\ndefaults:\n  - model: mlp\n",
            ["mine.yaml: has the entry {model:mlp} in its defaults", "- override"],
        ),
        (
            "experiment",
            "# @package _global_\ndefaults:\n  - override /modle: mlp\n",
            ["mine.yaml: has the entry {override /modle:mlp}"],
        ),
        (
            "experiment",
            "# @package _global_\nsteps: 0\n",
            ["steps=0: is out of range", "(in configs/experiment/mine.yaml)"],
        ),
    ],
)
def test_a_broken_config_file_is_answered_in_one_line(refused, group, text, parts):
    config_file(Path("configs", group), text)
    line = refused("run", f"{group}=mine")
    for part in parts:
        assert part in line


def test_a_typed_value_is_not_blamed_on_a_file(refused):
    config_file(Path("configs/optim"), "_target_: torch.optim.SGD\nlr: 1\n")
    assert "mine.yaml" not in refused("run", "optim=mine", "optim.lr=-1")


@pytest.mark.parametrize("place", ["configs/data/mine.yml", "configs/datas/mine.yaml"])
def test_a_file_in_the_wrong_place_is_pointed_at(refused, place):
    Path(place).parent.mkdir(parents=True)
    Path(place).write_text("_target_: trainer.data.Random\n")
    assert f"move {place} to configs/data/mine.yaml" in refused("run", "data=mine")


def test_a_shadowed_file_is_warned_of(cli):
    config_file(Path("configs/optim"), "_target_: torch.optim.SGD\n")
    Path("configs/optim/mine.yaml").rename("configs/optim/sgd.yaml")
    result = cli("run", "steps=1")
    assert result.code == 0
    assert "sgd.yaml is ignored: the shipped optim=sgd has the same name" in result.err


def test_an_existing_directory_is_not_written_to(cli, train):
    run = train("steps=1", name="here")
    before = run.bits()
    result = cli("run", "run_dir=here", "steps=2")
    assert result.code == 2
    assert "run_dir=here: exists and is not empty" in result.err
    assert "trainer resume here" in result.err
    assert run.bits() == before


def test_an_error_in_ones_own_code_names_its_line(refused, own_part):
    source = (
        "from torch import nn\n\n\nclass Part(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.inner = nn.Linear(1000, 10)\n\n    def forward(self, x):\n        return self.inner(x[0][0])\n"
    )
    own_part("model", "failing", source)
    assert "(own_failing.py, line 10)" in refused("run", "model=failing")


def test_a_sweep_is_no_start(cli, refused):
    assert cli("run", "-m", "seed=0,1", "steps=1", "run_dir=both").code == 0
    assert "init_from=both: is a sweep of several jobs; allowed: init_from=both/best, init_from=both/000" in refused(
        "run", "init_from=both"
    )


def test_the_traceback_is_shown_on_demand(cli, monkeypatch):
    monkeypatch.setenv("TRAINER_TRACEBACK", "1")
    result = cli("run", "steps=0")
    assert result.code == 2
    assert result.err.startswith("Traceback")
    assert result.err.splitlines()[-1].startswith("error: steps=0: is out of range")


def test_a_module_that_does_not_compile_is_answered_in_one_line(cli):
    Path("configs/model").mkdir(parents=True)
    Path("configs/model/mine.yaml").write_text("_target_: my_broken_module.Net\n")
    Path("my_broken_module.py").write_text("class Net(:\n")
    result = cli("run", "model=mine")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "model._target_=my_broken_module.Net: can't be imported: SyntaxError" in result.err
    assert not Path("runs").exists()
