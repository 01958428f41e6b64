"""`trainer` and its help: instant, true, and at ease with any stdout."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import trainer
from trainer import cli as command
from trainer.config import arguments
from trainer.config.catalog import Catalog, shipped_configs
from trainer.config.compose import compose_jobs

HEAVY = """
import sys
from trainer.cli import main
for argv, heavy in [
    (["list"], {"torch", "hydra", "omegaconf", "numpy"}),
    (["list", "optim=adam"], {"torch", "hydra", "omegaconf", "numpy"}),
    (["runs"], {"torch", "hydra", "omegaconf", "numpy"}),
    (["runs", "--json"], {"torch", "hydra", "omegaconf", "numpy"}),
    (["explain"], {"torch", "numpy"}),
    (["explain", "optim"], {"torch", "numpy"}),
]:
    assert main(argv) == 0, argv
    assert not heavy & set(sys.modules), (argv, heavy & set(sys.modules))
"""

# What a help may import of ours; of others, nothing but the standard library.
SHOWS_HELP = {"", ".version", ".cli", ".errors", ".terminal", ".terminal.help", ".terminal.streams"}
MADE_OF_SETTINGS = {".terminal.help_parts", ".text", ".quoting", ".config"} | {
    f".config.{name}" for name in ("annotations", "catalog", "secrets", "settings")
}
HELPS = """
import sys
before = set(sys.modules)
from trainer.cli import COMMANDS, main
made = ("run", "resume", "list")
for name in ("", *(name for name in COMMANDS if name not in made), *made):
    assert main([name, "--help"] if name else ["--help"]) == 0
    print(f"imported for {name}:", *sorted(set(sys.modules) - before))
"""


def helps(cli):
    return {name: cli(name, "--help").out for name in command.COMMANDS} | {"": cli("--help").out}


def test_help_and_lists_import_nothing_heavy(train):
    train("steps=1", "data.inputs=4", "model.hidden=3", name="runs/20260101-000000-bbbb")
    done = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "bbbb" in done.stdout


def test_a_help_imports_only_what_shows_it():
    """No command, and no package of others, is imported; one process shows all helps, those made of settings last."""
    done = subprocess.run([sys.executable, "-c", HELPS], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    imported = dict(re.findall(r"^imported for (\w*):(.*)$", done.stdout, re.MULTILINE))
    assert set(imported) == {"", *command.COMMANDS}
    for name, words in imported.items():
        allowed = SHOWS_HELP | (MADE_OF_SETTINGS if name in ("run", "resume", "list") else set())
        ours = {word for word in words.split() if word.partition(".")[0] == "trainer"}
        assert ours <= {f"trainer{one}" for one in allowed}, name
        others = {word.partition(".")[0] for word in words.split()} - {"trainer"}
        assert others <= sys.stdlib_module_names, name
        assert not others & {"json", "shutil", "logging", "concurrent", "socket"}, name


def test_every_command_is_in_the_help_and_has_its_own(cli):
    assert set(re.findall(r"^  (\w+)   +", cli("--help").out, re.MULTILINE)) >= set(command.COMMANDS)
    for name in command.COMMANDS:
        result = cli(name, "--help")
        assert (result.code, result.err) == (0, "")
        assert result.out.startswith(f"Usage: trainer {name}")
        assert cli(name, "-h").out == cli("help", name).out == result.out


def test_no_command_is_a_request_for_help(cli):
    assert cli().out == cli("--help").out == cli("help").out


def test_version(cli):
    assert cli("--version").out == f"trainer {trainer.__version__}\n"


def test_help_fits_80_columns(cli):
    for name, text in helps(cli).items():
        assert max(map(len, text.splitlines())) < 80, name


def test_help_fits_narrower_terminals(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    groups = cli("run", "--help").out.partition("Groups")[2].partition("Most used settings")[0]
    assert max(map(len, groups.splitlines()[1:])) < 40


def test_help_is_shown_whatever_else_stands_there(cli):
    for words in (["runs", "--nonsense", "--help"], ["eval", "nowhere", "-h"], ["run", "steps=", "--help"]):
        assert cli(*words).out == cli(words[0], "--help").out
    refused = cli("run", "--config-dir", "nowhere", "--help")
    assert (refused.code, refused.out) == (2, "")
    assert "no such folder" in refused.err


def test_run_help_has_every_option_of_every_group(cli, workdir):
    (workdir / "configs" / "model").mkdir(parents=True)
    (workdir / "configs" / "model" / "mine.yaml").write_text("# Mine\n_target_: mine.Net\n")
    text = cli("run", "--help").out
    for group in ("model", "data", "loss", "optim", "schedule", "device"):
        for option in Catalog().options(group):
            assert re.search(rf"\b{option}\b", text), option
    assert re.search(r"\bmine\b", text)
    config = yaml.safe_load((shipped_configs() / "config.yaml").read_text())["defaults"]
    chosen = {group: name for line in config if isinstance(line, dict) for group, name in line.items() if name}
    assert Catalog().defaults() == chosen
    for default in ("two_layer*", "random*", "sse*", "sgd*", "constant*", "auto*"):
        assert default in text


def test_the_examples_in_help_are_right(cli):
    """They are read as a shell reads them, and those of run are composed."""
    lines = {line for text in helps(cli).values() for line in re.findall(r"^  (trainer .*)$", text, re.MULTILINE)}
    examples = {shlex.join(shlex.split(re.split(r"   +", line)[0])[1:]) for line in lines}
    assert len(examples) > 15
    for example in sorted(examples):
        name, *rest = shlex.split(example)
        assert name in command.COMMANDS
        if name == "run":
            split = arguments.split(rest)
            assert compose_jobs(arguments.jobs(split, split.catalog()), split.catalog()), example
        if name in ("list", "info", "explain"):
            assert cli(name, *rest).code == 0, example


def test_examples_are_quoted_for_bash_and_zsh(cli):
    """Brackets, parentheses and the like mean something to a shell unless they are quoted."""
    for text in helps(cli).values():
        for line in re.findall(r"^  (trainer .*)$", text, re.MULTILINE):
            bare = re.sub(r"'[^']*'", "", re.split(r"   +", line)[0])
            assert not re.search(r"[][(){}$*?~<>|&;!]", bare), line


def test_a_wrong_command_leads_to_the_right_one(cli):
    result = cli("resum", "last")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: resum: no such command; allowed: run, resume, runs, ")
    assert result.err.endswith("; did you mean `trainer resume`?\n")


def test_control_characters_are_shown_and_not_obeyed(cli):
    result = cli("list", "\x1b]0;title\x07\x9b31m\u202e")
    assert result.err.startswith(r"error: list \x1b]0;title\x07\x9b31m\u202e: no such group")


def onto(descriptor: int, file: int) -> None:
    """Let stdout or stderr write into another file."""
    os.dup2(file, descriptor)
    setattr(sys, {1: "stdout", 2: "stderr"}[descriptor], os.fdopen(descriptor, "w", closefd=False))


def left_pipe() -> int:
    """The end of a pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize("words", ["list", "--help", "run --help", "info", "run steps=2 data.inputs=2"])
def test_a_closed_pipe_is_no_error(fork, words):
    child = fork(*words.split(), prepare=lambda: onto(1, left_pipe()))
    assert child.wait() == 0
    assert "Traceback" not in child.text
    assert "error" not in child.text


def test_training_goes_on_when_nobody_reads_its_progress(fork):
    child = fork("run", "run_dir=here", "steps=50", "data.inputs=2", prepare=lambda: onto(2, left_pipe()))
    assert child.wait() == 0
    assert "done  50 steps" in child.text


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams_are_no_error_and_no_file_takes_their_place(fork, closed):
    def prepare() -> None:
        for descriptor in closed:
            os.close(descriptor)

    assert fork("run", "run_dir=here", "steps=2", "data.inputs=2", prepare=prepare).wait() == 0
    for file in Path("here").rglob("*"):
        assert not file.is_file() or b"parameters  " not in file.read_bytes()


def test_a_full_disk_under_stdout_is_an_error(fork):
    child = fork("list", prepare=lambda: onto(1, os.open("/dev/full", os.O_WRONLY)))
    assert child.wait() == 1
    assert child.text == "error: No space left on device\n"


def test_characters_that_an_encoding_lacks_are_written_as_escapes(cli, workdir, monkeypatch):
    (workdir / "configs" / "model").mkdir(parents=True)
    (workdir / "configs" / "model" / "mine.yaml").write_text("# Modèle à moi\n_target_: mine.Net\n", encoding="utf-8")
    sys.stdout.reconfigure(encoding="ascii")
    try:
        assert r"Mod\xe8le \xe0 moi" in cli("list", "model").out
    finally:
        sys.stdout.reconfigure(encoding="utf-8")


@pytest.mark.parametrize("columns", ["0", "1", "9"])
def test_a_width_in_which_nothing_fits_is_ignored(columns):
    """Started anew: rich reads the width when it is imported."""
    for words in (["run", "--help"], ["list", "loss"]):
        command, environment = [sys.executable, "-m", "trainer", *words], {**os.environ, "COLUMNS": columns}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "trainer " in done.stdout


def test_a_very_long_word_is_cut(refused):
    for words in (["run", "x" * 5000], ["run", f"model={'x' * 5000}"], ["run", f"optim.lr={'x' * 5000}"], ["x" * 5000]):
        assert len(refused(*words)) < 2000, words


def test_the_error_of_a_sweep_of_one_job_needs_no_number(refused):
    line = refused("run", "-m", "batch_size=1000")
    assert line.startswith("error: batch_size=1000: ")
