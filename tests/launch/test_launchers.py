"""Launchers of our own: as Hydra asks for them, and with the jobs of `trainer run -m`."""

from __future__ import annotations

import copy
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Run, wait_until
from faults import default_handlers
from hydra import version
from hydra.core.singleton import Singleton
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, IntegrationTestSuite, LauncherTestSuite

from trainer.checkpoints import store
from trainer.launch import hydra_launchers, launchers

SMALL = ("data.inputs=20", "model.hidden=5", "steps=20")
PROCESSES = ("hydra/launcher=processes", "hydra.launcher.n_jobs=2")
ENDLESS = ("data.inputs=20", "model.hidden=5", "steps=100000000", "log_every=100000")


def jobs(path: str = "sweep") -> list[Run]:
    return [Run(p) for p in sorted(Path(path).iterdir()) if p.name.isdigit()]


def states(path: str = "sweep") -> list[str]:
    return [run.status["state"] for run in jobs(path)]


@pytest.fixture
def registered() -> Iterator[None]:
    """What Hydra's tests need, and undone what they leave behind."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hydra_launchers.register()
    state = copy.deepcopy(Singleton.get_state())
    version.VersionBase.instance().version_base = version._UNSPECIFIED_  # as in a process that has not asked for one
    yield
    Singleton.set_state(state)
    root.handlers[:] = handlers
    root.setLevel(level)


# The applications of Hydra's tests say nothing of where their jobs are to run, and Hydra remarks on it.
HYDRAS_OWN = pytest.mark.filterwarnings("ignore:Future Hydra:UserWarning")


@HYDRAS_OWN
@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("launcher_name", "overrides"), [("local", []), ("processes", ["hydra.launcher.n_jobs=2"]), ("vectorized", [])]
)
class TestAsHydraAsks(LauncherTestSuite):
    """The tests that Hydra has for launchers."""


@HYDRAS_OWN
@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("launcher_name", "overrides"),
    [(name, ["hydra.sweeper.max_batch_size=2"]) for name in ("local", "processes", "vectorized")],
)
class TestInBatches(BatchedSweeperTestSuite):
    """Those for a sweeper that hands on a few jobs at a time."""


class InFreshProcesses(IntegrationTestSuite):
    def generate_custom_cmd(self) -> Callable[..., list[str]]:
        start = (
            "import runpy, sys; from trainer.launch import hydra_launchers; hydra_launchers.register(); "
            "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        return lambda cmd, filename: [sys.executable, "-c", start, *cmd[1:]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"),
    [({}, ["-m", f"hydra/launcher={name}"]) for name in ("local", "processes", "vectorized")],
)
class TestInFreshProcesses(InFreshProcesses):
    """Those that start an application of Hydra's."""


@pytest.mark.parametrize("name", ["local", "processes", "vectorized"])
def test_in_a_fresh_process(tmp_path, name):
    import py.path  # what the tests of Hydra are written for

    InFreshProcesses().test_get_orig_dir_multirun(py.path.local(tmp_path), {}, ["-m", f"hydra/launcher={name}"])


@HYDRAS_OWN
@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("ending", ["return lambda: 1", "raise ValueError('wrong')", "os._exit(3)"])
def test_a_job_of_hydra_fails_alone(hydra_sweep_runner, hydra_restore_singletons, tmp_path, ending):
    """It is a failed JobReturn, whether it raises, dies, or returns what can't leave its process."""
    namespace = {"os": os}
    exec(f"def fail():\n    {ending}", namespace)

    def task(config):
        Path(f"begun-{config.a}").touch()
        return namespace["fail"]() if config.a == 0 else config.a

    sweep = hydra_sweep_runner(
        calling_file=None,
        calling_module="hydra.test_utils.a_module",
        task_function=task,
        config_path="configs",
        config_name="compose.yaml",
        overrides=["hydra/launcher=processes", "+a=0,1,2", "hydra.job.chdir=false"],
        temp_dir=tmp_path,
    )
    with (
        pytest.raises(Exception, match=r"pickle|wrong|exit code 3"),
        sweep,
    ):  # Hydra raises the first one
        pass
    assert sorted(path.name for path in Path().glob("begun-*")) == ["begun-0", "begun-1", "begun-2"]


def test_bits_are_those_of_local_with_one_thread(cli):
    words = ("model=numpy,two_layer,dynamic", "seed=0,1", "data.validation=0.25", "batch_size=8", *SMALL)
    assert cli("run", "-m", "run_dir=one", *words, "device.threads=1").code == 0
    assert cli("run", "-m", "run_dir=sweep", *words, *PROCESSES).code == 0
    for one, other in zip(jobs("one"), jobs("sweep"), strict=True):
        assert one.bits() == other.bits()
        assert other.status["config"]["device"]["threads"] == 1


def test_a_job_may_have_more_threads():
    # In a process of its own: threads that other tests have started here would not be there in the forks.
    words = "run", "-m", "run_dir=sweep", "seed=0,1", "device.threads=2", *SMALL, *PROCESSES
    subprocess.run([sys.executable, "-m", "trainer", *words], check=True, capture_output=True, timeout=120)
    assert [run.status["segments"][0]["machine"]["threads"] for run in jobs()] == [2, 2]


ENDINGS = {
    "ended by SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV)",
    "ended by SIGKILL (is the memory full?)": "os.kill(os.getpid(), signal.SIGKILL)",
    "ended with exit code 3": "os._exit(3)",
}


@pytest.mark.parametrize("what", ENDINGS)
def test_a_job_that_dies_fails_alone(cli, mortal, what):
    mortal(ENDINGS[what])
    words = ("model=mortal", "seed=0,1,2,3,4", "steps=3", "data.inputs=4")
    result = cli("run", "-m", "run_dir=sweep", *words, *PROCESSES)
    assert result.code == 1
    assert states() == ["done", "failed", "done", "done", "done"]
    assert what in jobs()[1].status["error"]
    assert f"failed: 001 (seed=1): its process was {what}".replace("was ended with", "ended with") in result.out
    Path("die").unlink()
    assert cli("resume", "sweep").code == 0
    assert states() == ["done"] * 5


def test_a_job_that_dies_when_it_is_checked_is_refused(refused, own_part, workdir):
    source = "import os\n\n\nclass Part:\n    os.kill(os.getpid(), 9)\n"
    own_part("data", "deadly", source)
    line = refused("run", "-m", "run_dir=sweep", "data=deadly", "seed=0,1", *PROCESSES)
    assert "its process was ended by SIGKILL" in line


def test_a_wrong_job_is_found_before_the_first_one_runs(refused):
    line = refused("run", "-m", "run_dir=sweep", "batch_size=16,32,1000", *SMALL, *PROCESSES)
    assert "job 2 (batch_size=1000): batch_size=1000" in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("hydra/launcher=processes hydra.launcher.n_jobs=0", "allowed: 1 or more"),
        ("hydra/launcher=processes hydra.launcher.n_jobs=two", "hydra.launcher.n_jobs=two: is not a whole number"),
        ("hydra/launcher=processes hydra.launcher.njobs=2", "did you mean hydra.launcher.n_jobs?"),
        ("hydra.launcher.n_jobs=2", "hydra/launcher=local has no such setting"),
        ("hydra/launcher=processes hydra.launcher._target_=os.system", "hydra/launcher=processes has no such setting"),
        (
            "hydra/launcher=proceses",
            "allowed: basic, joblib, local, processes, vectorized; did you mean hydra/launcher=processes?",
        ),
        ("hydra/launcher=local,processes", "a sweep has one launcher"),
        ("hydra/launcher=null", "a sweep has one launcher"),
        ("launcher=processes", "did you mean hydra/launcher=processes?"),
        ("n_jobs=2", "did you mean hydra.launcher.n_jobs=2?"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_words_of_launchers(refused, words, says, dry):
    assert says in refused("run", "-m", "seed=0,1", *words.split(), *dry)


def test_one_run_has_no_launcher(refused):
    line = refused("run", "hydra/launcher=processes")
    assert "is only for sweeps; did you mean -m hydra/launcher=processes?" in line


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def in_a_group() -> None:
    """Be what a terminal starts: its Ctrl-C goes to all processes of the group."""
    os.setpgid(0, 0)
    default_handlers()


def started(fork, prepare=in_a_group):
    child = fork("run", "-m", "run_dir=sweep", "seed=0,1,2", *ENDLESS, *PROCESSES, prepare=prepare)
    wait_until(lambda: Path("sweep").exists() and states() == ["running", "running", "waiting"])
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to_all", [True, False])
def test_a_signal_stops_all_jobs_after_saving(cli, fork, number, to_all):
    child = started(fork)
    os.killpg(child.pid, number) if to_all else child.kill(number)
    assert child.wait() == 128 + number
    assert states() == ["stopped", "stopped", "waiting"]
    assert all(run.checkpoints for run in jobs()[:2])
    assert "trainer resume sweep" in child.text
    assert not alive(child.pid)


def never_saved() -> None:
    """Let no job end once the sweep is to stop: each says so, and saves until it is killed."""
    in_a_group()
    write, here = store.write, Path.cwd()

    def late(folder: Path, packed: store.PackedCheckpoint) -> Path:
        while (here / "sweep/stop").exists():
            (here / f"saving-{os.getpid()}").touch()
            time.sleep(0.01)
        return write(folder, packed)

    store.write = late


def test_a_second_interrupt_leaves_at_once(fork):
    child = started(fork, never_saved)
    os.killpg(child.pid, signal.SIGINT)
    wait_until(lambda: len(list(Path.cwd().glob("saving-*"))) == 2)
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait() == 128 + signal.SIGINT
    wait_until(lambda: not alive(child.pid))
    assert child.text.count("exited at once") == 1
    assert states() == ["running", "running", "waiting"]


def test_jobs_stop_when_whoever_started_them_is_killed(cli, fork):
    child = started(fork)
    child.kill(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    wait_until(lambda: not alive(child.pid))
    assert states() == ["stopped", "stopped", "waiting"]
    assert all(run.checkpoints for run in jobs()[:2])


def test_a_job_is_shown_when_it_ends(fork):
    words = ("run", "-m", "run_dir=sweep", "steps=5,100000000", "log_every=100000", "data.inputs=20", *PROCESSES)
    child = fork(*words, prepare=in_a_group)
    wait_until(lambda: child.output.exists() and "000 steps=5: done at step 5" in child.text)
    wait_until(lambda: states() == ["done", "running"])
    os.killpg(child.pid, signal.SIGTERM)
    assert child.wait() == 128 + signal.SIGTERM


def test_processes_are_forked_where_there_is_one_thread(cli, monkeypatch, mortal):
    """A fork copies locks that other threads hold, which nobody would release in it."""
    # The job beside it waits, so that there is work left for the one that takes the dead one's place.
    mortal("os.mkdir('dying'), os._exit(3)", "while not os.path.exists('dying'): time.sleep(0.01)")
    forks, fork = [], os.fork

    def watched() -> int:
        forks.append([thread.name for thread in threading.enumerate() if thread.name != "MainThread"])
        return fork()

    before = [thread.name for thread in threading.enumerate() if thread.name != "MainThread"]
    monkeypatch.setattr(os, "fork", watched)
    words = ("model=mortal", "seed=0,1,2,3", "steps=3", "data.inputs=4")
    assert cli("run", "-m", "run_dir=sweep", *words, *PROCESSES).code == 1
    assert states() == ["done", "failed", "done", "done"]
    assert forks == [before] * 5


def test_a_sweep_is_resumed_with_its_own_launcher(cli, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1", *SMALL, *PROCESSES).code == 0
    kept = json.loads(Path("sweep/sweep.json").read_text())
    assert kept["launcher"] == {"name": "processes", "overrides": list(PROCESSES), "config_dirs": []}
    used = []
    for launcher in (launchers.Local, launchers.Processes):

        def noted(self, *rest, each=launcher.each):
            used.append(type(self).__name__)
            return each(self, *rest)

        monkeypatch.setattr(launcher, "each", noted)
    assert cli("resume", "sweep", "steps=30").code == 0
    assert set(used) == {"Processes"}
    used.clear()
    kept["launcher"] = {"name": "basic", "overrides": [], "config_dirs": []}  # as it stands in sweeps from before
    Path("sweep/sweep.json").write_text(json.dumps(kept))
    assert cli("resume", "sweep", "steps=40").code == 0
    assert "hydra._internal.core_plugins.basic_launcher" in {record.name for record in caplog.records}
    assert "Processes" not in used
    assert [run.status["step"] for run in jobs()] == [40, 40]


def test_nothing_of_a_job_stays_behind(cli, monkeypatch):
    """A long sweep would fill the memory otherwise."""
    import trainer.session.job
    from trainer.training.build import Built

    counts, execute = [], trainer.session.job.execute

    def counted(*rest, **options):
        gc.collect()
        counts.append((sum(type(one) is Built for one in gc.get_objects()), len(gc.get_objects())))
        execute(*rest, **options)

    monkeypatch.setattr("trainer.session.job.execute", counted)
    assert cli("run", "-m", "run_dir=sweep", "seed=range(12)", *SMALL).code == 0
    assert {built for built, _ in counts} == {0}
    assert counts[-1][1] - counts[4][1] < 100
