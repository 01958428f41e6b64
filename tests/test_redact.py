"""Secrets: values under keys that end in token, secret, password or key stand in no file and no message."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import Run

SECRET = "hunter-22-secret-value"
MODULE = """
import torch
from trainer.data import Data

class Remote(Data):
    def __init__(self, api_token, fail=False):
        if api_token != "-".join(["hunter", "22", "secret", "value"]):
            raise ValueError("wrong token " + str(api_token))
        if fail:
            raise ValueError("refused: " + api_token)
        super().__init__(torch.randn(8, 3), torch.randn(8, 2))
"""


@pytest.fixture(autouse=True)
def remote():
    sys.modules.pop("my_remote", None)
    Path("my_remote.py").write_text(MODULE)
    Path("configs/data").mkdir(parents=True)
    Path("configs/data/remote.yaml").write_text("_target_: my_remote.Remote\napi_token: ???\nfail: false\n")


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
    assert "data.api_token: is a secret, which is not kept" in result.err
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
    from trainer.metrics import MetricsFile

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


@pytest.mark.parametrize("key", ["token", "hf_token", "Secret", "db.password", "API_KEY"])
def test_what_counts_as_a_secret(key):
    from trainer.redact import is_secret

    assert is_secret(key)
    assert not is_secret(f"{key}s")
