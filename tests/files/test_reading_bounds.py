"""Files that somebody else made are read within bounds of memory and time, and pipes and devices not at all."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import Fork, wait_until
from faults import default_handlers
from hostile import SEALED, WORDS, traps
from hypothesis import given
from hypothesis import strategies as st
from instants import train_and_copy, without_sums
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from trainer.checkpoints import tensors
from trainer.files import data_file, event_file, fingerprint, plain_json, plain_yaml, reading, sums
from trainer.session import bounds

MOST_MB = 300
SECONDS = 10.0  # of its own
HANGS = 60.0  # on the clock, on a busy machine
_LAST = Path("checkpoints/step-000000000002")


def measured(*words: str) -> tuple[int, str, float, float]:
    """Return exit code, output, own seconds and peak megabytes above those of this process of a command."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    child = Fork(words)
    _, status, usage = os.wait4(child.pid, 0)
    seconds, megabytes = usage.ru_utime + usage.ru_stime, (usage.ru_maxrss - resident) / 1024
    return os.waitstatus_to_exitcode(status), child.text, seconds, megabytes


def write(path: str, start: str, item: str, end: str, size: int) -> None:
    """Write as many items as fit into so many bytes."""
    count = (size - len(start) - len(end)) // (len(item) + 1)
    Path(path).write_text(start + ",".join([item] * count) + end)


HOSTILE_STATUS = {
    "33 MB of lists": ("[]", 33_000_000),
    "8 MB of lists": ("[]", reading.MOST_JSON),
    "dicts as many as allowed": ('{"a":1}', 8 * (reading.MOST_CONTAINERS - 10)),
    "texts with escapes": ('"\\u0001bc"', reading.MOST_JSON),
    "short texts": ('"abc"', 6 * (reading.MOST_VALUES - 10)),
}


@pytest.mark.parametrize("what", HOSTILE_STATUS)
def test_a_status_of_much_costs_little(cli, what):
    train_and_copy(cli, *WORDS, run=3)
    item, size = HOSTILE_STATUS[what]
    for start in ('{"state": "done", "step": 2, "x": [', '{"state": "done", "segments": ['):
        write("run/status.json", start, item, "]}", size)
        for words in (("runs", "."), ("show", "run"), ("show", "run", "--json"), ("verify", "run"), ("plot", "run")):
            code, text, seconds, megabytes = measured(*words)
            assert code in (0, 1, 2), text
            assert "Traceback" not in text
            assert megabytes < MOST_MB, words
            assert seconds < SECONDS, words


def test_files_beyond_the_bounds_are_refused_in_a_line(cli):
    train_and_copy(cli, *WORDS, good=3)
    for name, words, size in (
        ("sweep.json", ("resume", "run"), reading.MOST_JSON + 1),
        ("preprocess.json", ("predict", "run", "--row=1,2,3"), reading.MOST_PREPROCESS + 1),
        (str(_LAST / "manifest.json"), ("verify", "run"), reading.MOST_JSON + 1),
    ):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("good", "run")
        Path(f"run/{name}").write_text("[]".ljust(size))
        result = cli(*words)
        assert result.code == (1 if words[0] == "verify" else 2), result.err
        assert f"has {size:,} bytes, more than the limit of {size - 1:,}" in " ".join((result.out + result.err).split())


def test_a_header_of_many_tensors_is_refused_before_it_is_decoded(cli):
    train_and_copy(cli, *WORDS, good=3)
    for count, known in ((tensors.MOST_TENSORS * 3, True), (tensors.MOST_TENSORS - 1, False)):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("good", "run")
        empty = '{"dtype":"U8","shape":[],"data_offsets":[0,0]}'.replace("[]", "[0]")
        text = ("{" + ",".join(f'"{i:x}":{empty}' for i in range(count)) + "}").encode()
        SEALED["many"] = ("model.safetensors", len(text).to_bytes(8, "little") + text)
        try:
            traps()["a checkpoint that holds many"].spring(Path("run"))
        finally:
            del SEALED["many"]
        code, text_out, seconds, megabytes = measured("resume", "run", "steps=5")
        assert code == 2, text_out
        assert ("its header" in text_out) == known
        assert megabytes < MOST_MB
        assert seconds < SECONDS


def test_a_preprocess_of_numbers_as_many_as_allowed_costs_little(cli):
    train_and_copy(cli, *WORDS, run=3)
    write("run/preprocess.json", '{"x": [', '"abc"', "]}", 6 * (reading.MOST_PREPROCESS_VALUES - 10))
    code, text, _, megabytes = measured("predict", "run", "--row=1,2,3")
    assert code == 2, text
    assert megabytes < MOST_MB


def test_a_run_that_could_not_be_read_again_is_refused_before_it_begins(refused, monkeypatch, workdir):
    words = ("run", "run_dir=run", *WORDS)
    for owner, name, most, said in (
        (tensors, "MOST_TENSORS", 3, "has 4 tensors, more than the 3 of a checkpoint"),
        (reading, "MOST_JSON", bounds._SPARE + 200, "state.json of a checkpoint would have"),
        (reading, "MOST_JSON", bounds._SPARE + 500, "status.json: would have"),
        (reading, "MOST_CONTAINERS", 5, "lists and dicts, more than the limit of 5"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, most)
            if name == "MOST_CONTAINERS":
                patched.setattr(plain_json.require_few, "__defaults__", (most, reading.MOST_VALUES))
            assert said in refused(*words)


def test_settings_too_many_to_be_read_again_are_refused(refused, monkeypatch):
    monkeypatch.setattr(bounds, "_FEW", 3)
    monkeypatch.setattr(plain_yaml, "MOST_VALUES", 20)
    assert "the settings could not be read again: more than 20 values" in refused("run", "run_dir=run", *WORDS)


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def link_to(target: str):
    def make(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return make


STRANGE = {
    "a pipe": pipe,
    "a link to /dev/zero": link_to("/dev/zero"),
    "a link to /dev/random": link_to("/dev/random"),
    "a link to /proc/kmsg": link_to("/proc/kmsg"),
    "a link to /proc/self/environ": link_to("/proc/self/environ"),
    "a link to /sys/kernel/notes": link_to("/sys/kernel/notes"),
    "a link to itself": lambda path: (path.unlink(missing_ok=True), path.symlink_to(path.name)),
    "a folder": lambda path: (path.unlink(missing_ok=True), path.mkdir()),
}
KINDS = {
    "csv": ("data.csv", ["data=csv", "data.path=data.csv", "data.target=b"]),
    "parquet": ("data.parquet", ["data=parquet", "data.path=data.parquet", "data.target=b"]),
    "npz": ("data.npz", ["data=npz", "data.path=data.npz"]),
    "npy": ("x.npy", ["data=npy", "data.path=x.npy", "data.targets=y.npy"]),
    "npy targets": ("y.npy", ["data=npy", "data.path=x.npy", "data.targets=y.npy"]),
}


def data_files() -> None:
    import polars

    table = polars.DataFrame({"a": np.arange(16.0), "b": np.arange(16.0) ** 2})
    table.write_csv("data.csv")
    table.write_parquet("data.parquet")
    x, y = np.arange(32.0).reshape(16, 2), np.arange(16.0)
    np.savez("data.npz", x=x, y=y)
    np.save("x.npy", x)
    np.save("y.npy", y)


def ended(words: tuple[str, ...], seconds: float = HANGS) -> tuple[int, str]:
    """Run a command in a child that is killed when it takes too long."""
    child = Fork(words)
    end = time.monotonic() + seconds
    while (found := os.waitpid(child.pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            child.kill()
            child.wait()
            pytest.fail(f"{words} hangs")
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1]), child.text


@pytest.mark.parametrize("kind", KINDS)
def test_data_that_are_no_file_on_a_disk_are_refused_at_once(cli, train, kind):
    data_files()
    name, words = KINDS[kind]
    words = [*words, "model=mlp", "model.sizes=[4]", "steps=4", "batch_size=4"]
    train(*words)
    for make in STRANGE.values():
        make(Path(name))
        for command in (
            ("run", "run_dir=new", *words),
            ("resume", "run", "steps=6"),
            ("resume", "run", "steps=6", "--allow-data-change"),
            ("eval", "run"),
            ("reproduce", "run"),
        ):
            code, text = ended(command)
            assert code == 2, (command, text)
            assert text.count("error: ") == 1, text
            assert "Traceback" not in text
        assert not Path("new").exists()
        shutil.rmtree(name) if Path(name).is_dir() and not Path(name).is_symlink() else Path(name).unlink()


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz", "npy"])
def test_links_to_files_are_followed(train, kind):
    data_files()
    name, words = KINDS[kind]
    first = train(*words, "model=mlp", "model.sizes=[4]", "steps=4", "batch_size=4")
    Path("store").mkdir()
    Path(name).rename(f"store/{name}")
    Path(name).symlink_to(f"store/{name}")
    second = train(*words, "model=mlp", "model.sizes=[4]", "steps=4", "batch_size=4", name="second")
    assert first.bits() == second.bits()


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_input_of_another_kind_that_is_a_pipe_is_refused_and_not_waited_for(train, suffix):
    data_files()
    train("data=csv", "data.path=data.csv", "data.target=b", "model=mlp", "model.sizes=[4]", "steps=4")
    os.mkfifo(f"pipe.{suffix}")
    code, text = ended(("predict", "run", "--input", f"pipe.{suffix}"))
    assert code == 2
    assert "not a regular file" in text


def test_an_address_is_no_path_even_if_a_folder_is_called_so(refused):
    import polars

    Path("http:/127.0.0.1:9").mkdir(parents=True)
    polars.DataFrame({"a": [1.0] * 8, "b": [2.0] * 8}).write_csv("http:/127.0.0.1:9/data.csv")
    words = ("run", "run_dir=run", "data=csv", "data.path='http://127.0.0.1:9/missing.csv'", "data.target=b")
    assert "no such file" in refused(*words)


@pytest.mark.parametrize("name", ["/proc/kmsg", "/dev/zero", "/proc/self/mem", "pipe"])
def test_a_status_that_names_strange_data_files(cli, name):
    train_and_copy(cli, *WORDS, run=3)
    os.mkfifo("pipe")
    status = json.loads(Path("run/status.json").read_text())
    status["data"]["files"] = {name: {"bytes": 1, "sha256": "0" * 64}}
    Path("run/status.json").write_text(json.dumps(status))
    code, text = ended(("resume", "run", "steps=6"))
    assert code == 2
    assert "has changed since the run started" in text
    code, text = ended(("resume", "run", "steps=6", "--allow-data-change"))
    assert code == 0, text


def test_a_data_file_is_read_up_to_its_size_when_opened():
    Path("grows").write_bytes(b"a" * 1000)
    with data_file.opened("grows") as file:
        with open("grows", "ab") as more:
            more.write(b"b" * 10**6)
        assert file.read() == b"a" * 1000
        file.seek(990)
        assert bytes(file.read(100)) == b"a" * 10
    assert fingerprint.of(Path("grows"))["bytes"] == 1_001_000


@pytest.mark.parametrize("place", ["tensorboard", "checkpoints", "failure", "code", "code/inner"])
def test_a_pipe_or_a_device_in_a_folder_of_a_run(cli, place):
    train_and_copy(cli, *WORDS, good=3)
    names = {"tensorboard": "events.out.tfevents.0000000001.x", "checkpoints": ".x-step-1", "code/inner": "a.py"}
    for make in (pipe, link_to("/dev/zero")):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("good", "run")
        Path("run", place).mkdir(parents=True, exist_ok=True)
        make(Path("run", place, names.get(place, "x.py")))
        for words in (("resume", "run", "steps=6", "logger=tensorboard"), ("verify", "run"), ("show", "run")):
            code, text = ended(words)
            assert code in (0, 1, 2), text
            assert "Traceback" not in text
            if words[0] == "resume":
                assert code == 2, text


SLOW = """
import time
from trainer.data import Data
import torch
from pathlib import Path


class Part(Data):
    def __init__(self):
        if Path("slow").exists():
            Path("reading").touch()
            time.sleep(600)
        super().__init__(torch.zeros(8, 3), torch.zeros(8, 2), 0.25)
"""


@pytest.mark.parametrize("words", [("reproduce", "run"), ("resume", "sweep")], ids=" ".join)
def test_a_signal_ends_the_reading_of_data(cli, fork, own_part, words):
    own_part("data", "slow", SLOW)
    small = ("data=slow", "model.hidden=4", "steps=4", "batch_size=4")
    assert cli("run", "run_dir=run", *small).code == 0
    assert cli("run", "-m", "run_dir=sweep", "hydra/launcher=basic", "seed=0,1", *small).code == 0
    for job in ("000", "001"):
        status = json.loads(Path(f"sweep/{job}/status.json").read_text())
        Path(f"sweep/{job}/status.json").write_text(json.dumps({**status, "state": "waiting"}))
    Path("slow").touch()
    child = fork(*words, prepare=default_handlers)
    wait_until(Path("reading").exists)
    start = time.monotonic()
    child.kill(signal.SIGTERM)
    assert child.wait() == 143, child.text
    assert time.monotonic() - start < HANGS
    assert "Traceback" not in child.text


@pytest.mark.parametrize("kilobytes", [100_000, 500_000, 600_000])
def test_little_address_space_is_said_in_a_line(cli, kilobytes):
    train_and_copy(cli, *WORDS, run=3)
    for words in (("info",), ("run", "run_dir=new"), ("resume", "run", "steps=6"), ("predict", "run", "--row=1,2,3")):
        done = subprocess.run(
            [sys.executable, "-m", "trainer", *words],
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (kilobytes * 1024,) * 2),
        )
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith("error: "), done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""
    assert not Path("new").exists()
    assert yaml.safe_load(Path("run/config.yaml").read_text())["steps"] == 4


LOGGED = (*WORDS, "logger=[csv,tensorboard]")


def sparse(path: Path, size: int, start: bytes = b"") -> None:
    """Write a file of so many bytes, nearly none of which are on the disk."""
    path.unlink(missing_ok=True)
    path.write_bytes(start)
    os.truncate(path, size)


def event_sum(data: bytes) -> bytes:
    return int(masked_crc32c(data)).to_bytes(4, "little")


def record(length: int, data: bytes = b"") -> bytes:
    """Return a record of an event file that says so of its length, with the right sums."""
    header = length.to_bytes(8, "little")
    return header + event_sum(header) + data + (event_sum(data) if data else b"")


EVENTS = {
    "a record of 3 GiB that were never written": lambda file: sparse(file, 2**32, record(3 * 2**30)),
    "a record of 100 MB": lambda file: sparse(file, 100_000_100, record(100_000_000)),
    "a record of 2^63 bytes": lambda file: file.write_bytes(record(2**63)),
    "a record that is no event": lambda file: file.write_bytes(record(64, b"\xff" * 64)),
    "a record of many values": lambda file: file.write_bytes(
        record(2**19 + 4, b"\x2a\x80\x80\x20" + b"\x0a\0" * 2**18)
    ),
    "zeros": lambda file: sparse(file, 400 * 2**30),
}


@pytest.mark.parametrize("what", EVENTS)
def test_event_files_that_somebody_else_made_cost_little_and_are_written_anew(cli, what):
    assert cli("run", "run_dir=run", *LOGGED).code == 0
    (file,) = Path("run/tensorboard").iterdir()
    whole = list(event_file.records(file))
    EVENTS[what](file)
    code, text, seconds, megabytes = measured("resume", "run")
    assert code == 0, text
    assert "logger=tensorboard missed rows of the run; they have been written" in text
    assert megabytes < MOST_MB
    assert seconds < SECONDS
    (anew,) = [path for path in Path("run/tensorboard").iterdir() if path != file]
    assert len(list(event_file.records(anew))) == len(whole)


def test_a_long_record_is_passed_over_and_the_rest_read():
    long = b"x" * (event_file.LONGEST_RECORD + 1)
    content = record(2, b"ab") + record(len(long), long) + record(2, b"cd")
    Path("events").write_bytes(content + record(2, b"ef")[:-1])
    assert list(event_file.records(Path("events"))) == [b"ab", b"cd"]
    Path("events").write_bytes(content.replace(b"cd", b"ce"))
    assert list(event_file.records(Path("events"))) == [b"ab"]


def test_a_pipe_among_the_files_of_loggers_is_not_waited_for(cli):
    assert cli("run", "run_dir=run", *LOGGED).code == 0
    (file,) = Path("run/tensorboard").iterdir()
    for path in (file, Path("run/metrics.csv")):
        kept = path.read_bytes()
        pipe(path)
        code, text = ended(("resume", "run"))
        assert code == 2, text
        assert text.count("error: ") == 1, text
        assert path.name in text
        path.unlink()
        path.write_bytes(kept)


def test_a_table_of_many_columns_costs_little(cli):
    assert cli("run", "run_dir=run", *WORDS, "logger=csv").code == 0
    before = Path("run/metrics.csv").read_bytes()
    Path("run/metrics.csv").write_text(",".join(["ab"] * 5_500_000) + "\n")
    code, text, seconds, megabytes = measured("resume", "run")
    assert code == 0, text
    assert megabytes < MOST_MB
    assert seconds < SECONDS
    assert Path("run/metrics.csv").read_bytes() == before


def claim_rows(size: int) -> None:
    """Let all manifests and states of a run say that metrics.jsonl had so many bytes."""
    for file in Path("run").glob("checkpoints/*/manifest.json"):
        state = json.loads((file.parent / "state.json").read_text())
        state["training"]["metrics_bytes"] = size
        text = json.dumps(state).encode()
        (file.parent / "state.json").write_bytes(text)
        manifest = json.loads(file.read_text())
        manifest["files"]["state.json"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        manifest["run"]["metrics"]["size"] = size
        file.write_text(json.dumps({**manifest, "run": sums.sealed(manifest["run"])}))


@pytest.mark.parametrize("size", [2**28, 400 * 2**30])
@pytest.mark.parametrize("old", [False, True], ids=["with sums", "without sums"])
def test_metrics_that_were_never_written_are_refused_before_they_are_read(cli, size, old):
    assert cli("run", "run_dir=run", *LOGGED).code == 0
    claim_rows(size)
    if old:
        without_sums(Path("run"))
    os.truncate("run/metrics.jsonl", size)
    config = Path("run/config.yaml").read_bytes()
    said = f"can't be read: claims {size:,} bytes, but nearly all of them were never written"
    for words, expected in (
        (("verify", "run"), 1),
        (("resume", "run"), 0 if old else 2),  # it is complete, and nothing is known of the rows of an old run
        (("resume", "run", "steps=6"), 2),
        (("resume", "run", "steps=6", "--force"), 2),
        (("plot", "run"), 2),
    ):
        code, text, seconds, megabytes = measured(*words)
        assert code == expected, (words, text)
        assert code == 0 or said in " ".join(text.split()), text
        assert megabytes < MOST_MB, words
        assert seconds < SECONDS, words
    assert Path("run/config.yaml").read_bytes() == config


def test_rows_of_a_negative_length_are_a_fault_of_the_run(cli):
    train_and_copy(cli, *WORDS, run=3)
    claim_rows(-5)
    result = cli("verify", "run")
    assert result.code == 1, result.err
    assert "metrics.jsonl" in result.out


NUMBERS = {
    "parts of sixty": "1" + ":1" * 250_000,
    "a broken number of parts of sixty": "1" + ":1" * 300 + ".5",
    "hexadecimal": "0x" + "f" * 9000,
    "binary": "0b" + "1" * 100_000,
    "octal": "0" + "7" * 10_000,
    "of underscores": "1" + "_" * 500_000 + "1",
    "of many digits": "9" * 4000,
    "of digits that no float has": "9" * 400,
    "of more digits than Python prints": "9" * 500_000,
    "of many digits after the point": "1." + "9" * 500_000,
    "of a large exponent": "1.0e+" + "9" * 500_000,
}


@pytest.mark.parametrize("what", NUMBERS)
def test_numbers_in_a_configuration_cost_little(cli, what):
    train_and_copy(cli, *WORDS, run=3)
    good = Path("run/config.yaml").read_text()
    assert "\nseed: 0\n" in good
    for key in ("seed", "clip_norm"):
        assert f"\n{key}: " in good
        lines = [f"{key}: {NUMBERS[what]}" if one.startswith(f"{key}: ") else one for one in good.splitlines()]
        Path("run/config.yaml").write_text("\n".join(lines) + "\n")
        for words in (("verify", "run"), ("eval", "run"), ("resume", "run", "--force"), ("show", "run")):
            code, text, seconds, megabytes = measured(*words)
            assert code in ((0, 1) if words[0] in ("verify", "show") else (2,)), (words, text[-2000:])
            assert "Traceback" not in text
            assert megabytes < MOST_MB, words
            assert seconds < SECONDS, words


_texts = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=30),
    st.text("0123456789.:_xXoObBeE+-=<~!&*naifyt ", max_size=12),
    st.sampled_from(["1:30", "1:1:1.5", "0x1f", "0b1", "0o7", "017", "1_000", "1.5_0", "2026-01-01", "1e5", "1.0e+05"]),
    st.sampled_from(
        ["2026-01-01 00:00:00", "yes", "on", "null", "~", "", "=", "<<", ".inf", "-.inf", ".nan", "+1", ".5"]
    ),
)
_plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(10**100) + 1, 10**100 - 1),
        st.floats(allow_nan=False),
        st.sampled_from([1e-05, 1.0e16, 5e-324, -0.0]),
        _texts,
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_texts, _plain, max_size=4))
def test_what_is_written_as_yaml_is_read_back_as_it_was(data):
    path = Path("property.yaml")
    path.write_bytes(plain_yaml.text(data).encode())
    assert repr(plain_yaml.data(path)) == repr(data)


def test_a_plain_text_that_other_readers_take_for_a_number_or_a_date_is_a_text(cli):
    train_and_copy(cli, *WORDS, run=3)
    without_sums(Path("run"))
    good = Path("run/config.yaml").read_text()
    for text in ("2026-01-01", "1:30", "0x1f", "017", "1_000", "1e5"):
        Path("run/config.yaml").write_text(good.replace("name: null", f"name: {text}"))
        assert plain_yaml.data(Path("run/config.yaml"))["name"] == text
        result = cli("eval", "run")
        assert result.code == 0, result.err


WIDTH = """
import torch
from trainer.data import Data


class Part(Data):
    def __init__(self, number=1):
        super().__init__(torch.zeros(8, 3), torch.zeros(8, 2), 0.25)
"""


def test_a_number_that_would_be_read_back_as_a_text_is_refused(cli, refused, own_part):
    own_part("data", "wide", WIDTH, "number: 1\n")
    words = ("run", "data=wide", "model.hidden=4", "steps=2", "batch_size=4")
    said = refused(*words, "run_dir=new", f"data.number={'9' * 101}")
    assert "a number of more than 100 digits" in said
    assert cli(*words, "run_dir=run", f"data.number={'9' * 100}").code == 0
    assert cli("resume", "run", "steps=4").code == 0
    assert yaml.safe_load(Path("run/config.yaml").read_text())["data"]["number"] == int("9" * 100)
