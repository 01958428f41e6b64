"""`trainer explain`: what it says of a setting is what the composition does and what stands in the files."""

from __future__ import annotations

import importlib
import inspect
import io
import itertools
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from trainer.config import arguments, docstrings
from trainer.config.catalog import GROUPS, Catalog
from trainer.config.compose import compose_jobs
from trainer.config.settings import Settings
from trainer.terminal import screen

ROOT = Path(__file__).parents[2]
COMPONENTS = ("model", "data", "loss", "optim", "schedule")
SHIPPED = {group: sorted(file.stem for file in (ROOT / "configs" / group).glob("*.yaml")) for group in GROUPS}
# Every experiment and every option of every group, side by side.
TYPED = [
    [f"{group}={name}" for group, name in zip(GROUPS, options, strict=True) if name]
    for options in itertools.zip_longest(*SHIPPED.values())
]
MORE = [
    "experiment=digits",
    "experiment=digits model=two_layer optim.lr=1e-5 device.threads=2 steps=1e3 checkpoint={every:5,keep:1}",
    "experiment=first_network model=product epochs=3 +optim.dampening=0.5 ++name=x",
]


@pytest.fixture
def explained(cli):
    """What `trainer explain ... --json` says."""

    def call(*typed):
        result = cli("explain", *typed, "--json")
        assert (result.code, result.err) == (0, "")
        return json.loads(result.out)

    return call


@pytest.fixture
def told(cli):
    """The lines of `trainer explain ...`, their spaces made one."""

    def call(*typed):
        result = cli("explain", *typed)
        assert (result.code, result.err) == (0, "")
        return [" ".join(line.split()) for line in result.out.splitlines()]

    return call


def composed(*typed):
    """The job that `trainer run` would begin with these words."""
    split = arguments.split(list(typed))
    catalog = Catalog()
    (job,) = compose_jobs(arguments.jobs(split, catalog), catalog)
    return job


def flat(tree, prefix=""):
    """Nested settings by dotted key."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def line_of(file, pattern):
    """The number of the only line of a file that has a pattern."""
    (found,) = [n for n, line in enumerate(Path(file).read_text().splitlines(), 1) if re.search(pattern, line)]
    return found


def stands_at(key, place):
    """The value that a setting has in a line that is said to set it."""
    line = Path(place["file"]).read_text().splitlines()[place["line"] - 1].strip()
    if place["file"].endswith(".py"):
        assert re.match(rf"{key.rpartition('.')[2]}: .*=", line), (key, line)
        return dict(flat(Settings().to_dict()))[key]
    ((name, value),) = yaml.safe_load(line.removeprefix("- ")).items()
    assert name.partition("@")[0] in ((key, f"override /{key}") if key in GROUPS else key.split(".")[-1:])
    return value


@pytest.mark.parametrize("typed", [*TYPED, *map(str.split, MORE)], ids=" ".join)
def test_what_is_said_to_count_is_what_is_composed(explained, typed):
    """Each line that is named holds the value that is said to stand there, and the first one what was composed."""
    for line in explained(*typed)["settings"]:
        first, *others = line["sources"]
        assert first["value"] == line["value"], line
        for place in (first, *others):
            if place["file"] is not None:
                assert stands_at(line["key"], place) == place["value"], place
        if any(word.lstrip("+").startswith(f"{line['key']}=") for word in typed):
            assert first["place"] == "the command"


def test_the_values_are_those_of_a_run(explained):
    typed = ("experiment=digits", "model=two_layer", "steps=7")
    lines, job = explained(*typed)["settings"], composed(*typed)
    settings = job.settings.to_dict()
    assert {line["key"]: line["value"] for line in lines[: len(GROUPS)]} == {
        **dict.fromkeys(GROUPS),
        **job.choices,
        "logger": "none",
    }
    assert {line["key"]: line["value"] for line in lines[len(GROUPS) :]} == dict(flat(settings))


def test_a_setting_shows_all_that_gives_it_a_value_and_the_strongest_first(told):
    of_experiment = line_of(ROOT / "configs/experiment/dynamic.yaml", "lr:")
    of_option = line_of(ROOT / "configs/optim/sgd_momentum.yaml", "^lr:")
    of_class = line_of(inspect.getsourcefile(torch.optim.SGD), r"^        lr: .* = 1e-3,$")
    lines = told("optim.lr", "experiment=dynamic", "optim.lr=1e-5")
    assert lines[:8] == [
        "optim.lr=1e-05",
        "meaning learning rate",
        "type a number",
        "class torch.optim.SGD",
        "set by 1e-05 the command",
        f"overrides 0.0001 configs/experiment/dynamic.yaml:{of_experiment}",
        f"0.0001 configs/optim/sgd_momentum.yaml:{of_option}",
        f"0.001 torch/optim/sgd.py:{of_class} the default of torch.optim.SGD",
    ]


def test_the_same_for_programs(explained):
    found = explained("model.activation", "model=mlp", "model.activation=tanh")
    assert (found["value"], found["class"], found["type"]) == ("tanh", "trainer.models.MLP", "a word")
    assert found["choices"] == ["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
    files = [None, str(ROOT / "configs/model/mlp.yaml"), str(ROOT / "src/trainer/models/mlp.py")]
    assert [place["file"] for place in found["sources"]] == files
    assert [place["value"] for place in found["sources"]] == ["tanh", "relu", "relu"]


def test_a_setting_of_ours_has_its_meaning_its_limits_and_its_default(told):
    line = line_of(ROOT / "src/trainer/config/settings.py", "^    steps: ")
    assert told("steps")[:5] == [
        "steps=null",
        "meaning optimizer steps to train; null is 500 unless epochs is set",
        "type a whole number or null",
        "limits at least 1",
        f"set by null trainer/config/settings.py:{line} the default",
    ]


def test_a_choice_of_words_has_the_words(told):
    lines = told("mode")
    assert "type a word or null" in lines
    assert "choices min, max" in lines


def test_a_group_shows_who_chose_its_option_and_all_the_others(told):
    of_experiment = line_of(ROOT / "configs/experiment/dynamic.yaml", "override /optim")
    of_root = line_of(ROOT / "configs/config.yaml", "- optim:")
    lines = told("optim", "experiment=dynamic", "optim=ADAM")
    assert lines[:5] == [
        "optim=adam",
        "meaning how the weights are updated",
        "set by adam the command",
        f"overrides sgd_momentum configs/experiment/dynamic.yaml:{of_experiment}",
        f"sgd configs/config.yaml:{of_root}",
    ]
    assert any(line.startswith("optim.betas [0.9,0.999] configs/optim/adam.yaml:") for line in lines)
    shown = lines[lines.index("options") :]
    for name in SHIPPED["optim"]:
        assert any(line.startswith(f"{name} ") for line in shown)


def test_a_section_shows_its_settings(told):
    lines = told("checkpoint")
    assert lines[:2] == ["checkpoint", "meaning When checkpoints are saved and which are kept"]
    keys = [line.split()[0] for line in lines if line.startswith("checkpoint.")]
    assert keys == ["checkpoint.every", "checkpoint.seconds", "checkpoint.keep", "checkpoint.best"]


def test_what_no_file_sets_is_left_to_the_default_of_the_class(explained):
    found = explained("optim.momentum")
    assert (found["value"], found["meaning"]) == (0, "momentum factor")
    assert [place["remark"] for place in found["sources"]] == ["the default of torch.optim.SGD"]


def test_the_length_that_is_typed_takes_the_place_of_the_other(told):
    line = line_of(ROOT / "configs/experiment/digits.yaml", "^epochs:")
    lines = told("epochs", "experiment=digits", "steps=100")
    assert "set by null the command replaced by steps=100" in lines
    assert f"overrides 30 configs/experiment/digits.yaml:{line}" in lines


def test_what_an_experiment_sets_for_another_option_is_said_not_to_count(explained, own_part):
    source = "import torch\n\n\nclass Part(torch.nn.Linear):\n    def __init__(self, inputs, outputs, dropout=0.0):\n"
    own_part("model", "plain", f"{source}        super().__init__(inputs, outputs)\n", "inputs: null\noutputs: null\n")
    found = explained("model.dropout", "experiment=digits", "model=plain")
    assert found["value"] == 0.0
    files = [place["place"].partition(":")[0] for place in found["sources"]]
    assert files == ["own_plain.py", "configs/experiment/digits.yaml"]
    note = "model.dropout=0.2 is set by experiment=digits for its own model; model=plain has no such setting"
    assert found["notes"] == [note]


OWN = '''
from torch import nn


class Part(nn.Linear):
    """One layer.

    Parameters
    ----------
    inputs, outputs : int
        Widths.
    scale : float, optional
        How large; None is not allowed. More of it.
    """

    def __init__(
        self,
        inputs,
        outputs,
        scale: float = 2.0,
    ):
        super().__init__(inputs, outputs)
'''


def test_ones_own_class_is_quoted(explained, own_part):
    own_part("model", "own", OWN, "inputs: null\nscale: 3.0 # large\n")
    found = explained("model.scale", "model=own")
    assert (found["value"], found["type"]) == (3.0, "a number")
    assert found["meaning"] == "How large; null is not allowed"
    of_option, of_class = found["sources"]
    assert (of_option["place"], of_option["remark"]) == ("configs/model/own.yaml:4", "# large")
    assert of_class["place"] == f"own_own.py:{line_of('own_own.py', 'scale: float')}"


def test_ones_own_option_may_build_on_another(explained, workdir):
    folder = workdir / "configs" / "optim"
    folder.mkdir(parents=True)
    (folder / "slow.yaml").write_text("# Slow\ndefaults:\n  - sgd_momentum\n  - _self_\nlr: 1.0e-9\n")
    places = [place["place"].partition(":")[0] for place in explained("optim.lr", "optim=slow")["sources"]]
    assert places == ["configs/optim/slow.yaml", "configs/optim/sgd_momentum.yaml", "torch/optim/sgd.py"]


def test_how_a_dataset_is_fed_is_explained_where_that_is_declared(explained, own_part):
    own_part("data", "squares", "import torch\n\n\nclass Part(torch.utils.data.Dataset):\n    pass\n")
    found = explained("data.workers", "data=squares")
    assert (found["value"], found["class"]) == (0, "trainer.data.datasets.Items")
    line = line_of(ROOT / "src/trainer/data/datasets.py", "workers: int = 0")
    assert [place["place"] for place in found["sources"]] == [f"trainer/data/datasets.py:{line}"]


class Google:
    """A class.

    Args:
        outputs: Width.
        scale: How large; None is
            not allowed. More of it.
        **others: Whatever else.
    """

    def __init__(self, outputs, scale=1.0, **others):
        pass


class Torch(Google):
    r"""Another, in torch's own style.

    .. math:: scale \\times x

    Args:
        outputs (int): Width
        scale (float, optional): how large; ``None`` is not :attr:`allowed` (default: (1.0)). More.
    """


class Numpydoc:
    def __init__(self, outputs, scale=1.0):
        """Make one.

        Parameters
        ----------
        outputs : int
        scale : float, optional
            How large; `None` is not allowed.

        Returns
        -------
        scale : float
            Nothing of the kind.
        """


@pytest.mark.parametrize("cls", [Google, Torch, Numpydoc])
def test_a_docstring_is_read_whatever_its_style(cls):
    assert docstrings.sentence(cls, "scale").lower() == "how large; null is not allowed"
    assert docstrings.sentence(cls, "nothing") == ""


@pytest.mark.parametrize("cls", [torch.optim.Adam, torch.optim.LBFGS, torch.nn.HuberLoss, torch.nn.Embedding])
def test_every_argument_of_torchs_own_classes_is_found(cls):
    source = Path(inspect.getsourcefile(cls)).read_text().splitlines()
    for name in inspect.signature(cls).parameters:
        assert re.search(rf"\b{name}\b", source[docstrings.place(cls, name).line - 1])
        assert docstrings.sentence(cls, name) or name.startswith("_") or name in ("device", "dtype"), name


@pytest.mark.parametrize("group", COMPONENTS)
def test_every_setting_of_a_shipped_option_has_a_meaning(group):
    for option in SHIPPED[group]:
        content = yaml.safe_load((ROOT / "configs" / group / f"{option}.yaml").read_text())
        module, _, name = content["_target_"].rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        for name in content.keys() - {"_target_", "defaults"}:
            assert docstrings.sentence(cls, name), (option, name)


@pytest.mark.parametrize("words", ["model.api_token", "--json"])
def test_secrets_are_not_shown(cli, own_part, words):
    source = "import torch\n\n\nclass Part(torch.nn.Linear):\n    def __init__(self, inputs, outputs, api_token=''):\n"
    own_part("model", "safe", f"{source}        super().__init__(inputs, outputs)\n", "api_token: in-the-file\n")
    result = cli("explain", words, "model=safe", "model.api_token=on-the-command-line")
    assert result.code == 0
    assert "<redacted>" in result.out
    assert "in-the-file" not in result.out + result.err
    assert "on-the-command-line" not in result.out + result.err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("learning_rate", "learning_rate: no such setting; did you mean optim.lr?"),
        ("adamw", "did you mean optim=adamw?"),
        ("checkpoint.evry", "did you mean checkpoint.every?"),
        ("optim.lrr", "SGD has no argument lrr"),
        ("optim.lr steps", "one setting at a time"),
        ("optim.lr optim.lr=abc", "optim.lr=abc: is not a number"),
        ("optim optim=adm", "did you mean optim=adam?"),
        ("optim.lr optim.lr=1e-4,1e-5", "several values"),
        ("optim.lr -m", "-m: no such flag"),
    ],
)
def test_a_wrong_word_gets_one_line(refused, typed, said):
    assert said in refused("explain", *typed.split())


def test_a_missing_value_is_explained_all_the_same(told):
    lines = told("data.path", "experiment=table")
    assert lines[0] == "data.path=???"
    assert "has no value; add data.path=VALUE" in lines


@pytest.mark.parametrize("typed", ["optim", "steps epochs=5"])
def test_the_next_commands_work_and_nothing_is_created(cli, workdir, typed):
    result = cli("explain", *typed.split(), "experiment=product")
    commands = re.findall(r"  trainer (\w+) ?(.*)$", result.out, re.MULTILINE)
    assert commands
    for name, rest in commands:
        extra = ["--dry-run"] if name == "run" else []
        assert cli(name, *shlex.split(rest), *extra).code == 0
    assert not list(workdir.iterdir())


def test_further_folders_stay_in_the_next_commands(cli, workdir):
    (workdir / "more" / "optim").mkdir(parents=True)
    (workdir / "more" / "optim" / "mine.yaml").write_text("# Mine\n_target_: torch.optim.SGD\nlr: 5\n")
    shown = cli("explain", "optim", "optim=mine", "--config-dir", "more").out
    assert "more/optim/mine.yaml:3" in shown
    assert "trainer list optim=mine --config-dir more" in shown


def test_no_line_is_wider_than_the_terminal(cli, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(screen, "stdout", Console(file=file, force_terminal=True, width=80, markup=False))
    assert cli("explain", "experiment=integer_triples").code == 0
    assert cli("explain", "loss.label_smoothing", "loss=cross_entropy").code == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).splitlines()
    assert max(len(line) for line in lines if " trainer " not in line) <= 80
