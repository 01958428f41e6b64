"""A kernel that the user asks for is used or refused; the default gives way to what is possible, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

SMALL = ("data.samples=16", "data.inputs=20", "data.outputs=3", "model.hidden=8", "optim.lr=0.01")
REFUSED = {
    "optim=adam optim.fused=true device.dtype=bfloat16": "loses small updates in bfloat16",
    "optim=adamw +optim.fused=true device.dtype=bfloat16": "loses small updates in bfloat16",
    "optim=adagrad optim.fused=true device.dtype=bfloat16": "loses small updates in bfloat16",
    "optim=adam optim.fused=true optim.foreach=true": "no such kernel with optim.foreach=true",
    "optim=sgd optim.fused=true optim.differentiable=true": "no such kernel with optim.differentiable=true",
    "optim=adam optim.fused=true compile=step": "compiled steps contain an update of their own",
    "optim=rprop optim.foreach=true compile=step": "compiled steps contain an update of their own",
    "-m optim=adam optim.fused=true hydra/launcher=vectorized seed=0,1": "an update of their own",
}


def script(dtype, **arguments):
    """The losses of a plain script that trains with Adam."""
    torch.manual_seed(0)
    x, y = torch.randn(16, 20, dtype=dtype), torch.randn(16, 3, dtype=dtype)
    model = nn.Sequential(nn.Linear(20, 8, dtype=dtype), nn.ReLU(), nn.Linear(8, 3, dtype=dtype))
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.01, **arguments), []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(x) - y).pow(2).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def losses_of(run):
    return [row["loss"] for row in run.steps]


def stored(run):
    return yaml.safe_load((run.path / "config.yaml").read_text())["optim"]


@pytest.mark.parametrize("words", REFUSED)
def test_a_kernel_that_would_not_be_used_is_refused(refused, words):
    assert REFUSED[words] in refused("run", *words.split())


@pytest.mark.parametrize("group", ["optim", "experiment"])
def test_a_file_of_the_users_asks_as_a_typed_word_does(cli, workdir, group):
    file = Path("configs", group, "mine.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(
        "# Mine\n_target_: torch.optim.Adam\nlr: 0.01\nfused: true\n"
        if group == "optim"
        else "# @package _global_\n# Mine\ndefaults:\n  - override /optim: adam\noptim:\n  fused: true\n"
    )
    assert cli("run", f"{group}=mine", "steps=1", "run_dir=single").code == 0
    result = cli("run", f"{group}=mine", "steps=1", "device.dtype=bfloat16", "run_dir=half")
    assert result.code == 2
    assert "optim.fused=true: torch's kernel loses small updates in bfloat16" in result.err
    assert "mine.yaml" in result.err
    assert not Path("half").exists()


def test_what_is_asked_for_has_the_bits_of_the_script(train):
    cases = {"fused": script(torch.float32, fused=True), "foreach": script(torch.float32, foreach=True)}
    for key, expected in cases.items():
        run = train("optim=adam", f"optim.{key}=true", *SMALL, "steps=20", name=key)
        assert losses_of(run) == expected
        assert stored(run)["fused"] == (key == "fused")


def test_the_default_gives_way_in_bfloat16_and_says_so(cli, train):
    words = ("optim=adam", "device.dtype=bfloat16", *SMALL)
    run = train(*words, "steps=10")
    assert stored(run)["fused"] is False
    assert "fused=true" not in cli("show", "run").out
    assert cli("run", *words, "run_dir=run", "resume=true", "steps=15").code == 0
    result = cli("resume", "run", "optim=adam", "optim.lr=0.01", "steps=20")
    assert (result.code, "fused" in result.out) == (0, False)
    assert losses_of(run) == script(torch.bfloat16)
    assert cli("reproduce", "run").code == 0
    before = run.bits()
    result = cli("resume", "run", "steps=25", "optim.fused=true")
    assert (result.code, "loses small updates" in result.err) == (2, True)
    assert run.bits() == before


def test_a_run_that_says_fused_and_went_without_goes_on_without(train, cli):
    """Runs of earlier versions say fused=true in bfloat16, where the kernel was off."""
    from trainer.config.settings import check
    from trainer.training.build import build

    run = train("optim=adam", "device.dtype=bfloat16", *SMALL, "steps=1")
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    config["optim"]["fused"] = True
    built = build(check(config))
    assert built.run.optimizer.defaults["fused"] is False
    assert built.settings.optim["fused"] is False


def test_jobs_that_ask_for_foreach_are_trained_singly(cli):
    words = ("-m", "optim=adam", "optim.foreach=true", "hydra/launcher=vectorized", "seed=0,1", "steps=2")
    result = cli("run", *words, *SMALL, "run_dir=sweep")
    assert result.code == 0
    assert "trained separately: optim=adam has settings" in result.out + result.err
