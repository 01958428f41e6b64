"""`trainer list`: what can be selected, the user's own included."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from trainer.config.catalog import GROUPS, Catalog
from trainer.config.settings import Settings
from trainer.terminal import screen


@pytest.fixture
def own(workdir):
    """Write an option of the user's own."""

    def write(group, name, text):
        folder = workdir / "configs" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


def lines(result):
    assert (result.code, result.err) == (0, "")
    return result.out.splitlines()


def test_every_option_has_a_line_that_says_what_it_is(cli):
    shown = lines(cli("list"))
    for group in GROUPS:
        for name in Catalog().options(group):
            assert any(re.fullmatch(rf"  {name}  +\S.*", line) for line in shown), (group, name)


def test_the_defaults_are_marked(cli):
    defaults = [line.split()[0] for line in lines(cli("list")) if line.endswith("(default)")]
    assert defaults == ["two_layer", "random", "sse", "sgd", "constant", "auto", "none"]


def test_some_groups(cli):
    shown = "\n".join(lines(cli("list", "loss", "schedule")))
    assert "sse" in shown
    assert "constant" in shown
    assert "two_layer" not in shown


def test_ones_own_options_are_marked_with_their_file(cli, own):
    own("model", "mine", "# @package model\n# My model\n_target_: mine.Net\n")
    assert "  mine          My model (configs/model/mine.yaml)" in lines(cli("list", "model"))


def test_a_shadowed_file_is_warned_of(cli, own):
    own("model", "numpy", "# Mine\n_target_: mine.Net\n")
    result = cli("list", "model")
    assert re.fullmatch(r"warning: .*numpy.yaml is ignored: the shipped model=numpy has the same name\n", result.err)
    assert "Mine" not in result.out


def test_what_stands_in_a_file_is_neither_markup_nor_control(cli, own):
    own("model", "mine", "# [bold]My[/bold] \x1b[31mmodel\x07\n_target_: mine.Net\n")
    assert r"[bold]My[/bold] \x1b[31mmodel\x07" in cli("list", "model").out


def test_a_broken_file_does_not_hide_the_others(cli, own, workdir):
    own("model", "broken", b"\xff\xfe\x00")
    own("model", "empty", "")
    (workdir / "configs" / "model" / "folder.yaml").mkdir()
    shown = "\n".join(lines(cli("list", "model")))
    assert "broken" in shown
    assert "empty" in shown
    assert "folder" not in shown
    assert "two_layer" in shown


def test_further_folders(cli, tmp_path):
    (tmp_path / "more" / "loss").mkdir(parents=True)
    (tmp_path / "more" / "loss" / "mine.yaml").write_text("# My loss\n_target_: mine.Loss\n")
    assert "My loss (more/loss/mine.yaml)" in cli("list", "loss", "--config-dir", "more").out


def test_for_programs(cli, own):
    own("model", "mine", "# My model\n_target_: mine.Net\n")
    found = json.loads(cli("list", "model", "--json").out)
    assert set(found) == {"model"}
    by_name = {entry["name"]: entry for entry in found["model"]}
    assert by_name["two_layer"]["default"]
    assert by_name["two_layer"]["shipped"]
    assert not by_name["mine"]["default"]
    assert not by_name["mine"]["shipped"]
    assert by_name["mine"]["summary"] == "My model"
    assert set(json.loads(cli("list", "--json").out)) == set(GROUPS)


def test_one_option_shows_its_file(cli):
    shown = cli("list", "optim=ADAM").out
    assert "_target_: torch.optim.Adam" in shown
    assert "trainer run optim=adam" in shown
    assert json.loads(cli("list", "optim=adam", "--json").out)["name"] == "adam"


def test_every_setting_is_listed_with_default_and_meaning(cli):
    shown = "\n".join(lines(cli("list", "settings")))
    for name, value in (("seed", "0"), ("steps", "null"), ("on_nonfinite", "stop"), ("checkpoint.keep", "2")):
        assert re.search(rf"^  {name}={value} +\w+", shown, re.MULTILINE)
    assert "float32, float64, bfloat16" in shown
    listed = json.loads(cli("list", "settings", "--json").out)["settings"]
    roots = {entry["name"].partition(".")[0] for entry in listed}
    assert roots == set(Settings.__dataclass_fields__) - {"model", "data", "loss", "optim", "schedule", "logger"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["modle"], "did you mean list model?"),
        (["optimizers"], "did you mean list optim?"),
        (["adam"], "did you mean list optim=adam?"),
        (["optim=adm"], "did you mean optim=adam?"),
        (["steps=5"], "steps=5: is not GROUP=OPTION"),
        (["experiment=null"], "selects nothing"),
        (["--jsn"], "--jsn: no such flag"),
        (["-m"], "no such flag"),
        (["--config-dir", "nowhere"], "no such folder"),
    ],
)
def test_a_wrong_word_gets_one_line(cli, words, said):
    result = cli("list", *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert said in result.err


def test_next_commands_work(cli):
    commands = re.findall(r"trainer (list .*)$", cli("list", "optim").out, re.MULTILINE)
    assert commands
    for command in commands:
        assert cli(*command.split()).code == 0


@pytest.mark.parametrize("width", [20, 60, 200])
def test_no_line_is_wider_than_the_terminal(cli, monkeypatch, width):
    file = io.StringIO()
    monkeypatch.setattr(screen, "stdout", Console(file=file, force_terminal=True, width=width, markup=False))
    assert cli("list", "model").code == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).partition("choose one")[0].splitlines()
    assert max(map(len, shown)) <= width
    assert "numpy" in " ".join(shown)
