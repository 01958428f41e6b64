"""`trainer completion`: what TAB offers, and that bash, zsh and fish type it."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainer import cli as command
from trainer.config import settings
from trainer.config.annotations import choices
from trainer.config.catalog import GROUPS, Catalog, summary

GROUP_KEYS = {f"{group}=" for group in GROUPS}
SECTIONS = {f"{name}." for name in (*GROUPS, *settings.SECTIONS) if name != "experiment"}


@pytest.fixture
def offered(cli) -> Callable[..., dict[str, str]]:
    """What may stand in place of the last word, with its meaning."""

    def ask(*words: str) -> dict[str, str]:
        result = cli("completion", "fish", "--", *words)
        assert (result.code, result.err) == (0, "")
        return dict(line.split("\t") for line in result.out.splitlines())

    return ask


def make_runs(folder: Path) -> None:
    """Runs as far as their names and kinds go: two single ones, a sweep of two jobs, two with the same letters."""
    for name in (
        "20260101-000000-bcdf",
        "20260102-000000-kfrw/000",
        "20260102-000000-kfrw/001",
        "20260103-000000-wxyz",
    ):
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "config.yaml").write_text("optim:\n  _target_: torch.optim.SGD\n  lr: 0.1\n")
    (folder / "runs" / "20260102-000000-kfrw" / "sweep.json").write_text("{}")
    for name in ("runs/20260104-000000-same", "runs/20260105-000000-same", "runs/mine", "results/first"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.yaml").write_text("")


def test_commands(offered):
    assert offered("") == {**command.COMMANDS, "help": "show the help of a command"}
    assert set(offered("re")) == {"resume", "reproduce"}
    assert set(offered("-")) == {"--help", "--version"}
    assert set(offered("help", "ev")) == {"eval"}
    assert offered("nonsense", "") == {}


@pytest.mark.parametrize("name", sorted(command.COMMANDS))
def test_flags_are_those_in_the_help_and_all_of_them_are_taken(offered, cli, name):
    """In the help they stand in the usage and in lines of their own; the refusal of a wrong one lists what is taken."""
    text = cli(name, "--help").out
    usage = text.partition("\n\n")[0] + "".join(re.findall(r"^  -.*?(?:  |$)", text, re.MULTILINE))
    flags = set(offered(name, "-"))
    assert flags == set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", usage)) | {"--help"}
    refused = cli(name, "--zzz").err
    taken = set(refused.partition("allowed: ")[2].partition(";")[0].strip().split(", "))
    if name not in ("completion", "info"):  # which say what else they take
        assert {flag for flag in flags if flag.startswith("--")} <= taken, refused


def test_flags_say_what_they_do_and_are_offered_once(offered):
    assert offered("run", "--dr") == {"--dry-run": "show the jobs and their estimated time; create nothing"}
    assert set(offered("run", "--dry-run", "-m", "-")).isdisjoint({"--dry-run", "-m"})


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("show last --checkpoint", "best last"),
        ("export last --format", "safetensors pt2 onnx"),
        ("run --cfg", "job hydra all"),
        ("plot last --metric", "loss validation_loss validation_accuracy lr"),
    ],
)
def test_values_of_flags(offered, cli, words, values):
    *before, flag = words.split()
    assert set(offered(*before, flag, "")) == set(values.split())
    assert set(offered(*before, f"{flag}=")) == {f"{flag}={value}" for value in values.split()}
    assert all(value in cli(before[0], "--help").out for value in values.split())


def test_rungs_of_the_ladder(offered):
    from trainer.commands.ladder import NAMES

    assert set(offered("ladder", "--source", "")) == set(NAMES)
    assert set(offered("ladder", "--source", "nu")) == {"numpy"}


def test_settings_after_flags(offered):
    assert set(offered("runs", "--group-by", "model,optim.l")) == {"model,optim.lr"}
    assert set(offered("plot", "last", "--by", "se")) == {"seed"}
    assert set(offered("runs", "--by", "val")) == {"validation_loss", "validation_accuracy"}


def test_groups_sections_and_settings(offered):
    roots = {f"{key}=" for key in settings.documented() if "." not in key}
    assert set(offered("run", "")) == GROUP_KEYS | SECTIONS | roots
    assert set(offered("run", "mo")) == {"model=", "model.", "mode=", "monitor="}
    assert set(offered("run", "seed=1", "see")) == set()
    assert set(offered("run", "-m", "hydra")) == {"hydra/launcher="}


def test_settings_say_what_they_mean(offered):
    known = settings.documented()
    for section in ("", "checkpoint.", "device."):
        for text, what in offered("run", section).items():
            if (key := text.removesuffix("=")) in known:
                assert known[key][1].startswith(what)
    assert {f"checkpoint.{key}=" for key in ("every", "seconds", "keep", "best")} == set(offered("run", "checkpoint."))
    assert {f"{key}=" for key in known if key.startswith("device.")} == set(offered("run", "device."))


@pytest.mark.parametrize("group", GROUPS)
def test_options_say_what_they_are(offered, workdir, group):
    folder = workdir / "configs" / group
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package model\n# My own\n_target_: mine.Net\n")
    wanted = {f"{group}={name}": summary(file) for name, file in Catalog().options(group).items()}
    assert offered("run", f"{group}=") == wanted
    assert wanted[f"{group}=mine"] == "My own"


def test_options_after_a_comma_are_those_that_are_not_there_yet(offered):
    assert set(offered("run", "-m", "model=numpy,two_")) == {"model=numpy,two_layer"}
    found = offered("run", "-m", "model=numpy,mlp,")
    assert len(found) == len(Catalog().options("model")) - 2
    assert not {"model=numpy,mlp,numpy", "model=numpy,mlp,mlp"} & set(found)


def test_options_in_brackets(offered):
    assert set(offered("run", "'loss=[sse,cross")) == {"loss=[sse,cross_entropy]"}
    assert set(offered("run", "loss=[cross")) == {"loss=[cross_entropy]"}


def test_options_whatever_their_case(offered):
    assert set(offered("run", "optim=ADAMW")) == {"optim=adamw"}


def test_options_of_further_folders(offered, workdir):
    (workdir / "more" / "model").mkdir(parents=True)
    (workdir / "more" / "model" / "odd.yaml").write_text("# Odd\n_target_: odd.Net\n")
    for flag in (("--config-dir", "more"), ("--config-dir=more",), ("-cd", "more")):
        assert offered("run", *flag, "model=od") == {"model=odd": "Odd"}
    assert offered("run", "model=od") == {}


@pytest.mark.parametrize("section", [settings.Settings, *settings.SECTIONS.values()])
def test_words_that_a_setting_may_be(offered, section):
    prefix = next((f"{name}." for name, one in settings.SECTIONS.items() if one is section), "")
    kinds = typing.get_type_hints(section)
    for key in vars(section)["__dataclass_fields__"]:
        words = choices(kinds[key]) or (["true", "false"] if kinds[key] is bool else [])
        if words:
            assert set(offered("run", f"{prefix}{key}=")) == {f"{prefix}{key}={word}" for word in words}
    assert set(offered("run", "-m", "on_nonfinite=stop,")) == {"on_nonfinite=stop,skip"}


def test_keys_of_what_is_chosen(offered):
    keys = set(re.findall(r"^(\w+):", Catalog().options("optim")["sgd"].read_text(), re.MULTILINE)) - {"_target_"}
    assert {text[len("optim.") : -1] for text in offered("run", "optim.")} == keys
    found = offered("run", "optim=adam", "optim.")
    assert {"optim.lr=", "optim.betas=", "optim.eps="} <= set(found)
    assert found["optim.fused="].startswith("true: one kernel")
    assert "optim._target_=" not in found
    assert set(offered("run", "optim=adam", "optim.fused=")) == {"optim.fused=true", "optim.fused=false"}


def test_keys_of_what_an_experiment_chooses(offered):
    found = offered("run", "experiment=digits", "model.")
    assert found["model.sizes="] == "[128, 128]"
    assert "model.activation=" in found
    assert "model.hidden=" in offered("run", "experiment=digits", "model=two_layer", "model.")


def test_keys_within_keys(offered, workdir):
    (workdir / "configs" / "model").mkdir(parents=True)
    (workdir / "configs" / "model" / "deep.yaml").write_text(
        "# @package model\n# Deep\n_target_: d.Net\nblock:\n  width: 3 # of it\nn: 1\n"
    )
    assert offered("run", "model=deep", "model.") == {"model.block.width=": "3: of it", "model.n=": "1"}


def test_launchers(offered, refused):
    """Those that a wrong one is answered with."""
    line = refused("run", "-m", "seed=0,1", "hydra/launcher=zzz")
    allowed = set(line.partition("allowed: ")[2].partition(";")[0].strip().split(", "))
    assert {text.removeprefix("hydra/launcher=") for text in offered("run", "-m", "hydra/launcher=")} == allowed


def test_runs(offered, workdir):
    make_runs(workdir)
    names = ["last", "best", "wxyz", "mine", "kfrw", "bcdf"]
    assert list(offered("show", "")) == ["last", "best", "mine", "wxyz", "kfrw", "bcdf"]
    assert offered("show", "kf") == {"kfrw": "20260102-000000-kfrw"}
    assert set(offered("show", "20260104")) == {"20260104-000000-same"}
    assert set(offered("show", "kfrw")) == {"kfrw", "kfrw/"}
    assert set(offered("show", "kfrw/")) == {"kfrw/000", "kfrw/001", "kfrw/best"}
    assert set(offered("show", "res")) == {"results/"}
    assert set(offered("show", "results/")) == {"results/first"}
    assert set(offered("compare", "kfrw", "")) == set(names)
    assert set(offered("show", "kfrw", "")) == set(offered("show", "-"))
    assert set(offered("run", "init_from=w")) == {"init_from=wxyz"}


@pytest.mark.parametrize(
    "name", ["resume", "show", "compare", "plot", "eval", "predict", "export", "verify", "reproduce"]
)
def test_every_command_that_takes_a_run_is_offered_runs(offered, workdir, name):
    make_runs(workdir)
    assert set(offered(name, "kf")) == {"kfrw"}
    assert "seed=" not in offered(name, "")


def test_settings_of_a_run(offered, workdir):
    make_runs(workdir)
    assert offered("resume", "kfrw", "optim.") == {"optim.lr=": "0.1"}
    assert offered("resume", "last", "st") == offered("run", "st")
    assert set(offered("eval", "last", "")) >= {"data."}
    assert set(offered("eval", "last", "se")) == set()


def test_files(offered, workdir):
    for name in ("new.csv", ".hidden", "a b.csv", "bad\x1b.csv"):
        (workdir / name).write_text("")
    (workdir / "tables").mkdir()
    assert set(offered("predict", "last", "--input", "")) == {"new.csv", "a b.csv", "tables/"}
    assert set(offered("run", "data.path=n")) == {"data.path=new.csv"}
    assert set(offered("init", "")) == {"tables/"}


def test_other_words(offered):
    assert set(offered("list", "")) == {*GROUPS, "settings"}
    assert set(offered("list", "model", "los")) == {"loss"}
    assert "optim=adam" in offered("list", "optim=ad")
    assert set(offered("completion", "")) == {"bash", "zsh", "fish"}


def test_bash_gets_words_as_one_types_them(cli, workdir):
    (workdir / "a b$.csv").write_text("")
    assert cli("completion", "bash", "--", "run", "data.path=a").out == "data.path=a\\ b\\$.csv\n"
    assert cli("completion", "bash", "--", "run", "'data.path=a").out == "data.path=a b$.csv\n"


def test_a_wrong_shell_leads_to_the_right_one(refused):
    assert refused("completion", "bsh").endswith(
        "completion bsh: no such shell; allowed: bash, fish, zsh; did you mean completion bash?\n"
    )
    assert "allowed: bash, zsh, fish" in refused("completion")
    assert "takes one shell" in refused("completion", "bash", "zsh")


LIGHT = {"torch", "hydra", "omegaconf", "rich", "numpy", "yaml", "re", "typing", "dataclasses", "pathlib", "json"}


def test_nothing_heavy_is_imported(cli, workdir):
    """By the very command that the scripts call, with everything that may be asked for."""
    make_runs(workdir)
    call = re.search(r"([^\s(]+ -I -S) -c '(.*)' bash", cli("completion", "bash").out)
    lines = [
        *("", "run ", "run model=", "run optim=adam optim.", "run mode=", "run -m hydra/launcher=", "run data.path="),
        *("show ", "show kfrw/", "resume kfrw optim.", "list ", "runs --by ", "show -"),
    ]
    code = call[2].partition("; main(")[0]
    code += f"\nfor line in {lines}: main(['zsh', *line.split(' ')])\nprint('modules', *sys.modules)"
    done = subprocess.run([*call[1].split(), "-c", code], capture_output=True, text=True, check=True)
    *shown, modules = done.stdout.splitlines()
    assert len(shown) > 100
    assert not LIGHT & set(modules.split())


class Terminal:
    """A shell at a pseudo-terminal, and a function `trainer` in it that writes down what it was called with."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.folder, self.seen = folder, ""
        environment = {**os.environ, "ZDOTDIR": str(folder), "HOME": str(folder), "TERM": "xterm"}
        self.process, self.master = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.execvpe(words[0], words, environment)
        self.wait_for(lambda: "ready>" in self.seen)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 0.01)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")

    def words(self, keys: str) -> list[str]:
        """What `trainer` is called with after these keys and Enter."""
        called = self.folder / "called"
        called.unlink(missing_ok=True)
        os.write(self.master, f"{keys}\r".encode())
        self.wait_for(called.exists)
        return called.read_text().splitlines()

    def close(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.master)


RC = {
    "bash": """
{script}
PS1='ready>'
bind 'set bell-style none'
trainer() {{ printf '%s\\n' "$@" > written; mv written called; }}
{more}""",
    "zsh": """
{script}
PS1='ready>'
unsetopt beep
trainer() {{ printf '%s\\n' "$@" > written; mv written called }}
{more}""",
    "fish": """
{script}
function fish_prompt; echo 'ready>'; end
function fish_greeting; end
set -g fish_autosuggestion_enabled 0
function trainer; printf '%s\\n' $argv > written; mv written called; end
{more}""",
}


@pytest.fixture(scope="module")
def terminal(tmp_path_factory) -> Iterator[Callable[..., Terminal]]:
    """Start a shell that has read its script, once for all tests: terminal("bash", "more lines to read")."""
    open_: dict[tuple[str, str], Terminal] = {}

    def start(shell: str, more: str = "") -> Terminal:
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        if (shell, more) not in open_:
            folder = tmp_path_factory.mktemp(shell)
            make_runs(folder)
            (folder / "some file.csv").write_text("")
            script = subprocess.run(
                [sys.executable, "-m", "trainer", "completion", shell], capture_output=True, text=True, check=True
            ).stdout
            rc = folder / (".zshrc" if shell == "zsh" else "rc")
            rc.write_text(RC[shell].format(script=script, more=more))
            words = {
                "bash": ["bash", "--noprofile", "--rcfile", "rc", "-i"],
                "zsh": ["zsh", "-d", "-i"],
                "fish": ["fish", "--no-config", "--init-command", "source rc"],
            }
            open_[shell, more] = Terminal(words[shell], folder)
        return open_[shell, more]

    yield start
    for one in open_.values():
        one.close()


# What is typed after `trainer`, and what it is called with: what is typed after TAB shows whether there is a space.
LINES = [
    ("ini\tX", "init X"),
    ("run see\t7", "run seed=7"),
    ("run model=num\tX", "run model=numpy X"),
    ("run -m model=numpy,two_\tX", "run -m model=numpy,two_layer X"),
    ("run checkp\tev\t5", "run checkpoint.every=5"),
    ("run compile=\tX", "run compile=step X"),
    ("run optim=adam optim.am\tt\tX", "run optim=adam optim.amsgrad=true X"),
    ("run experiment=digits model.dropo\t0", "run experiment=digits model.dropout=0"),
    ("run -m hydra/l\tvec\tX", "run -m hydra/launcher=vectorized X"),
    ("run --dry\tX", "run --dry-run X"),
    ("resu\tbc\tstep\t9", "resume bcdf steps=9"),
    ("show kfrw/001\tX", "show kfrw/001 X"),
    ("show res\tf\tX", "show results/first X"),
    ("export last --format=on\tX", "export last --format=onnx X"),
    ("run data.path=so\tX", "run data.path=some|file.csv X"),
    ("run X model=num\x1b[D\x1b[D\x1b[Du\t", "run X model=unum"),
]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(("keys", "called"), LINES)
def test_tab(terminal, shell, keys, called):
    assert terminal(shell).words(f"trainer {keys}") == [word.replace("|", " ") for word in called.split()]


@pytest.mark.parametrize(
    "breaks", ["COMP_WORDBREAKS=${COMP_WORDBREAKS//=}; set -u", "COMP_WORDBREAKS=$COMP_WORDBREAKS,."]
)
def test_bash_whatever_breaks_words(terminal, breaks):
    bash = terminal("bash", breaks)
    for keys, called in LINES[1:6]:
        assert bash.words(f"trainer {keys}") == [word.replace("|", " ") for word in called.split()]


def test_bash_settings_stay_as_they_are(terminal):
    bash = terminal("bash", "before=$COMP_WORDBREAKS")
    assert bash.words("trainer run model=num\t") == ["run", "model=numpy"]
    assert bash.words('trainer "${COMP_WORDBREAKS/"$before"/same}"') == ["same"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_tab_within_a_longer_line(terminal, shell):
    assert terminal(shell).words("cd . && LANG=C trainer run model=num\tX") == ["run", "model=numpy", "X"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_tab_within_quotes(terminal, shell):
    assert terminal(shell).words("trainer run 'model=num\t") == ["run", "model=numpy"]
    assert terminal(shell).words("trainer run 'loss=[sse,cros\tX") == ["run", "loss=[sse,cross_entropy]", "X"]


def test_a_comma_takes_the_place_of_the_space_in_zsh(terminal):
    assert terminal("zsh").words("trainer run -m model=num\t,two_\tX") == ["run", "-m", "model=numpy,two_layer", "X"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_fits_is_shown(terminal, shell):
    one = terminal(shell)
    one.seen = ""
    os.write(one.master, b"trainer run schedule=\t\t")
    one.wait_for(lambda: all(name in one.seen for name in Catalog().options("schedule")))
    if shell != "bash":
        one.wait_for(lambda: all(summary(file)[:20] in one.seen for file in Catalog().options("schedule").values()))
    assert one.words("\x15\x15trainer X") == ["X"]
