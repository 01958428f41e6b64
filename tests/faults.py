"""Faults that a run must survive, in series of cases: short ones in the suite, whole ones in scripts/faults.py.

A series yields a line for every case: None when it was survived, else what went wrong.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import Fork, Run
from instants import SMALL, begin, ending, on_row, send_at, trained

from trainer.checkpoints import manifest, store
from trainer.session import job, metrics_writer, train
from trainer.session.saver import Saver
from trainer.session.stopping import ASKED
from trainer.training import loop

Case = str | None
Cli = Callable[..., Any]
MODELS = sorted(path.stem for path in (Path(__file__).parents[1] / "configs/model").glob("*.yaml"))
EVERY = 5
COMMON = (
    *("steps=40", "batch_size=8", "data.samples=48", "data.inputs=12", "data.outputs=3", "data.validation=0.25"),
    *("eval_every=4", f"checkpoint.every={EVERY}"),
)
FEATURES = (
    ("optim=sgd_momentum", "accumulate=2"),
    ("optim=adam", "schedule=warmup_cosine", "schedule.warmup=9"),
    ("optim=adamw", "schedule=cosine", "clip_norm=0.5"),
    ("optim=rmsprop", "schedule=plateau", "schedule.patience=0"),
    ("optim=lbfgs", "optim.max_iter=3", "optim.lr=0.1"),
    ("optim=sgd", "schedule=one_cycle"),
)


def words_of(number: int) -> tuple[str, ...]:
    """What a case trains: all models and several optimizers come up in turn, with all that could go astray."""
    model, features = MODELS[number % len(MODELS)], FEATURES[number % len(FEATURES)]
    if model == "product":
        return ("model=product", "data=none", "steps=40", f"checkpoint.every={EVERY}", "optim.lr=0.001")
    if model == "mlp":
        features = (*features, "model.dropout=0.3", "model.norm=layer")
    return (f"model={model}", f"seed={number}", *features, *COMMON)


def differing(path: Path | str, straight: Path | str) -> str | None:
    """Name the files in which a run's end differs from that of one that never stopped."""
    found, expected = ending(path), ending(straight)
    wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    return f"{path}: {', '.join(wrong)} differ" if wrong else None


def resumed(cli: Cli, path: Path | str, straight: Path | str) -> Case:
    """Resume a run and compare its end."""
    result = cli("resume", str(path))
    if result.code != 0:
        return f"{path} is not resumed: {result.err.strip()}"
    return differing(path, straight)


# SIGKILL


def kills_at_random(cli: Cli, cases: range) -> Iterator[Case]:
    """SIGKILL at a random instant, up to three times a run; what was saved before the last save began is not lost."""
    for number in cases:
        chance = random.Random(number)
        straight, killed = f"straight-{number}", Path(f"killed-{number}")
        trained(cli, straight, *words_of(number))
        seconds = Run(Path(straight)).status["segments"][0]["seconds"]
        begin(str(killed), *words_of(number))
        problem = None
        for _ in range(chance.randint(1, 3)):
            child = Fork(("resume", str(killed)))
            time.sleep(chance.uniform(0.02, 0.08 + seconds))
            child.kill()
            child.wait()
            rows = (killed / "metrics.jsonl").read_bytes().splitlines() if (killed / "metrics.jsonl").exists() else []
            done = max((row["step"] for row in map(_row, rows) if row), default=0)
            newest, _ = store.newest(killed / "checkpoints")
            if (newest.step if newest else 0) < ((done - 1) // EVERY - 1) * EVERY:
                problem = f"{killed}: step {done} was done and {newest and newest.step} is the newest checkpoint"
        yield resumed(cli, killed, straight) or problem
        shutil.rmtree(killed)
        shutil.rmtree(straight)


def _row(line: bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        return dict(json.loads(line))
    return None


OPERATIONS = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir", "ftruncate")


@contextmanager
def watched(before: Callable[[str], None], after: Callable[[str], None] = lambda name: None) -> Iterator[None]:
    """Call something before and after every file operation of the program, of all its threads one after the other."""
    one_by_one = threading.RLock()

    def calling(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with one_by_one:
                before(name)
                result = operation(*args, **kwargs)
                after(name)
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, calling(name, getattr(os, name)))
        yield


@contextmanager
def in_saves(which: int) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether the thread that asks is busy with the save of that number.

    A save has a part that training waits for, and one that a thread does while it goes on.
    """
    inside = threading.local()

    def noted(original: Callable[..., None]) -> Callable[..., None]:
        calls = itertools.count(1)

        def call(*args: Any) -> None:
            inside.now = next(calls) == which
            original(*args)
            inside.now = False

        return call

    with pytest.MonkeyPatch.context() as patch:
        for part in ("_save", "_to_disk"):
            patch.setattr(Saver, part, noted(getattr(Saver, part)))
        yield lambda: getattr(inside, "now", False)


SAVING = ("model=dynamic", "optim=adam", "steps=16", "checkpoint.keep=1", "optim.lr=0.01", *COMMON[1:])
FOR_GOOD = ExitStack()  # what a child that is about to be killed never leaves
WHICH = 3  # by then an old checkpoint and the best are there, and something is deleted


def kills_at_operations(cli: Cli, stride: int = 1) -> Iterator[Case]:
    """SIGKILL before and after every file operation of a save."""
    trained(cli, "straight", *SAVING)
    count = 0
    while True:
        for place in ("before", "after"):
            begin("killed", *SAVING)
            child = Fork(("resume", "killed"), lambda place=place, count=count: _kill_at(place, count))  # type: ignore[misc]
            if child.wait() != -signal.SIGKILL:
                shutil.rmtree("killed")
                return
            yield resumed(cli, "killed", "straight")
            shutil.rmtree("killed")
        count += stride


def _kill_at(place: str, number: int) -> None:
    seen = {"before": 0, "after": 0}
    inside = FOR_GOOD.enter_context(in_saves(WHICH))

    def look(when: str) -> Callable[[str], None]:
        def act(name: str) -> None:
            if inside():
                if when == place and seen[when] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen[when] += 1

        return act

    FOR_GOOD.enter_context(watched(look("before"), look("after")))


LOGGED = (
    *("model=dynamic", "steps=6", "checkpoint.every=3", "eval_every=2", "data.samples=48", "data.inputs=12"),
    *("data.outputs=3", "data.validation=0.25", "batch_size=8"),
    "logger={csv: {_target_: trainer.loggers.Csv}, tensorboard: {_target_: trainer.loggers.TensorBoard, points: 100}}",
)


def kills_with_loggers(cli: Cli, stride: int = 1) -> Iterator[Case]:
    """SIGKILL before and after every file operation of a run with loggers, and of its resume: they have all of it."""
    trained(cli, "straight", *LOGGED)
    begin("begun", *LOGGED)
    shutil.copytree("begun", "halfway")
    assert Fork(("resume", "halfway"), lambda: (_at_once(), send_at(5)())).wait() == -signal.SIGKILL
    expected = _logged("straight")
    for start in ("begun", "halfway"):
        for count in itertools.count(0, stride):
            codes = []
            for place in ("before", "after"):
                shutil.copytree(start, "killed")
                child = Fork(("resume", "killed"), lambda p=place, n=count: _kill_in_all(p, n))  # type: ignore[misc]
                codes.append(child.wait())
                if codes[-1] == -signal.SIGKILL:
                    result = cli("resume", "killed")
                    wrong = result.err if result.code else _logged("killed") != expected and "other numbers are logged"
                    yield f"{start}, {place} operation {count}: {wrong}" if wrong else None
                shutil.rmtree("killed")
            if codes == [0, 0]:
                break


def _at_once() -> None:
    """Let every row be written and handed on at once, not about once a second."""
    metrics_writer._BUFFERED_SECONDS = 0
    own = train.training
    train.training = lambda session: own(dataclasses.replace(session, seconds=0.0))


def _kill_in_all(place: str, number: int) -> None:
    _at_once()
    seen = {"before": 0, "after": 0}

    def look(when: str) -> Callable[[str], None]:
        def act(name: str) -> None:
            if when == place and seen[when] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            seen[when] += 1

        return act

    FOR_GOOD.enter_context(watched(look("before"), look("after")))


def _logged(path: str) -> tuple[bytes, bytes, dict[str, list[tuple[int, float]]]]:
    """Return what metrics.jsonl, metrics.csv and TensorBoard hold of a run."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of each file that begins anew
    found = EventAccumulator(f"{path}/tensorboard", size_guidance={SCALARS: 0}).Reload()
    scalars = {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    return Path(path, "metrics.jsonl").read_bytes(), Path(path, "metrics.csv").read_bytes(), scalars


# The disk


def failing_operations(
    cli: Cli, stride: int = 1, codes: tuple[int, ...] = (errno.ENOSPC, errno.EIO, errno.EROFS)
) -> Iterator[Case]:
    """The n-th file operation fails, for every n of a run's life."""
    trained(cli, "straight", *SAVING)
    for code in codes:
        number = 0
        while True:
            begin("failing", *SAVING)
            count = 0

            def fail(name: str, code: int = code, number: int = number) -> None:
                nonlocal count
                count += 1
                if count == number + 1:
                    raise OSError(code, os.strerror(code), "somewhere")

            with pytest.MonkeyPatch.context() as patch:
                started: list[Any] = []

                def start(
                    row: dict[str, Any], fail: Callable[[str], None] = fail, started: list[Any] = started
                ) -> None:
                    if not started:
                        started.append(watched(fail))
                        started[0].__enter__()

                on_row(start, patch)
                try:
                    result = cli("resume", "failing")
                finally:
                    for one in started:
                        one.__exit__(None, None, None)
            yield _failed_well(result, code) or resumed_or_done(cli, "failing", "straight")
            shutil.rmtree("failing")
            if count <= number:
                break
            number += stride


def _failed_well(result: Any, code: int) -> Case:
    """A run that a disk ends says in one line which checkpoint is there."""
    if result.code == 0:
        return None  # what failed was not needed
    found, _ = store.newest(Path("failing/checkpoints"))
    if result.code != 1:
        return f"exit code {result.code}: {result.err}"
    line = next(line for line in result.err.splitlines() if line.startswith("error: "))
    kept = f"the checkpoint of step {found.step} is intact" if found else "no checkpoint had been saved yet"
    return None if os.strerror(code) in line and kept in line else f"{kept}, and it says: {line}"


def resumed_or_done(cli: Cli, path: str, straight: str) -> Case:
    """Resume a run that may have ended already, and compare its end."""
    return resumed(cli, path, straight)


def limited_files(cli: Cli, sizes: tuple[int, ...] = (500, 1500, 3000, 6000, 12000, 20000)) -> Iterator[Case]:
    """Files may have so many bytes only (RLIMIT_FSIZE)."""
    trained(cli, "straight", *SAVING)
    for size in sizes:
        begin("limited", *SAVING)
        child = Fork(("resume", "limited"), lambda size=size: _limit(size))  # type: ignore[misc]
        code = child.wait()
        text = child.text.splitlines()
        line = next((line for line in text if line.startswith("error: ")), "")
        if code == 0 or (code == 1 and "File too large" in line):
            yield resumed(cli, "limited", "straight")
        else:
            yield f"with {size} bytes: exit code {code}: {text}"
        shutil.rmtree("limited")


def _limit(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


TMPFS = """
set -e
mount -t tmpfs -o size=$SIZE none small
cp -r begun small/run
set +e
"$PYTHON" -m trainer resume small/run 2> small-error
code=$?
set -e
cp -r small/run left
exit $code
"""


def small_disks(cli: Cli, sizes: tuple[str, ...] = ("64k", "96k", "160k", "240k")) -> Iterator[Case]:
    """A file system that is full at some moment; none where nothing may be mounted."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        return
    trained(cli, "straight", *SAVING)
    begin("begun", *SAVING)
    for size in sizes:
        Path("small").mkdir()
        environment = {**os.environ, "SIZE": size, "PYTHON": sys.executable}
        done = subprocess.run(["unshare", "-rm", "bash", "-c", TMPFS], env=environment, capture_output=True, text=True)
        text = Path("small-error").read_text()
        if done.returncode not in (0, 1) or (
            done.returncode == 1 and "are free" not in text and "No space" not in text
        ):
            yield f"with {size}: exit code {done.returncode}: {text} {done.stderr}"
        else:
            yield resumed(cli, "left", "straight")
        for name in ("small", "left"):
            shutil.rmtree(name, ignore_errors=True)


# Power loss


class Disk:
    """What a disk may hold after a power loss: what was synced, and of all else since then any part.

    Files are told apart by inode and are kept open, so that no number is used again.

    Args:
        root: The folder that is on it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[int, dict[str, int]] = {}
        self.bytes: dict[int, bytes] = {}
        self.open: list[int] = []

    def sync(self, descriptor: int) -> None:
        """Take note that a file's bytes or a folder's names are on the disk."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        inode = os.fstat(descriptor).st_ino
        self.open.append(os.dup(descriptor))
        if path.is_dir():
            self.names[inode] = {entry.name: entry.inode() for entry in os.scandir(path)}
            for entry in os.scandir(path):
                self.open.append(os.open(entry.path, os.O_RDONLY))
        else:
            self.bytes[inode] = path.read_bytes()

    def restore(self, target: Path, chance: random.Random | None = None) -> None:
        """Write what is left: without `chance` nothing that was not synced, else a part of it."""
        self._now = {path.stat().st_ino: path for path in (self.root, *self.root.rglob("*"))}
        self._folder(self.root.stat().st_ino, target, chance)

    def _folder(self, inode: int, target: Path, chance: random.Random | None) -> None:
        target.mkdir()
        synced = self.names.get(inode, {})
        now = {entry.name: entry.inode() for entry in os.scandir(self._now[inode])} if inode in self._now else synced
        for name in {*synced, *now}:
            left = (synced if chance is None else chance.choice((synced, now))).get(name)
            if left is None:
                continue
            if left in self.names or (left in self._now and self._now[left].is_dir()):
                self._folder(left, target / name, chance)
            elif (data := self._content(left, chance)) is not None:
                (target / name).write_bytes(data)

    def _content(self, inode: int, chance: random.Random | None) -> bytes | None:
        synced = self.bytes.get(inode)
        if chance is None or inode not in self._now:
            return synced
        now = self._now[inode].read_bytes()
        kept = len(synced) if synced is not None and now.startswith(synced) else 0
        reached = chance.randint(kept, len(now))
        return now[:reached] + (b"\0" * (len(now) - reached) if chance.random() < 0.5 else b"")

    def close(self) -> None:
        """Let the files go."""
        for descriptor in self.open:
            os.close(descriptor)


def power_losses(cli: Cli, stride: int = 1, draws: int = 2) -> Iterator[Case]:
    """The power goes before and after every file operation: no saved checkpoint is lost, and the run goes on.

    Args:
        cli: Calls the command.
        stride: Of so many operations one is looked at.
        draws: States in which a random part of what was not synced has reached the disk, at each.
    """
    root = Path("disk")
    root.mkdir()
    disk, images, chance, calls = Disk(root), [], random.Random(0), 0

    def look() -> None:
        nonlocal calls
        calls += 1
        if calls % stride == 0:
            for number in range(draws + 1):
                image = Path(f"image-{len(images):04d}")
                disk.restore(image, chance if number else None)
                images.append(image)

    fsync, busy = os.fsync, False

    def around(name: str) -> None:
        nonlocal busy
        if not busy:
            busy = True
            look()
            busy = False

    def syncing(descriptor: int) -> None:
        nonlocal busy
        fsync(descriptor)
        busy = True
        disk.sync(descriptor)
        busy = False

    words = (*SAVING[:2], "steps=12", "checkpoint.keep=1", *[word for word in COMMON if word[:6] != "steps="])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", syncing)
        with watched(around, around):
            trained(cli, "disk/runs/it", *words)
    disk.close()
    trained(cli, "straight", *words)
    saved = 0
    for number, image in enumerate(images):
        run = image / "runs/it"
        newest, problems = store.newest(run / "checkpoints")
        step = newest.step if newest else 0
        if not (run / "config.yaml").exists():
            yield f"{image}: step {saved} had been saved, and there is no run" if saved else None
        elif problems or step < saved:
            yield f"{image}: step {saved} had been saved, step {step} is there: {problems}"
        elif json.loads((run / "status.json").read_text())["format"] != 1:
            yield f"{image}: its status is not whole"
        else:
            yield resumed(cli, run, "straight")
        if number % (draws + 1) == 0:  # where nothing else reached the disk
            saved = max(saved, step)
        shutil.rmtree(image)


# Corruption


def corruptions(cli: Cli, stride: int = 1024, resume_each: int = 50) -> Iterator[Case]:
    """A flipped bit and a truncation in every KiB, each file deleted, files swapped: noticed, and passed over."""
    words = [word for word in SAVING if word != "checkpoint.keep=1"]
    straight = trained(cli, "straight", *words, "checkpoint.best=false")
    before, last = (manifest.name_of(step) for step in manifest.steps(straight.path / "checkpoints")[-2:])
    shutil.copytree("straight", "damaged")
    folder = Path("damaged/checkpoints") / last
    damages = (*_damages(folder, stride), *_exchanges(folder, folder.with_name(before)))
    for number, damage in enumerate(damages):
        content = {file: file.read_bytes() for file in folder.iterdir()}
        damage()
        try:
            store.load(folder)
            yield f"{damage} was not noticed"
        except manifest.BadCheckpoint as error:
            result = cli("verify", "damaged") if number % resume_each == 0 else None
            if str(folder) not in str(error):
                yield f"{error}: does not name {folder}"
            elif result is not None and (result.code != 1 or str(folder) not in result.out):
                yield f"trainer verify does not report it: {result.out}"
            elif result is not None:
                shutil.copytree("damaged", "resumed")
                (Path("resumed") / "status.json").unlink()  # a run that is done is not looked at again
                result = cli("resume", "resumed")
                named = last in result.err and f"step {int(before[5:])} is the newest good" in result.err
                yield (None if named else f"falls back without a word: {result.err}") or differing(
                    "resumed", "straight"
                )
                shutil.rmtree("resumed")
            else:
                yield None
        for file, data in content.items():
            file.write_bytes(data)
    store.load(folder)


class Damage:
    """Something done to a file."""

    def __init__(self, what: str, act: Callable[[], Any]) -> None:
        self.what, self.act = what, act

    def __call__(self) -> None:
        self.act()

    def __repr__(self) -> str:
        return self.what


def _damages(folder: Path, stride: int) -> Iterator[Damage]:
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        for position in range(0, len(data.rstrip()), stride):
            flipped = bytearray(data)
            flipped[position] ^= 1 << position // stride % 8
            yield Damage(
                f"a flipped bit at byte {position} of {file}", lambda f=file, d=bytes(flipped): f.write_bytes(d)
            )  # type: ignore[misc]
            yield Damage(f"{file} cut at {position}", lambda f=file, d=data[:position]: f.write_bytes(d))  # type: ignore[misc]
        yield Damage(f"{file} deleted", file.unlink)
        yield Damage(f"{file} with a byte more", lambda f=file, d=data + b"x": f.write_bytes(d))  # type: ignore[misc]


def _exchanges(folder: Path, other: Path) -> Iterator[Damage]:
    for name in (file.name for file in sorted(folder.iterdir())):
        yield Damage(f"{name} of {other}", lambda n=name: shutil.copy(other / n, folder / n))  # type: ignore[misc]


# Signals


def default_handlers() -> None:
    """As in a terminal, whatever this was started from."""
    for number in ASKED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _around(owner: Any, name: str, number: int, step: int | None = None, after: bool = False) -> None:
    """Send a signal before or after the first call of a function, or the first one once a step is done."""
    original, steps, sent = getattr(owner, name), [], []  # type: ignore[var-annotated]

    def call(*args: Any, **kwargs: Any) -> Any:
        now = not sent and (step is None or step in steps)
        if now and not after:
            sent.append(os.kill(os.getpid(), number))
        result = original(*args, **kwargs)
        if now and after:
            sent.append(os.kill(os.getpid(), number))
        return result

    setattr(owner, name, call)
    on_row(lambda row: steps.append(row["step"]))


# phase: how the signal is sent, and the step after which the run must stand; or one later, where it comes from a thread
RUN_PHASES: dict[str, tuple[Callable[[int], None], int]] = {
    "before the first step": (lambda number: _around(train, "StatusWriter", number), 0),
    "training": (lambda number: _around(loop, "has_non_finite", number, step=11), 12),
    "evaluation": (lambda number: _around(loop, "evaluate", number, step=4), 4),
    "saving": (lambda number: _around(store, "write", number), 7),
}
SWEEP_PHASES: dict[str, Callable[[int], None]] = {
    "between jobs of a sweep": lambda number: _around(job, "execute", number, after=True),
    "in a sweep's job": lambda number: _around(loop, "has_non_finite", number, step=11),
}


def signals(cli: Cli, names: tuple[str, ...] = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")) -> Iterator[Case]:
    """Every signal in every phase: saved, the command to go on printed, the right exit code, the same bits later."""
    words = ("model=dynamic", *SMALL)
    trained(cli, "straight", *words)
    sweep = ("-m", "seed=0,1", "model=dynamic", *SMALL)
    assert cli("run", "run_dir=straights", *sweep).code == 0
    for name in names:
        number = getattr(signal, name)
        for phase, (send, step) in RUN_PHASES.items():
            begin("run", *words)
            child = Fork(("resume", "run"), lambda s=send, n=number: (default_handlers(), s(n)))  # type: ignore[misc]
            code, text = child.wait(), child.text
            newest, _ = store.newest(Path("run/checkpoints"))
            reached = newest and (newest.step >= step if phase == "saving" else newest.step == step)
            right = code == 128 + number and reached and "trainer resume run" in text
            if not right or "Traceback" in text:
                yield f"{name} {phase}: exit code {code}, {newest and newest.step} saved: {text}"
            else:
                yield resumed(cli, "run", "straight")
            shutil.rmtree("run")
        for phase, send_ in SWEEP_PHASES.items():
            child = Fork(("run", "run_dir=sweep", *sweep), lambda s=send_, n=number: (default_handlers(), s(n)))  # type: ignore[misc]
            code, text = child.wait(), child.text
            states = [Run(Path("sweep") / job_).status["state"] for job_ in ("000", "001")]
            expected = ["done" if "between" in phase else "stopped", "waiting"]
            if code != 128 + number or states != expected or "trainer resume sweep" not in text or "Traceback" in text:
                yield f"{name} {phase}: exit code {code}, {states}: {text}"
            else:
                result = cli("resume", "sweep")
                problems = [differing(f"sweep/{job_}", f"straights/{job_}") for job_ in ("000", "001")]
                yield result.err if result.code else next(filter(None, problems), None)
            shutil.rmtree("sweep")


# Two writers


def writers(cli: Cli, starts: int = 50) -> Iterator[Case]:
    """Two processes start on one run directory at once: one trains, the other says who does."""
    words = ("model=dynamic", *SMALL)
    trained(cli, "straight", *words)
    for number in range(starts):
        path = f"both-{number}"
        begin(path, *words)
        children = [Fork(("resume", path), lambda p=path: _wait_for(Path(f"{p}-go"))) for _ in range(2)]  # type: ignore[misc]
        first = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # the one that is refused ends first
        Path(f"{path}-go").touch()
        codes = {child.pid: child.wait() for child in children}
        loser = next(child for child in children if first is not None and child.pid == first.si_pid)
        winner = next(child for child in children if child is not loser)
        named = re.search(rf"error: {path} is in use by process {winner.pid} on \S+: trainer resume {path}", loser.text)
        if (codes[winner.pid], codes[loser.pid]) != (0, 2) or not named:
            yield f"{path}: exit codes {codes}: {winner.text} {loser.text}"
        else:
            yield differing(path, "straight")
        shutil.rmtree(path)


def _wait_for(file: Path) -> None:
    """Whoever trains goes on from step 9 only once the file is there."""

    def wait(row: dict[str, Any]) -> None:
        while row["step"] == 9 and not file.exists():
            time.sleep(0.002)

    on_row(wait)
