"""Run directories that somebody hostile could hand on; resuming one must run no code and touch nothing outside."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from conftest import Fork
from instants import content, train_and_copy, without_sums

CANARY = "canary"
EVIL = f"open({CANARY!r}, 'w').close()\nraise SystemExit(0)\n"
SECONDS, MEGABYTES = 2.0, 100
WORDS = ("steps=4", "checkpoint.every=2", "data.samples=8", "data.inputs=3", "data.outputs=2", "model.hidden=4")
OUTSIDE = "../outside"  # as seen from a run: what must stay as it is


@dataclass(frozen=True)
class Trap:
    """A change to a good run, the words to resume it with, and the exit codes that are right."""

    spring: Callable[[Path], Any]
    words: tuple[str, ...] = ()
    codes: tuple[int, ...] = (2,)
    inside: bool = False  # whether one stands in the run's directory while resuming it


def traps() -> dict[str, Trap]:
    """Return all traps by what they are."""
    found = {f"{group}._target_: {target}": Trap(_target(group, target)) for group in GROUPS for target in TARGETS}
    found |= {f"config.yaml with {what}": Trap(_config(text)) for what, text in CONFIGS.items()}
    found |= {f"a setting: {what}": Trap(_set(change)) for what, change in SETTINGS.items()}
    found |= {f"{name} is a link": Trap(_link(name)) for name in LINKED}
    found |= {
        f"{name} is a pipe": Trap(_pipe(name)) for name in ("config.yaml", "metrics.jsonl", "lock", "trainer.log")
    }
    found |= {f"{name} of the checkpoint is {what}": Trap(_file(name, put)) for what, (name, put) in FILES.items()}
    found |= {f"a checkpoint that holds {what}": Trap(_sealed(name, data)) for what, (name, data) in SEALED.items()}
    found |= {
        f"status.json with {what}": Trap(_json("status.json", change), codes=(0,)) for what, change in STATUS.items()
    }
    found |= {f"sweep.json with {what}": Trap(_sweep(change)) for what, change in SWEEPS.items()}
    plugins = _module("hydra_plugins/evil/__init__.py")
    found["hydra_plugins in the run"] = Trap(plugins, ("steps=5",), (0,), inside=True)
    found["code that the run vouches for"] = Trap(_vouching, inside=True)
    found["a link below code/"] = Trap(_link_below_code)
    found |= {f"{name} with a second name outside": Trap(_hard_link(name)) for name in ("lock", "metrics.jsonl")}
    found |= {f"a folder called {name}": Trap(_folder(name), codes=codes) for name, codes in FOLDERS.items()}
    found["configs in the run"] = Trap(_module("configs/optim/sgd.yaml"), ("optim.lr=1e-3",), (0,), inside=True)
    found["code that came with it"] = Trap(_code)
    found["code with compiled code"] = Trap(_compiled, ("--trust-code",))
    found["a pickle beside the weights"] = Trap(_pickle, codes=(0,))
    return found


GROUPS = ("model", "data", "loss", "optim", "schedule")
TARGETS = (
    *("os.system", "subprocess.Popen", "builtins.eval", "evil.Evil", "trainer.__main__.main", "trainer.cli.os.system"),
    *(
        "torch.load",
        "torch.hub.load",
        "hydra.utils.instantiate",
        "torch.nn.modules.module.torch.load",
        "runpy.run_path",
    ),
    *("torch.optim.optimizer.torch.hub.load", "..evil.Evil", "trainer.training.instantiate.importlib.import_module"),
)
CONFIGS = {
    "an alias": "name: &a x\nseed: *a\n",
    "an alias bomb": "a: &a [x,x]\n"
    + "".join(f"{b}: &{b} [*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "a Python object": f"name: !!python/object/apply:os.system ['touch {CANARY}']\n",
    "a Python name": "name: !!python/name:os.system\n",
    "a path": "name: !!python/object/apply:pathlib.PosixPath ['/']\n",
    "a merge": "a: &a {steps: 1}\n<<: *a\n",
    "a tag of its own": "name: !evil x\n",
    "40 levels": "name: " + "[" * 40 + "]" * 40 + "\n",
    "10,000 levels": "[" * 10_000,
    "two million bytes": "name: " + "x" * 2_000_000 + "\n",
    "a key twice": "seed: 1\nseed: 2\n",
    "bytes": "name: !!binary aGVsbG8=\n",
    "a date": "seed: 2026-01-01\n",
    "a set": "name: !!set {a, b}\n",
    "no mapping": "- 1\n",
    "HTML": "<html><body>404</body></html>\n",
    "nothing": "",
    "a list as a key": "? [a]\n: 1\n",
    "an enormous number": "seed: " + "9" * 5000 + "\n",
    "a tag that is none": "name: !!map [a]\n",
    "an empty number": 'seed: !!int ""\n',
    "a tag of YAML": "name: !!str 5\n",
    "half a million values": "name: [" + "[]," * 330_000 + "]\n",
    "UTF-16": "\ufeff".encode("utf-16").decode("latin-1"),
}
FOLDERS = {"stop": (2,), "lock": (2,), ".status.json.1": (0,), "trainer.log": (2,)}
SETTINGS: dict[str, dict[str, Any]] = {
    "the environment": {"name": "${oc.env:HOME}"},
    "an interpolation": {"name": "${seed}"},
    "a resolver": {"name": "${oc.decode:1}"},
    "hydra": {"hydra": {"launcher": {"_target_": "os.system"}}},
    "defaults": {"defaults": ["_self_"]},
    "an escape sequence": {"name": "\x1b]0;owned\x07"},
    "a newline": {"name": "a\nb"},
    "a target within": {"model": {"_target_": "trainer.models.TwoLayerNet", "hidden": {"_target_": "os.system"}}},
    "partial": {"optim": {"_target_": "torch.optim.SGD", "_partial_": True}},
    "arguments": {"optim": {"_target_": "torch.optim.SGD", "_args_": ["x"]}},
    "a huge model": {"model": {"_target_": "trainer.models.TwoLayerNet", "hidden": 10**12}},
    "a negative number": {"model": {"_target_": "trainer.models.TwoLayerNet", "hidden": -1}},
}
LINKED = (
    *("config.yaml", "metrics.jsonl", "trainer.log", "lock", "checkpoints", "status.json", "code"),
    *("checkpoints/step-000000000002", "checkpoints/step-000000000003", "checkpoints/.staged-step-000000000004"),
)
_LAST = "checkpoints/step-000000000002"
FILES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a pipe": ("model.safetensors", lambda file: (file.unlink(), os.mkfifo(file))),
    "a link": ("model.safetensors", lambda file: (file.unlink(), file.symlink_to("/etc/passwd"))),
    "a device": ("state.json", lambda file: (file.unlink(), file.symlink_to("/dev/zero"))),
    "a folder": ("training.safetensors", lambda file: (file.unlink(), file.mkdir())),
    "a gigabyte of nothing": ("training.safetensors", lambda file: _hole(file, 2**30)),
    "a terabyte of nothing": ("model.safetensors", lambda file: _hole(file, 2**40)),
    "ten gigabytes": ("state.json", lambda file: _hole(file, 10**10)),
}


def _header(header: bytes | dict[str, Any], data: bytes = b"\0" * 64) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _tensor(shape: list[int], end: int = 64, dtype: str = "F32", start: int = 0) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def _state(**changes: Any) -> bytes:
    good = {"format": 1, "step": 2, "aliases": {}, "extra": {}, "training": {}}
    return json.dumps({**good, **changes}).encode()


_SNAPSHOT: dict[str, Any] = {
    **{name: {} for name in ("loss", "optimizer", "schedule", "generators")},
    **{"state": {"step": 2}, "epoch": 10**400, "watched": [None, "min"], "metrics_bytes": 0},
}
MODEL, TRAINING, STATE = "model.safetensors", "training.safetensors", "state.json"
SEALED: dict[str, tuple[str, bytes]] = {
    "a header of 2^62 bytes": (MODEL, (1 << 62).to_bytes(8, "little") + b"{}"),
    "a header longer than the file": (MODEL, (10**8).to_bytes(8, "little") + b"{}"),
    "a header that is no JSON": (MODEL, _header(b"{" * 64)),
    "a header of many levels": (MODEL, _header(b'{"a":' * 5000)),
    "a shape that lies": (MODEL, _header({"linear1.weight": _tensor([10**9, 10**9])})),
    "a shape that overflows": (MODEL, _header({"linear1.weight": _tensor([2**63, 2])})),
    "a negative shape": (MODEL, _header({"linear1.weight": _tensor([-1, -16])})),
    "offsets beyond the end": (MODEL, _header({"w": _tensor([2**20], 2**22)})),
    "offsets that overlap": (MODEL, _header({"a": _tensor([16]), "b": _tensor([16])})),
    "an unknown type": (MODEL, _header({"w": _tensor([16], dtype="EVIL")})),
    "other weights": (MODEL, _header({"../../w": _tensor([16])})),
    "an escape sequence": (MODEL, _header({"\x1b[31mw": _tensor([16])})),
    "a pickle": (MODEL, b"\x80\x04cos\nsystem\n(S'touch canary'\ntR."),
    "a zip": (MODEL, b"PK\x03\x04" + b"\0" * 100),
    "an LFS pointer": (MODEL, b"version https://git-lfs.github.com/spec/v1\n"),
    "no optimizer": (TRAINING, _header({})),
    "training that lies": (TRAINING, _header({"w": _tensor([10**12], 64)})),
    "an empty state": (STATE, _state()),
    "a step that is text": (STATE, _state(step="2")),
    "a negative step": (STATE, _state(step=-2)),
    "another step": (STATE, _state(step=10**12)),
    "aliases to nowhere": (STATE, _state(aliases={"a": "b"})),
    "deep state": (STATE, b"[" * 100_000),
    "a tensor from nowhere": (STATE, _state(training={"$tensor": "x"})),
    "items without keys": (STATE, _state(training={"$items": [[[1], 2]]})),
    "an enormous number": (STATE, _state().replace(b'"step": 2', b'"step": ' + b"9" * 5000)),
    **{
        f"a length of {length}": (STATE, _state(training={**_SNAPSHOT, "metrics_bytes": length}))
        for length in (-5, 10**18, 10**30, 5.0, "5", True)
    },
    "an optimizer of another": (STATE, _state(training={**_SNAPSHOT, "optimizer": {"state": {"99": {}}}})),
    "generators that are none": (STATE, _state(training={"generators": {"python": {}}, "metrics_bytes": -5})),
}
STATUS: dict[str, dict[str, Any]] = {
    "escape sequences": {"error": "\x1b[2J", "state": "\x1b]0;owned\x07", "name": "\x1b[31m"},
    "markup": {"choices": {"model": "[red]x[/red]", "data": "[link=file:///etc/passwd]x[/link]"}},
    "segments that are none": {"segments": "x"},
    "segments of numbers": {"segments": [1, 2]},
    "overrides that are commands": {
        "segments": [{"overrides": ["$(touch canary)", "`touch canary`", "; touch canary"]}]
    },
    "choices that are none": {"choices": [1]},
    "paths": {"id": "../../../etc", "code": {"../../outside/kept": "x", "/etc/passwd": "y"}},
    "not a number": {"extra": float("nan"), "step": float("inf")},
    "numbers that are text": {"step": "x", "steps": [], "best": {"step": "y"}},
}
SWEEPS: dict[str, dict[str, Any]] = {
    "jobs outside": {"jobs": ["../run"]},
    "an absolute job": {"jobs": ["/etc"]},
    "jobs that are none": {"jobs": 5},
    "a launcher of its own": {
        "launcher": {"name": "basic", "overrides": ["hydra.launcher._target_=os.system"], "config_dirs": []}
    },
    "submitit": {
        "launcher": {"name": "submitit_local", "overrides": ["hydra/launcher=submitit_local"], "config_dirs": []}
    },
    "an expression": {
        "launcher": {"name": "joblib", "overrides": ["hydra.launcher.pre_dispatch='__import__(1)'"], "config_dirs": []}
    },
    "a resolver": {
        "launcher": {"name": "basic", "overrides": ["hydra.launcher.n_jobs=${oc.env:HOME}"], "config_dirs": []}
    },
    "no launcher": {"launcher": None},
}


def _target(group: str, target: str) -> Callable[[Path], None]:
    def spring(run: Path) -> None:
        (run / "evil.py").write_text(EVIL)
        _set({group: {"_target_": target}})(run)

    return spring


def _config(text: str) -> Callable[[Path], None]:
    return lambda run: (run / "config.yaml").write_text(text, encoding="utf-8", errors="surrogateescape") and None


def _set(change: dict[str, Any]) -> Callable[[Path], None]:
    def spring(run: Path) -> None:
        config = yaml.safe_load((run / "config.yaml").read_text())
        (run / "config.yaml").write_text(yaml.safe_dump({**config, **change}))

    return spring


def _link(name: str) -> Callable[[Path], None]:
    def spring(run: Path) -> None:
        path, outside = run / name, Path(os.path.relpath(Path("outside"), (run / name).parent))
        is_folder = path.is_dir() or name.startswith(("checkpoints", "code"))
        there = Path("outside") / path.name
        if path.exists() and not there.exists():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, there)
        elif not there.exists():
            there.mkdir() if is_folder else there.write_text("kept")
        if path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(outside / path.name)

    return spring


def _pipe(name: str) -> Callable[[Path], None]:
    def spring(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return spring


def _hole(file: Path, size: int) -> None:
    with open(file, "wb") as opened:
        opened.truncate(size)
    manifest = json.loads((file.parent / "manifest.json").read_text())
    manifest["files"][file.name] = {"size": size, "sha256": "0" * 64}
    (file.parent / "manifest.json").write_text(json.dumps(manifest))


def _file(name: str, put: Callable[[Path], Any]) -> Callable[[Path], None]:
    return lambda run: put(run / _LAST / name)


def _sealed(name: str, data: bytes) -> Callable[[Path], None]:
    def spring(run: Path) -> None:
        (run / _LAST / name).write_bytes(data)
        manifest = json.loads((run / _LAST / "manifest.json").read_text())
        manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (run / _LAST / "manifest.json").write_text(json.dumps(manifest))

    return spring


def _json(name: str, change: dict[str, Any]) -> Callable[[Path], None]:
    def spring(run: Path) -> None:
        (run / name).write_text(json.dumps({**json.loads((run / name).read_text()), **change}))

    return spring


def _sweep(change: dict[str, Any]) -> Callable[[Path], None]:
    def spring(run: Path) -> None:
        job = run.with_name("job")
        run.rename(job)
        run.mkdir()
        job.rename(run / "000")
        launcher = {"name": "basic", "overrides": [], "config_dirs": []}
        sweep = {"format": 1, "name": None, "command": "x", "launcher": launcher, "swept": ["seed"], "jobs": ["000"]}
        (run / "sweep.json").write_text(json.dumps({**sweep, **change}))

    return spring


def _module(name: str) -> Callable[[Path], None]:
    def spring(run: Path) -> None:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(EVIL if name.endswith(".py") else "_target_: os.system\n")

    return spring


def _code(run: Path) -> None:
    (run / "code").mkdir()
    (run / "code/evil.py").write_text(EVIL)
    _set({"model": {"_target_": "evil.Evil"}})(run)
    _json("status.json", {"code": {"evil.py": hashlib.sha256(EVIL.encode()).hexdigest()}})(run)


def _compiled(run: Path) -> None:
    _code(run)
    (run / "code/evil.py").write_text("class Evil: pass\n")
    (run / "code/__pycache__").mkdir()
    (run / "code/__pycache__/evil.cpython-311.pyc").write_bytes(b"\0" * 16)


def _vouching(run: Path) -> None:
    _code(run)
    (run / "evil.py").write_text(EVIL)


def _link_below_code(run: Path) -> None:
    (run / "code").mkdir()
    (run / "code/pkg").symlink_to("../../outside")


def _hard_link(name: str) -> Callable[[Path], None]:
    def spring(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.link("outside/kept", run / name)

    return spring


def _folder(name: str) -> Callable[[Path], None]:
    def spring(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return spring


class _Bomb:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {CANARY}",)


def _pickle(run: Path) -> None:
    for name in ("model.pt", "optimizer.pkl", "pytorch_model.bin"):
        (run / _LAST / name).write_bytes(pickle.dumps(_Bomb()))


def sprung(cli: Callable[..., Any], names: list[str] | None = None) -> Iterator[str | None]:
    """Resume each of the hostile runs; yield what went wrong, or None."""
    train_and_copy(cli, *WORDS, good=3)
    without_sums(Path("good"))  # else what is changed would be refused as edited, before it can do harm
    known = traps()
    for name in known if names is None else names:
        trap = known[name]
        place = Path("place")
        place.mkdir()
        os.chdir(place)
        (Path("outside")).mkdir()
        (Path("outside") / "kept").write_text("kept")
        shutil.copytree("../good", "run")
        trap.spring(Path("run"))
        outside = content(Path("outside"))
        yield _resume(name, trap, outside)
        os.chdir("..")
        shutil.rmtree(place)


def _resume(name: str, trap: Trap, outside: dict[str, bytes]) -> str | None:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    there = Path("run") if trap.inside else Path()
    child = Fork(("resume", "." if trap.inside else "run", *trap.words), lambda: os.chdir(there))
    _, status, usage = os.wait4(child.pid, 0)
    seconds = usage.ru_utime + usage.ru_stime  # of its own: the machine may have other things to do
    megabytes = (usage.ru_maxrss - resident) / 1024
    code, text = os.waitstatus_to_exitcode(status), child.output.read_text(errors="replace")
    if list(Path().rglob(CANARY)) or Path("../" + CANARY).exists():
        return f"{name}: its code was run"
    if content(Path("outside")) != outside:
        return f"{name}: something outside has changed"
    if code not in trap.codes:
        return f"{name}: exit code {code}: {text}"
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text) or "Traceback" in text:
        return f"{name}: unfit to be printed: {text!r}"
    if code == 2 and text.strip().splitlines()[-1][:7] != "error: ":
        return f"{name}: not refused in a line: {text}"
    if trap.codes == (2,) and (seconds > SECONDS or megabytes > MEGABYTES):
        return f"{name}: took {seconds:.1f} s and {megabytes:.0f} MB"
    return None
