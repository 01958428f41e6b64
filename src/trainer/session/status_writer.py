"""Writes status.json: before a run begins, about once a second while it trains, and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from trainer.config import secrets
from trainer.files import fingerprint
from trainer.files.plain_json import finite
from trainer.runs import vouching
from trainer.runs.directory import FORMAT, RunDirectory
from trainer.session import environment
from trainer.training.build import Built, resolved
from trainer.training.loop import Learner, Row
from trainer.training.parameters import num_parameters

SECONDS = 1.0  # between two writings while a run trains


class StatusWriter:
    """Keeps status.json up to date from the start of a segment on; also a reader of the loop.

    Args:
        rundir: The run's directory.
        built: The run, set to where it starts or goes on.
        command: What the user typed.
        overrides: The settings that the user typed.
        announce: Tells the user something in one line.
        code: The SHA-256 of the user's modules that it imports, by their paths.
        seconds: Between two writings while it trains.
    """

    def __init__(
        self,
        rundir: RunDirectory,
        built: Built,
        command: str,
        overrides: list[str],
        announce: Callable[[str], None],
        code: dict[str, str],
        seconds: float = SECONDS,
    ) -> None:
        self._rundir, self._run, self._seconds = rundir, built.run, seconds
        self.start()
        self._status = {"format": FORMAT, "id": rundir.path.name, **first_status(built), **rundir.read_status()}
        circumstances = {"versions": environment.versions(), "machine": environment.machine(built.device)}
        before = self._status["segments"]
        if before and (changed := differing(before[-1], circumstances)):
            announce(f"warning: the same bits are not promised: {', '.join(changed)}")
        self._segment: dict[str, Any] = {
            "from_step": built.run.state.step,
            "command": command,
            "overrides": overrides,
            **circumstances,
            "git": environment.git_commit(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        config = secrets.tree(resolved(built).to_dict())
        before = superseded(before, rundir.read_config(), config)
        sums = self._segment["sums"] = vouching.planned(rundir, config, preprocess_of(built))
        if (known := self._status.get("sums", sums)) != sums:
            self._status["sums_before"] = known  # until config.yaml and preprocess.json are what sums says
        self._status.update(
            name=built.settings.name,
            steps=built.run.steps,
            config=config,
            sums=sums,
            code=code,
            error=None,
            choices={**self._status.get("choices", {}), **built.choices},
            data=data_facts(built),
            segments=[*before, self._segment],
        )

    def forget_before(self) -> None:
        """Let status.json vouch only for what the run goes on with."""
        self._status.pop("sums_before", None)

    def start(self) -> None:
        """Count the seconds from now on."""
        self._start = time.perf_counter()
        self._next = self._start + self._seconds

    @property
    def status(self) -> dict[str, Any]:
        """What was written last."""
        return dict(self._status)

    @property
    def seconds(self) -> float:
        """Seconds since the segment began."""
        return time.perf_counter() - self._start

    def __call__(self, row: Row) -> None:
        """Take a row of the loop; write if the last time is long enough ago."""
        if time.perf_counter() >= self._next:
            self.write()
            self._next = time.perf_counter() + self._seconds

    def write(self, state: str = "running", error: str | None = None, diagnosis: dict[str, Any] | None = None) -> None:
        """Write where the run stands.

        Args:
            state: running, done, stopped or failed.
            error: What it failed for.
            diagnosis: What was found out about that.
        """
        self._segment["seconds"] = round(self.seconds, 3)
        self._status.update(finite(standing(self._run)), state=state, error=error, diagnosis=finite(diagnosis))
        self._rundir.write_status(self._status)


def superseded(
    segments: list[dict[str, Any]], config: dict[str, Any] | None, now: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the segments of a run, the last one with the configuration it had if the run goes on with another.

    Args:
        segments: They hold their configuration only where a later one has another.
        config: What the run had until now.
        now: What it goes on with.
    """
    if not segments or config in (None, now) or "config" in segments[-1]:
        return segments
    return [*segments[:-1], {**segments[-1], "config": config}]


def first_status(built: Built) -> dict[str, Any]:
    """Return what status.json says of a run that has not begun."""
    run = built.run
    return {
        "name": built.settings.name,
        "state": "waiting",
        "step": 0,
        "steps": run.steps,
        "epoch": 0,
        "metrics": {},
        "best": None,
        "parameters": num_parameters(run),
        "data": data_facts(built),
        "rows": {"training": run.batches.rows, "validation": run.validation and run.validation.rows},
        "error": None,
        "segments": [],
    }


def preprocess_of(built: Built) -> dict[str, Any] | None:
    """Return what preprocess.json holds of a run, None if the data have no inputs."""
    preprocess = built.data.preprocess
    return None if preprocess is None else preprocess.to_json()


def data_facts(built: Built) -> dict[str, Any]:
    """Return what status.json says of the data."""
    return finite({**built.data.facts(), "files": fingerprint.of_all(built.data.files)})  # type: ignore[no-any-return]


def standing(run: Learner) -> dict[str, Any]:
    """Return the fields of status.json that change as the run goes on."""
    state = run.state
    best = None
    if state.best_step is not None:
        best = {"step": state.best_step, "metric": run.monitor, "value": state.best_value}
    metrics = {} if state.loss is None else {"loss": state.loss}
    return {
        "step": state.step,
        "epoch": run.epoch,
        "metrics": {**metrics, **state.validation},
        "best": best,
        "skipped": state.skipped,
    }


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs in versions and machine between two segments of a run, each as `what: old -> new`."""
    changes = []
    for part in ("versions", "machine"):
        old, new = before.get(part, {}), now[part]
        changes += [f"{key}: {old.get(key)} -> {new[key]}" for key in new if old.get(key) != new[key]]
    return changes
