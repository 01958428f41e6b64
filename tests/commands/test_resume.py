"""A run that was killed or stopped, and resumed, ends with the bits of one that never stopped."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from conftest import Run, wait_until
from instants import SMALL, at_every_change, content, ending, on_row, require_same, send_at, train_and_copy, trained

from trainer.config import settings

CONFIGS = Path(__file__).parents[2] / "configs"
MODELS = sorted(path.stem for path in CONFIGS.glob("model/*.yaml"))
OPTIMIZERS = sorted(path.stem for path in CONFIGS.glob("optim/*.yaml"))


def words_of(model: str) -> tuple[str, ...]:
    """What to train a model with; product has no data to cut into batches."""
    if model == "product":
        return ("model=product", "data=none", "steps=23", "checkpoint.every=7", "optim=sgd_momentum", "optim.lr=0.001")
    return (f"model={model}", *SMALL)


# Killed


@pytest.mark.parametrize("model", MODELS)
def test_killed_and_resumed_is_never_stopped(cli, fork, model):
    words = words_of(model)
    straight = trained(cli, "straight", *words)
    child = fork("run", "run_dir=killed", *words, prepare=send_at(17))
    assert child.wait() == -signal.SIGKILL
    assert Run(Path("killed")).status["state"] == "running"
    Path("killed/.status.json.0").write_text("half")
    assert len(Run(Path("killed")).steps) == 17
    result = cli("resume", "killed")
    assert result.code == 0, result.err
    assert "from step 14" in result.err
    require_same("killed", straight.path)
    assert sorted(os.listdir("killed")) == sorted(os.listdir("straight"))


@pytest.mark.parametrize("optim", sorted({*OPTIMIZERS} - {"sparse_adam"}))  # which takes sparse gradients only
def test_every_optimizer_goes_on_exactly(cli, optim):
    model = "tensor" if optim == "muon" else "two_layer"  # muon takes matrices only
    quick = ("optim.max_iter=5",) if optim == "lbfgs" else ()
    train_and_copy(cli, f"model={model}", f"optim={optim}", *quick, *SMALL, killed=17)
    assert cli("resume", "killed").code == 0
    require_same("killed", "straight")


FEATURES = {
    "dropout and batch norm": ("model=mlp", "model.dropout=0.3", "model.norm=batch"),
    "random depths, several batches a step": ("model=dynamic", "accumulate=2", "optim=sgd_momentum"),
    "random depths in a line search": ("model=dynamic", "optim=lbfgs", "optim.lr=0.1", "optim.max_iter=4"),
    "clipped": ("clip_norm=0.5", "optim=adam"),
    "cosine": ("schedule=cosine", "optim=adam"),
    "warm-up": ("schedule=warmup_cosine", "schedule.warmup=9"),
    "one cycle": ("schedule=one_cycle",),
    "plateau": ("schedule=plateau", "schedule.patience=0", "schedule.threshold=0.5", "optim.lr=0.001"),
    "patience": ("patience=5", "steps=200"),
    "amp": ("device.amp=true", "optim=adam"),
    "float64": ("device.dtype=float64", "optim=nadam"),  # whose float32 product of momenta torch would cast
    "float64, averaged": ("device.dtype=float64", "optim=asgd", "optim.lr=0.001", "optim.lambd=0.1"),
    "bfloat16": ("device.dtype=bfloat16", "optim=nadam"),
    "full batch": ("batch_size=36", "optim=rprop"),
    "an evaluation a step": ("eval_every=1", "checkpoint.best=true"),
    "epochs": ("epochs=4",),
    "few rows": ("log_every=5",),
    "classes": ("data=digits", "model=linear", "loss=cross_entropy", "batch_size=512", "monitor=validation_accuracy"),
    "deterministic": ("device.deterministic=true",),
}


@pytest.mark.parametrize("words", FEATURES.values(), ids=FEATURES)
def test_every_feature_goes_on_exactly(cli, words):
    keys = {word.partition("=")[0] for word in words} | ({"steps"} if "epochs=4" in words else set())
    common = [word for word in SMALL if word.partition("=")[0] not in keys]
    if "data=digits" in words:
        common = [word for word in common if not word.startswith("data.")]
    train_and_copy(cli, *words, *common, killed=17)
    assert cli("resume", "killed").code == 0
    require_same("killed", "straight")


OUTSIDE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, inputs, outputs, init="linear"):
        super().__init__()
        self.linear = torch.nn.Linear(inputs, outputs)
        self.passes = 0
    def forward(self, x):
        self.passes += self.training
        return self.linear(x) * (1 + 1 / (1 + self.passes))
    def get_extra_state(self):
        return {"passes": self.passes}
    def set_extra_state(self, state):
        self.passes = state["passes"]

class Loss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.ones(()))
    def forward(self, prediction, target):
        loss = (prediction - target).square().mean()
        if torch.is_grad_enabled():
            self.mean = 0.9 * self.mean + 0.1 * loss.detach()
        return loss / self.mean

class Optimizer(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr, "seen": 0, "largest": float("-inf")})
    def step(self, closure):
        loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                group["seen"] += 1
                group["largest"] = max(group["largest"], loss)
                for w in group["params"]:
                    past = self.state[w].setdefault("past", [])
                    past.append({"grad": w.grad.clone(), "weights": (group["seen"], float("inf"))})
                    del past[:-3]
                    w -= group["lr"] / group["seen"] / group["largest"] * sum(one["grad"] for one in past)
        return loss
"""


def test_parts_from_outside_go_on_exactly(cli):
    """A model with extra state, a loss with a buffer, an optimizer with nested state and numbers in its groups."""
    Path("outside.py").write_text(OUTSIDE)
    begun = (
        "loss._target_=outside.Loss",
        "optim=gd",
        "optim._target_=outside.Optimizer",
        "optim.lr=0.01",
        "model=linear",
    )
    train_and_copy(cli, *begun, "model._target_=outside.Net", *SMALL, killed=17)
    assert cli("resume", "killed").code == 0
    require_same("killed", "straight")


def test_killed_again_and_again_and_before_the_first_checkpoint(cli, fork):
    train_and_copy(cli, "model=dynamic", *SMALL, killed=1)
    assert not list(Path("killed/checkpoints").iterdir())
    for step in (3, 6, 12, 9, 20):
        child = fork("resume", "killed", prepare=send_at(step))
        assert child.wait() == -signal.SIGKILL
    result = cli("resume", "killed")
    assert result.code == 0
    assert "from step 14" in result.err
    require_same("killed", "straight")
    assert [segment["from_step"] for segment in Run(Path("killed")).status["segments"]] == [0, 0, 0, 0, 7, 7, 14]


def test_killed_at_any_change_of_the_disk(cli):
    """Every state that the files of a run pass through is one from which it goes on: saves, removals, status."""
    seen = {}

    def copy() -> None:
        files = content(Path("straight"))
        if "config.yaml" in files and files != (list(seen.values()) or [None])[-1]:
            name = f"at-{len(seen):03d}"
            shutil.copytree("straight", name)
            seen[name] = files

    words = [word for word in SMALL if not word.startswith(("steps=", "checkpoint.every=", "eval_every="))]
    words += ["model=dynamic", "optim=adam", "steps=6", "checkpoint.every=2", "eval_every=3", "checkpoint.keep=1"]
    with at_every_change(copy):
        trained(cli, "straight", *words)
    assert len(seen) > 30
    for name in seen:
        result = cli("resume", name)
        assert result.code == 0, result.err
        assert "warning" not in result.err
        require_same(name, "straight")
        assert [path.name for path in sorted(Path(name).iterdir())] == sorted(os.listdir("straight"))
        assert sorted(os.listdir(f"{name}/checkpoints")) == sorted(os.listdir("straight/checkpoints"))


def test_killed_while_it_is_created_and_started_again(cli):
    seen = []

    def copy() -> None:
        if not Path("straight/config.yaml").exists() and Path("straight").exists():
            shutil.copytree("straight", f"at-{len(seen)}")
            seen.append(f"at-{len(seen)}")

    with at_every_change(copy):
        trained(cli, "straight", "steps=3")
    assert len(seen) > 3
    for name in seen:
        result = cli("run", "steps=3", f"run_dir={name}", "resume=true")
        assert result.code == 0, result.err
        require_same(name, "straight")


def test_a_disk_that_fails_at_any_moment_of_a_save(cli, monkeypatch):
    """The run ends in one line, what was saved before stays, and it goes on once there is room."""
    train_and_copy(cli, "steps=6", "checkpoint.every=3", "checkpoint.keep=1", killed=2)
    for number in range(100):
        shutil.copytree("killed", "failing")
        calls, code = itertools.count(), (errno.ENOSPC, errno.EIO)[number % 2]

        def failing(operation, calls=calls, code=code, number=number):
            def call(*args, **kwargs):
                if (there := Path("failing/metrics.jsonl")).exists() and there.stat().st_size and next(calls) == number:
                    raise OSError(code, os.strerror(code), "somewhere")
                return operation(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in ("fsync", "mkdir", "rename"):
                patch.setattr(os, name, failing(getattr(os, name)))
            result = cli("resume", "failing")
        if next(calls) <= number:
            assert result.code == 0
            break
        assert result.code == 1, number
        assert result.err.splitlines()[-3].startswith(f"error: {os.strerror(code)}"), result.err
        assert not list(Path("failing/checkpoints").glob(".staged*"))
        assert cli("resume", "failing").code == 0
        require_same("failing", "straight")
        shutil.rmtree("failing")
    assert number > 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_killed_at_random_instants_and_damaged(cli, fork, seed):
    chance = random.Random(seed)
    model = MODELS[seed % len(MODELS)]
    words = (*words_of(model), f"seed={seed}")
    train_and_copy(cli, *words, killed=1)
    seconds = Run(Path("straight")).status["segments"][0]["seconds"] + 0.3
    damages = [chance.choice([*DAMAGE.values()])]
    for _ in range(3):
        child = fork("resume", "killed")
        time.sleep(chance.uniform(0, seconds))
        child.kill()
        assert child.wait() in (0, -signal.SIGKILL), child.text
        saved = sorted(Path("killed/checkpoints").glob("step-*"))
        if len(saved) > 1 and damages and chance.random() < 0.5:
            damages.pop()(saved[-1])
            Path("killed/status.json").unlink(missing_ok=True)  # a run that is done is not looked at again
    assert cli("resume", "killed").code == 0
    require_same("killed", "straight")


# Longer


@pytest.mark.parametrize(
    ("first", "longer"), [("steps=10", "steps=23"), ("epochs=2", "epochs=5"), ("steps=10", "epochs=5")]
)
def test_a_finished_run_goes_on_longer(cli, first, longer):
    words = [word for word in SMALL if not word.startswith("steps=")]
    trained(cli, "straight", *words, "model=dynamic", "optim=adam", longer)
    trained(cli, "extended", *words, "model=dynamic", "optim=adam", first)
    result = cli("resume", "extended", longer)
    assert result.code == 0
    assert f"{longer.partition('=')[0]}" in result.err
    require_same("extended", "straight")
    status = Run(Path("extended")).status
    assert [segment["overrides"] for segment in status["segments"]][1:] == [[longer]]
    assert (status["state"], status["step"], status["steps"]) == ("done", status["steps"], status["steps"])


def test_a_finished_run_is_complete(cli):
    run = trained(cli, "run", *SMALL)
    before = content(run.path)
    result = cli("resume", "run")
    assert result.code == 0
    assert "complete at step 23" in result.out
    assert content(run.path) == before


@pytest.mark.parametrize("word", ["steps=13", "epochs=2"])
def test_fewer_steps_than_are_done_are_refused(cli, word):
    run = trained(cli, "run", *SMALL)
    before = content(run.path)
    result = cli("resume", "run", word)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith(f"error: {word}")
    assert "already taken 23 steps" in result.err
    assert {k: v for k, v in content(run.path).items() if k != "lock"} == {
        k: v for k, v in before.items() if k != "lock"
    }


def test_a_killed_run_may_end_earlier_than_its_status_says(cli):
    """What counts is the newest checkpoint, not how far the killed process had come."""
    train_and_copy(cli, *SMALL, killed=12)
    assert cli("resume", "killed", "steps=8").code == 0
    trained(cli, "short", *[word for word in SMALL if not word.startswith("steps=")], "steps=8")
    require_same("killed", "short")


# Changed settings

CHANGES = {
    "log_every=5": "harmless",
    "name=other": "harmless",
    "checkpoint.every=3": "harmless",
    "checkpoint.seconds=9": "harmless",
    "checkpoint.keep=5": "harmless",
    "checkpoint.best=false": "harmless",
    "max_jobs=5": "harmless",
    "compile=step": "re-plans",
    "steps=40": "re-plans",
    "epochs=9": "re-plans",
    "eval_every=2": "re-plans",
    "clip_norm=1": "re-plans",
    "optim.lr=1e-5": "re-plans",
    "optim.weight_decay=0.1": "re-plans",
    "schedule=cosine": "re-plans",
    "schedule.final=0.1": "re-plans",
    "patience=5": "re-plans",
    "monitor=validation_loss": "re-plans",
    "mode=min": "re-plans",
    "on_nonfinite=skip": "re-plans",
    "max_skips=3": "re-plans",
    "max_divergence=10": "re-plans",
    "device.type=cuda": "re-plans",
    "device.index=1": "re-plans",
    "device.threads=2": "re-plans",
    "device.deterministic=true": "re-plans",
    "seed=1": "refused",
    "batch_size=4": "refused",
    "accumulate=2": "refused",
    "init_from=other": "refused",
    "run_dir=other": "refused",
    "device.dtype=float64": "refused",
    "device.amp=true": "refused",
    "model=mlp": "refused",
    "model.hidden=7": "refused",
    "data=digits": "refused",
    "data.samples=60": "refused",
    "loss=mse": "refused",
    "loss.reduction=sum": "refused",
    "optim=adam": "refused",
    "logger=csv": "harmless",
    "logger.tensorboard.points=9": "harmless",
}


@pytest.mark.parametrize(("word", "kind"), CHANGES.items())
def test_what_a_changed_setting_means(word, kind):
    key = word.partition("=")[0]
    key += "._target_" if key in ("model", "data", "loss", "optim") else ""
    assert settings.resume_kind(key) == kind


def test_every_setting_has_a_kind():
    keys = {word.partition("=")[0] for word in CHANGES}
    sections = {f"{name}.{key}" for name, section in settings.SECTIONS.items() for key in section.__dataclass_fields__}
    roots = {*settings.Settings.__dataclass_fields__} - {*settings.SECTIONS, *settings.COMPONENTS, "resume"}
    assert sections | roots <= keys


@pytest.mark.parametrize("word", [w for w, kind in CHANGES.items() if kind == "refused" and "=other" not in w])
def test_another_run_is_refused_without_force(cli, word):
    run = trained(cli, "run", "steps=2", "data.validation=0.25", "loss=mse")
    if word.startswith("loss="):
        word = "loss=sse"
    before = content(run.path)
    result = cli("resume", "run", word)
    assert result.code == 2
    assert "a different run" in result.err
    assert "--force" in result.err
    assert content(run.path) == before


@pytest.mark.parametrize(
    "words",
    [
        ("optim.lr=0.001", "steps=30"),
        ("schedule=cosine", "steps=30"),
        ("schedule=plateau", "steps=30"),
        ("patience=5", "monitor=validation_loss", "mode=max", "steps=30"),
        ("clip_norm=0.1", "eval_every=2", "log_every=3", "steps=30"),
    ],
)
def test_changes_hold_from_the_checkpoint_on(cli, words):
    run = trained(cli, "run", *SMALL)
    rows = run.rows
    result = cli("resume", "run", *words)
    assert result.code == 0, result.err
    assert run.rows[: len(rows)] == rows
    assert run.status["state"] == "done"
    for word in words:
        assert word.partition("=")[0] in result.err
    # Once made, the changes are the run's own.
    assert cli("resume", "run").out.count("complete") == 1


def test_a_metric_that_is_watched_only_now_has_its_own_best(cli):
    words = ("data=digits", "model=linear", "loss=cross_entropy", "batch_size=512", "optim=adam", "optim.lr=0.01")
    run = trained(cli, "run", *words, "steps=6")
    assert run.status["best"]["metric"] == "validation_loss"
    assert cli("resume", "run", "monitor=validation_accuracy", "steps=12").code == 0
    best = run.status["best"]
    later = {row["step"]: row["validation_accuracy"] for row in run.evaluations if row["step"] > 6}
    assert best["metric"] == "validation_accuracy"
    assert best["value"] == max(later.values()) == later[best["step"]]


@pytest.mark.parametrize(
    ("first", "words", "lost"),
    [
        (("optim=adam",), ("optim.amsgrad=true",), "max_exp_avg_sq"),
        (("optim=rmsprop",), ("optim.momentum=0.9", "optim.centered=true"), "grad_avg, momentum_buffer"),
        (("optim=sgd_momentum",), ("optim=adam", "--force"), "exp_avg"),
        (("optim=adam",), ("optim=lbfgs", "--force"), "func_evals"),
        (("optim=adam",), ("optim.betas=[0.8,0.9]",), ""),
        (("optim=sgd",), ("optim=sgd_momentum",), ""),
        (("optim=adam",), ("optim=sgd_momentum", "--force"), "momentum_buffer"),
    ],
)
def test_an_optimizer_that_keeps_more_state_is_reset_with_a_warning(cli, first, words, lost):
    run = trained(cli, "run", *SMALL, *first)
    result = cli("resume", "run", *words, "steps=30")
    assert result.code == 0, result.err
    assert ("optimizer state reset" in result.err) == bool(lost)
    assert lost in result.err
    assert run.status["step"] == 30
    chosen = [word.partition("=")[2] for word in (*first, *words) if word.startswith("optim=")]
    assert run.status["choices"]["optim"] == chosen[-1]


def test_weights_of_another_shape_are_refused_even_with_force(cli):
    run = trained(cli, "run", *SMALL)
    before = content(run.path)
    result = cli("resume", "run", "model.hidden=7", "steps=30", "--force")
    assert result.code == 2
    assert "linear1.weight: [100, 12] in the checkpoint, [7, 12] in the model" in result.err
    assert {k: v for k, v in content(run.path).items() if k != "lock"} == {
        k: v for k, v in before.items() if k != "lock"
    }
    assert cli("resume", "run", "steps=30").code == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("steps=3",), "error: job 000: steps=3: the run has already taken 4 steps"),
        (
            ("model.hidden=7", "steps=9", "--force"),
            "error: job 000: sweep/000/checkpoints/step-000000000004: the weights do not fit the model",
        ),
        (("loss=mse", "steps=9"), "error: job 000: loss=mse: would make it a different run (it has sse)"),
    ],
)
def test_a_change_that_one_job_cannot_take_changes_none(cli, words, reason):
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1", "steps=4", "data.inputs=5").code == 0
    before = content(Path("sweep"))
    result = cli("resume", "sweep", *words)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith(reason)
    after = content(Path("sweep"))
    assert {k: v for k, v in after.items() if "lock" not in k} == {k: v for k, v in before.items() if "lock" not in k}


# Started again by a script


def test_resume_true_starts_and_goes_on(cli, fork):
    straight = trained(cli, "straight", *SMALL)
    words = ("run", "run_dir=job", "resume=true", *SMALL)
    assert fork(*words, prepare=send_at(17)).wait() == -signal.SIGKILL
    result = cli(*words)
    assert result.code == 0
    assert "from step 14" in result.err
    require_same("job", straight.path)
    result = cli(*words)
    assert result.code == 0
    assert "complete" in result.out
    longer = [word if not word.startswith("steps=") else "steps=25" for word in words]
    assert cli(*longer).code == 0
    assert Run(Path("job")).status["step"] == 25
    refused = cli(*words, "seed=3")
    assert refused.code == 2
    assert "seed=3" in refused.err


# Another run's weights


def test_init_from_starts_with_the_best_weights(cli):
    source = trained(cli, "source", *SMALL, "optim.lr=0.003", "checkpoint.keep=1")
    best = source.status["best"]["step"]
    assert best < 23
    weights = source.weights(0)
    run = trained(cli, "next", "init_from=source", "steps=3", "data.samples=48", "data.inputs=12", "data.outputs=3")
    torch.manual_seed(0)
    x, y = torch.randn(48, 12), torch.randn(48, 3)
    h = torch.nn.functional.linear(x, weights["linear1.weight"], weights["linear1.bias"]).clamp(min=0)
    prediction = torch.nn.functional.linear(h, weights["linear2.weight"], weights["linear2.bias"])
    assert run.steps[0]["loss"] == pytest.approx((prediction - y).pow(2).sum().item(), rel=1e-6)


def test_init_from_is_needed_once(cli):
    """The weights that a run starts from are kept with it: the other run may change or go."""
    trained(cli, "source", *SMALL)
    words = ("init_from=source", *SMALL, "seed=1")
    train_and_copy(cli, *words, killed=3)
    shutil.rmtree("source")
    result = cli("resume", "killed")
    assert result.code == 0, result.err
    assert "from step 0" in result.err
    require_same("killed", "straight")


def test_a_run_that_began_with_weights_goes_on_from_its_best_step(cli):
    trained(cli, "source", *SMALL)
    run = trained(cli, "run", "init_from=source", *SMALL[1:], "steps=20", "monitor=validation_loss", "mode=max")
    assert run.status["best"]["step"] == 20
    result = cli("resume", "run", "steps=24", "optim.lr=0")
    assert result.code == 0, result.err
    assert run.status["best"]["step"] == 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model.hidden=7",), "linear1.weight: [100, 12] in the checkpoint, [7, 12] in the model"),
        (("model=linear",), "linear.weight is missing in the checkpoint"),
        (("init_from=nowhere",), "nowhere: no such run"),
    ],
)
def test_init_from_what_does_not_fit_is_refused(cli, words, message):
    trained(cli, "source", *SMALL)
    given = () if "init_from=nowhere" in words else ("init_from=source",)
    result = cli("run", "run_dir=next", *given, *words, *SMALL)
    assert result.code == 2
    assert message in result.err
    assert not Path("next").exists()


def test_init_from_a_damaged_run_is_refused(cli):
    source = trained(cli, "source", *SMALL)
    flip(source.checkpoints[-1] / "model.safetensors")
    result = cli("run", "run_dir=next", "init_from=source", *SMALL)
    assert result.code == 2
    assert "SHA-256" in result.err


# Two writers


def test_a_second_writer_is_refused_and_named_the_first(cli, fork):
    train_and_copy(cli, *SMALL, killed=10)
    os.mkfifo("go")

    def wait(row):
        if row["step"] == 9:
            Path("waiting").touch()
            Path("go").read_text()

    child = fork("resume", "killed", prepare=lambda: on_row(wait))
    wait_until(Path("waiting").exists)
    before = content(Path("killed"))
    for words in (("resume", "killed"), ("resume", "killed", "steps=99"), ("resume", "killed", "optim.lr=1")):
        result = cli(*words)
        assert result.code == 2
        assert f"killed is in use by process {child.pid} on " in result.err
        assert "trainer resume killed" in result.err
    assert content(Path("killed"))["config.yaml"] == before["config.yaml"]
    Path("go").write_text("now")
    assert child.wait() == 0
    require_same("killed", "straight")


def test_two_that_start_at_once(cli, fork):
    """One trains and the other is refused, or comes late and finds it complete."""
    train_and_copy(cli, *SMALL, begun=1)
    for number in range(5):
        shutil.copytree("begun", f"both-{number}")
        children = [fork("resume", f"both-{number}") for _ in range(2)]
        codes = sorted(child.wait() for child in children)
        assert codes in ([0, 0], [0, 2]), [child.text for child in children]
        require_same(f"both-{number}", "straight")
    children = [fork("run", "run_dir=new", *SMALL) for _ in range(2)]
    assert sorted(child.wait() for child in children) == [0, 2], [child.text for child in children]
    require_same("new", "straight")


# Damage


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


DAMAGE = {
    "flipped": lambda last: flip(last / "model.safetensors"),
    "flipped state": lambda last: flip(last / "training.safetensors", 500),
    "flipped manifest": lambda last: flip(last / "manifest.json", 20),
    "truncated": lambda last: os.truncate(last / "training.safetensors", 100),
    "empty": lambda last: os.truncate(last / "state.json", 0),
    "missing": lambda last: (last / "state.json").unlink(),
    "no manifest": lambda last: (last / "manifest.json").unlink(),
    "HTML": lambda last: (last / "manifest.json").write_text("<html>"),
    "a file": lambda last: (shutil.rmtree(last), last.write_text("")),
    "renamed": lambda last: (shutil.rmtree(last), shutil.copytree(sorted(last.parent.iterdir())[0], last)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(cli, damage):
    train_and_copy(cli, "model=dynamic", *SMALL, "checkpoint.best=false", killed=20)
    last = Path("killed/checkpoints/step-000000000014")
    damage(last)
    result = cli("resume", "killed")
    assert result.code == 0, result.err
    assert f"warning: {last}" in result.err
    assert "step 7 is the newest good checkpoint" in result.err
    require_same("killed", "straight")
    assert sorted(os.listdir("killed/checkpoints"))[0] == "broken-step-000000000014"


def test_no_good_checkpoint_is_no_reason_to_start_over_in_silence(cli):
    train_and_copy(cli, *SMALL, "checkpoint.best=false", killed=20)
    for checkpoint in Path("killed/checkpoints").iterdir():
        flip(checkpoint / "model.safetensors")
    before = content(Path("killed"))
    result = cli("resume", "killed")
    assert result.code == 2
    assert result.err.count("warning: ") == 2
    assert "none of its checkpoints is good" in result.err
    assert "trainer resume killed --force" in result.err
    after = content(Path("killed"))
    assert {k: v for k, v in after.items() if k != "lock"} == {k: v for k, v in before.items() if k != "lock"}
    result = cli("resume", "killed", "--force")
    assert result.code == 0
    require_same("killed", "straight")


def test_checkpoints_that_are_gone_are_missed(cli):
    run = trained(cli, "run", *SMALL)
    for checkpoint in run.checkpoints:
        shutil.rmtree(checkpoint)
    result = cli("resume", "run", "steps=30")
    assert result.code == 2
    assert "its checkpoints are missing" in result.err
    assert len(run.steps) == 23
    assert cli("resume", "run", "steps=30", "--force").code == 0
    assert len(run.steps) == 30


def test_a_newer_format_is_refused_instead_of_passed_over(cli):
    train_and_copy(cli, *SMALL, killed=20)
    last = Path("killed/checkpoints/step-000000000014")
    for name in ("manifest.json", "state.json"):
        content_ = json.loads((last / name).read_text())
        (last / name).write_text(json.dumps({**content_, "format": 2}))
    result = cli("resume", "killed")
    assert result.code == 2
    assert f"{last} has format 2" in result.err
    assert last.is_dir()


@pytest.mark.parametrize("kept", [0, 100, 0.5, None])
def test_lost_metrics_are_not_made_up(cli, kept):
    """Of a file that is shorter than it was at the checkpoint the whole rows stay; nothing is padded."""
    train_and_copy(cli, *SMALL, killed=20)
    file = Path("killed/metrics.jsonl")
    lines = Path("straight/metrics.jsonl").read_bytes().splitlines(keepends=True)
    if kept is None:
        file.unlink()
        there = 0
    else:
        size = kept if isinstance(kept, int) else int(len(b"".join(lines[:10])) * kept)
        os.truncate(file, size)
        there = file.read_bytes().count(b"\n")
    result = cli("resume", "killed")
    assert result.code == 0
    assert "warning: killed/metrics.jsonl is shorter" in result.err
    at_14 = next(i for i, line in enumerate(lines) if json.loads(line)["step"] == 15)
    assert file.read_bytes() == b"".join(lines[:there] + lines[at_14:])
    weights = {name: data for name, data in ending("killed").items() if name.endswith("safetensors")}
    assert weights.items() <= ending("straight").items()


@pytest.mark.parametrize("text", [None, "", "{", "[]"])
def test_a_lost_status_is_made_anew(cli, text):
    train_and_copy(cli, *SMALL, killed=20)
    file = Path("killed/status.json")
    file.unlink() if text is None else file.write_text(text)
    assert cli("resume", "killed").code == 0
    require_same("killed", "straight")
    status = Run(Path("killed")).status
    assert (status["state"], status["step"], status["choices"]["model"]) == ("done", 23, "TwoLayerNet")
    assert {*status} >= {*Run(Path("straight")).status} - {"id", "format"}


def test_other_circumstances_are_named(cli):
    train_and_copy(cli, *SMALL, killed=20)
    file = Path("killed/status.json")
    status = json.loads(file.read_text())
    status["segments"][0]["versions"]["torch"] = "1.0"
    status["segments"][0]["machine"]["threads"] = 64
    file.write_text(json.dumps(status))
    result = cli("resume", "killed")
    assert result.code == 0
    now = torch.__version__
    assert f"warning: bit-identical results are not guaranteed: torch: 1.0 -> {now}, threads: 64 -> 1" in result.err


def test_a_finished_run_that_is_damaged_is_not_called_complete(cli):
    run = trained(cli, "run", *SMALL)
    trained(cli, "straight", *SMALL)
    flip(run.checkpoints[-1] / "model.safetensors")
    result = cli("resume", "run")
    assert result.code == 0
    assert "is the newest good checkpoint" in result.err
    require_same("run", "straight")


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("model=mlp", ["model=mlp: would make it a different run (it has two_layer)"]),
        (
            "data.sampels=9",
            ["data.sampels=9: would make it a different run (it has null)", "did you mean data.samples?"],
        ),
    ],
)
def test_what_would_be_another_run_is_named_as_it_was_typed(cli, word, parts):
    trained(cli, "run", *SMALL)
    result = cli("resume", "run", word)
    assert result.code == 2
    for part in parts:
        assert part in result.err


def test_a_script_that_starts_from_the_best_can_be_started_again(cli):
    trained(cli, "runs/20260101-000000-bbbb", *SMALL)
    words = ("run", "run_dir=next", "init_from=best", "resume=true", *SMALL)
    assert cli(*words).code == 0
    result = cli(*words)
    assert result.code == 0, result.err
    assert "complete" in result.out
