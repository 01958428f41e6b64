"""Secrets: values under keys that end in token, secret, password or key stand in no file and no message."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Run

SECRET = "hunter-22-secret-value"
MODULE = """
import torch
from trainer.data import Data

class Part(Data):
    def __init__(self, api_token: str, fail=False):
        if api_token != "-".join(["hunter", "22", "secret", "value"]):
            raise ValueError("wrong token " + str(api_token))
        if fail:
            raise ValueError("refused: " + api_token)
        super().__init__(torch.randn(8, 3), torch.randn(8, 2))
"""


@pytest.fixture(autouse=True)
def remote(own_part):
    own_part("data", "remote", MODULE, "api_token: ???\nfail: false\n")


def leaks() -> list[str]:
    """The files in which the secret stands."""
    return [str(path) for path in Path().rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


WORDS = ("data=remote", f"data.api_token={SECRET}", "model.hidden=3", "steps=2")


def test_a_secret_reaches_the_data_and_no_file(cli):
    result = cli("run", "run_dir=run", *WORDS)
    assert result.code == 0, result.err
    assert leaks() == []
    assert SECRET not in result.out + result.err
    run = Run(Path("run"))
    assert run.status["config"]["data"]["api_token"] == "<redacted>"
    assert "data.api_token=<redacted>" in run.status["segments"][0]["overrides"]
    assert "data.api_token=<redacted>" in run.status["segments"][0]["command"]


def test_a_resume_asks_for_it_again(cli):
    assert cli("run", "run_dir=run", *WORDS).code == 0
    result = cli("resume", "run", "steps=3")
    assert result.code == 2
    assert "data.api_token: is a secret, which is not stored" in result.err
    result = cli("resume", "run", "steps=3", f"data.api_token={SECRET}")
    assert result.code == 0, result.err
    assert "api_token" not in result.err
    assert leaks() == []


def test_an_error_does_not_tell_it(cli):
    result = cli("run", "run_dir=run", *WORDS, "data.fail=true")
    assert result.code == 2
    assert "refused: <redacted>" in result.err
    assert leaks() == []


def test_a_failure_while_training_does_not_log_it(cli, monkeypatch):
    from trainer.session.metrics_writer import MetricsFile

    def fail(self, row):
        raise ValueError(f"sent {SECRET}")

    monkeypatch.setattr(MetricsFile, "__call__", fail)
    result = cli("run", "run_dir=run", *WORDS)
    assert result.code == 1
    assert "sent <redacted>" in result.err
    assert "sent <redacted>" in Path("run/trainer.log").read_text()
    assert leaks() == []


def test_a_sweep_hands_it_to_its_jobs(cli):
    result = cli("run", "-m", "run_dir=sweep", *WORDS, "seed=0,1")
    assert result.code == 0, result.err
    assert leaks() == []
    assert "is a secret" in cli("resume", "sweep", "steps=3").err
    result = cli("resume", "sweep", "steps=3", f"data.api_token={SECRET}")
    assert result.code == 0, result.err
    assert Run(Path("sweep/001")).status["step"] == 3
    assert leaks() == []


def test_a_printed_configuration_does_not_show_it(cli):
    result = cli("run", *WORDS, "--cfg", "job")
    assert "api_token: <redacted>" in result.out
    assert SECRET not in result.out


@pytest.mark.parametrize(
    "value", [f"[{{token:{SECRET}}}]", f"{{inner:{{token:{SECRET}}}}}", f"{{my_key:[1,{SECRET}]}}"]
)
def test_secrets_within_lists_and_sections(cli, own_part, value):
    """A setting of any shape; the class takes it as it is."""
    source = MODULE[: MODULE.index("    def")] + (
        "    def __init__(self, servers):\n"
        "        assert 'redacted' not in str(servers)\n"
        "        super().__init__(torch.randn(8, 3), torch.randn(8, 2))\n"
    )
    own_part("data", "remote", source, "servers: null\n")
    words = ("data=remote", f"data.servers={value}", "steps=2", "model.hidden=3", "run_dir=run")
    result = cli("run", *words)
    assert result.code == 0, result.err
    assert leaks() == []
    result = cli("resume", "run", "steps=3", f"data.servers={value}")
    assert result.code == 0, result.err
    assert leaks() == []
    assert SECRET not in result.out + result.err


def test_a_secret_in_a_file_is_told_by_no_message(cli, own_part):
    own_part("data", "remote", MODULE, f"api_token: {SECRET}\nfail: true\n")
    result = cli("run", "data=remote")
    assert "refused: <redacted>" in result.err
    for words in (("--cfg", "all"), ("--cfg", "job"), ("--info", "config")):
        result = cli("run", "data=remote", *words)
        assert SECRET not in result.out + result.err, words
    result = cli(
        "run", "-m", *WORDS[:1], f"data.api_token={SECRET},{SECRET}", "data.fail=false", "--dry-run", *WORDS[2:]
    )
    assert result.code == 0, result.err
    assert SECRET not in result.out


def test_a_secret_of_an_optimizer_is_in_no_checkpoint(cli, own_part):
    source = (
        "import torch\n\n\nclass Part(torch.optim.SGD):\n"
        "    def __init__(self, params, lr=1e-3, license_key=''):\n"
        "        super().__init__(params, lr=lr)\n"
        "        for group in self.param_groups:\n"
        "            group['license_key'] = license_key\n\n"
        "    def step(self, closure=None):\n"
        "        assert all(len(group['license_key']) == 22 for group in self.param_groups)\n"
        "        return super().step(closure)\n"
    )
    own_part("optim", "licensed", source, "lr: 1.0e-3\nlicense_key: ''\n")
    key = f"optim.license_key={SECRET}"
    assert cli("run", "run_dir=run", "optim=licensed", key, "steps=2", "data.inputs=4").code == 0
    result = cli("resume", "run", "steps=4", key)
    assert result.code == 0, result.err
    assert leaks() == []


@pytest.mark.parametrize(
    "word",
    ["data.api_token=1e5", "data.api_token=12345", "data.api_token=a=b", "data.api_token foo", "data.api_token:foo"],
)
def test_a_word_that_is_refused_is_not_repeated(cli, word):
    result = cli("run", "data=remote", word)
    assert result.code == 2
    assert not any(value in result.err for value in ("100000", "12345", "a=b", "foo"))


def test_the_next_commands_ask_for_it(cli):
    result = cli("run", "run_dir=run", *WORDS)
    for line in result.out.splitlines()[-2:]:
        assert " data.api_token=..." in line


def test_ordinary_words_are_left_alone(cli):
    result = cli("run", "data.api_token=step", "steps=3", "steps=4")
    assert "steps: is given twice: steps=3 and steps=4" in result.err


def test_a_launcher_takes_no_secrets(cli):
    result = cli("run", "-m", "seed=0,1", "hydra/launcher=joblib", f"+hydra.launcher.api_key={SECRET}")
    assert result.code == 2
    assert SECRET not in result.err


def test_small_numbers_and_ordinary_words_are_no_secrets(cli, own_part):
    """The index of a token, or a name that speaks of keys."""
    source = MODULE[: MODULE.index("    def")] + (
        "    def __init__(self, pad_token: int = 0):\n        super().__init__(torch.randn(8, 3), torch.randn(8, 2))\n"
    )
    own_part("data", "remote", source, "pad_token: 0\n")
    words = ("data=remote", "data.pad_token=5", "name='hotkey: three layers'", "run_dir='a key runs'")
    assert cli("run", *words, "steps=2", "model.hidden=3").code == 0
    result = cli("resume", "a key runs", "steps=3")
    assert result.code == 0, result.err
    assert "redacted" not in result.err + result.out + Path("a key runs/status.json").read_text()


def test_a_short_password_is_a_secret_all_the_same(cli, own_part):
    source = MODULE[: MODULE.index("    def")] + (
        "    def __init__(self, password: int):\n        super().__init__(torch.randn(8, 3), torch.randn(8, 2))\n"
    )
    own_part("data", "remote", source, "password: ???\n")
    assert cli("run", "data=remote", "data.password=137", "steps=1", "run_dir=run", "model.hidden=3").code == 0
    for name in ("config.yaml", "status.json", "lock", "trainer.log"):
        text = (Path("run") / name).read_text()
        assert "password: 137" not in text
        assert "password=137" not in text
        assert '"password": 137' not in text


@pytest.mark.parametrize("key", ["token", "hf_token", "Secret", "db.password", "API_KEY"])
def test_what_counts_as_a_secret(key):
    from trainer.config.secrets import is_secret

    assert is_secret(key)
    assert not is_secret(f"{key}s")
