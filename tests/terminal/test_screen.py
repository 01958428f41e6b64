"""What is printed around a training: what starts, how it ended, and commands that work when they are typed."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path

import pytest
from conftest import Run, wait_until
from faults import default_handlers

SMALL = ("data.inputs=3", "data.outputs=2", "model.hidden=4")


def rows(text):
    """The texts of a two-column print by their names."""
    return dict(re.findall(r"^  (\S.*?)  +(.*)$", text, re.MULTILINE))


def commands(text):
    """The commands that one may type next, by what they do."""
    return {what: shlex.split(line)[1:] for what, line in rows(text).items() if line.startswith("trainer ")}


def test_before_a_run_it_says_what_is_trained_on_what_and_where(cli):
    result = cli("run", "steps=2", "batch_size=16", "data.validation=0.25", *SMALL)
    said = rows(result.err)
    assert result.err.startswith("two_layer  26 parameters")
    assert said["data"] == "random: 48 rows to train on, 16 to validate, 3 inputs, 2 outputs"
    assert said["loss"] == "sse"
    assert said["optim"] == "sgd lr=0.0001"
    assert said["steps"] == "2, batches of 16 rows, 3 steps per epoch"
    assert re.fullmatch(r"cpu, float32, 1 thread", said["device"])
    assert Path(said["run"]).is_dir()


def test_other_kinds_of_runs_are_described_as_well(cli):
    said = rows(cli("run", "model=product", "steps=1").err)
    assert said["data"] == "none: no inputs, target 15"
    result = cli("run", "model=mlp", "data=digits", "loss=cross_entropy", "steps=1", "accumulate=2", "batch_size=100")
    said = rows(result.err)
    assert said["data"] == "digits: 1,438 rows to train on, 359 to validate, 64 inputs, 10 classes"
    assert said["steps"] == "1, batches of 2 x 100 rows, 8 steps per epoch"


def test_the_result_of_a_run(cli):
    result = cli("run", "steps=30", "data.validation=0.25", *SMALL)
    run = Run(Path(rows(result.out)["run"]))
    said = rows(result.out)
    assert re.match(r"done  30 steps in [\d.]+ s, [\d.,]+ steps/s$", result.out.splitlines()[0])
    first, last = map(float, said["loss"].split(" -> "))
    assert first == pytest.approx(run.steps[0]["loss"], rel=1e-5)
    assert last == pytest.approx(run.steps[-1]["loss"], rel=1e-5)
    assert float(said["validation loss"]) == pytest.approx(run.evaluations[-1]["validation_loss"], rel=1e-5)
    assert re.fullmatch(r"validation loss [\d.]+ at step \d+", said["best"])


def test_a_small_model_ends_with_its_numbers(cli):
    said = rows(cli("run", "model=product", "steps=101", "optim.lr=3e-3").out)
    assert (said["a"], said["b"]) == ("3.4505", "4.3472")


def test_what_may_be_typed_after_a_run_works(cli):
    suggested = commands(cli("run", "model=numpy", "steps=3", "seed=1", *SMALL).out)
    assert len(suggested) == 2
    longer, anew = suggested.values()
    assert cli(*longer).out.startswith("done  3 more steps, 6 in total,")
    assert {"seed=1", "steps=3", *SMALL} < set(anew)
    result = cli(*anew)
    assert result.code == 0, result.err
    assert result.err.startswith("numpy")
    assert "init_from" in rows(result.err)


def test_a_run_counted_in_epochs_goes_on_in_epochs(cli):
    suggested = commands(cli("run", "epochs=2", "batch_size=16", *SMALL).out)
    assert "epochs=4" in suggested["train longer"]
    assert cli(*suggested["train longer"]).out.startswith("done  8 more steps, 16 in total,")


def test_a_run_that_lost_patience_says_so_and_how_to_give_it_more(cli):
    result = cli("run", "steps=500", "optim.lr=0.01", "data.validation=0.5", "patience=3", *SMALL)
    assert "3 evaluations without improvement" in result.out
    assert "patience=6" in commands(result.out)["train longer, with more patience"]
    assert cli(*commands(result.out)["train longer, with more patience"]).code == 0


def test_a_stopped_run_says_how_to_go_on(cli, fork):
    child = fork("run", "run_dir=here", "steps=1000000", *SMALL, prepare=default_handlers)
    wait_until(lambda: Path("here/metrics.jsonl").exists() and Path("here/metrics.jsonl").stat().st_size)
    child.kill(signal.SIGINT)
    assert child.wait() == 130
    stopped = re.search(r"^stopped  at step ([\d,]+) of 1,000,000 \(Ctrl-C\); everything is saved$", child.text, re.M)
    step = int(stopped[1].replace(",", ""))
    assert commands(child.text) == {"resume": ["resume", "here"]}
    result = cli("resume", "here", f"steps={step + 5}")
    assert re.search(rf"^resuming here, stopped at step {step:,}$", result.err, re.M)
    assert f"  steps  1000000 -> {step + 5}\n" in result.err
    assert f"continuing from step {step:,}\n" in result.err


def test_after_a_kill_the_step_is_that_of_the_checkpoint(cli, fork):
    child = fork("run", "run_dir=here", "steps=1000000", "checkpoint.every=20", *SMALL)
    wait_until(lambda: len(list(Path("here").glob("checkpoints/step-*"))) > 1)
    child.kill()
    child.wait()
    step = int(max(Path("here/checkpoints").glob("step-*")).name[5:])
    end = Run(Path("here")).status["step"] + 100  # status.json may be ahead of the checkpoint
    result = cli("resume", "here", f"steps={end}")
    assert result.err.startswith("resuming here, interrupted at step ")
    assert f"continuing from step {step:,}\n" in result.err
    assert result.out.startswith(f"done  {end - step:,} more steps,")


def test_a_complete_run_says_what_else_there_is(cli, train):
    train("steps=3", *SMALL)
    result = cli("resume", "run")
    assert result.code == 0
    assert result.out.startswith("run is complete at step 3\n")
    assert commands(result.out)["train longer"] == ["resume", "run", "steps=6"]


def test_a_run_that_fails_says_where_it_is_and_what_to_do(cli):
    result = cli("run", "optim.lr=10", "name=two words", *SMALL)
    assert (result.code, result.out) == (1, "")
    message = result.err[result.err.index("error: ") :]
    assert "grows without bound" in message.splitlines()[0]
    assert Path(rows(message)["run"]).is_dir()
    look, again = commands(message).values()
    assert look[0] == "inspect"
    assert again[0] == "run"
    assert {"name=two words", *SMALL} < set(again)
    changed = next(word for word in again if word.startswith("optim.lr="))
    assert f"{changed}: the loss falls from " in rows(message)["fix"]


def test_a_run_that_was_saved_too_late_is_started_again(cli):
    result = cli("run", "optim.lr=0.03", "checkpoint.every=1", "run_dir=here", *SMALL)
    assert result.code == 1
    onward = commands(result.err)
    assert ["run", "optim.lr=0.003", "checkpoint.every=1", *SMALL] in onward.values()
    assert not any(words[0] == "resume" for words in onward.values())  # from there nothing that was tried helps


def test_a_loss_without_a_minimum_leads_to_other_losses(cli):
    result = cli("run", "loss=difference", "optim.lr=100", *SMALL)
    assert result.code == 1
    assert ["list", "loss"] in commands(result.err).values()


def test_names_are_shown_as_they_are(cli, workdir):
    result = cli("run", 'run_dir="[red]results[/red]"', "steps=1", *SMALL)
    assert result.code == 0, result.err
    assert rows(result.out)["run"] == "[red]results[/red]"
    assert cli(*commands(result.out)["train longer"]).code == 0
