"""Writes status.json: before a run begins, about once a second while it trains, and at its end."""

from __future__ import annotations

import time
from typing import Any

from trainer.config import secrets
from trainer.files import fingerprint
from trainer.files.plain_json import finite
from trainer.runs import vouching
from trainer.runs.directory import FORMAT, RunDirectory
from trainer.session import environment
from trainer.session.session import Session
from trainer.training.build import Built, resolved
from trainer.training.loop import Learner, Row
from trainer.training.parameters import num_parameters


class StatusWriter:
    """Keeps status.json up to date while a session trains its run; also a reader of the loop.

    Args:
        session: The session; its run is set to the step it continues from.
    """

    def __init__(self, session: Session) -> None:
        rundir, built = session.rundir, session.built
        self._rundir, self._run, self._seconds = rundir, built.run, session.seconds
        self.start()
        before = {"format": FORMAT, "id": rundir.path.name, **first_status(built), **rundir.read_status()}
        circumstances = {"versions": environment.versions(), "machine": environment.machine(built.device)}
        if before["segments"] and (changed := differing(before["segments"][-1], circumstances)):
            session.announce(f"warning: bit-identical results are not guaranteed: {', '.join(changed)}")
        self._status = with_settings(before, rundir, built)
        self._segment: dict[str, Any] = {
            "from_step": built.run.state.step,
            "command": session.request.command,
            "overrides": session.request.overrides,
            **circumstances,
            "git": environment.git_commit(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "sums": self._status["sums"],
        }
        segments = [*self._status["segments"], self._segment]
        self._status.update(error=None, data=data_facts(built), segments=segments)

    def note_code(self, code: dict[str, str]) -> None:
        """Set the SHA-256 of each of the user's modules that the run keeps, by path."""
        self._status["code"] = code

    def forget_before(self) -> None:
        """Drop the sums of the files that have been replaced."""
        self._status.pop("sums_before", None)

    def start(self) -> None:
        """Start counting the seconds."""
        self._start = time.perf_counter()
        self._next = self._start + self._seconds

    @property
    def content(self) -> dict[str, Any]:
        """The content of status.json."""
        return dict(self._status)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def __call__(self, row: Row) -> None:
        """Write if the last write is long enough ago."""
        if time.perf_counter() >= self._next:
            self.write()
            self._next = time.perf_counter() + self._seconds

    def write(self, state: str = "running", error: str | None = None, diagnosis: dict[str, Any] | None = None) -> None:
        """Write the progress of the run.

        Args:
            state: running, done, stopped or failed.
            error: Why it failed.
            diagnosis: What is known about the failure.
        """
        self._segment["seconds"] = round(self.seconds, 3)
        self._status.update(finite(progress(self._run)), state=state, error=error, diagnosis=finite(diagnosis))
        self._rundir.write_status(self._status)


def with_settings(status: dict[str, Any], rundir: RunDirectory, built: Built) -> dict[str, Any]:
    """Return the status of a run that continues with the settings it was built from.

    `sums_before` holds the sums of config.yaml and preprocess.json until both files have been replaced.
    """
    config = secrets.tree(resolved(built).to_dict())
    sums = vouching.planned(rundir, config, preprocess_of(built))
    found = {
        **status,
        "name": built.settings.name,
        "steps": built.run.steps,
        "config": config,
        "data": data_facts(built),
        "sums": sums,
        "choices": {**status.get("choices", {}), **built.choices},
        "segments": superseded(status.get("segments", []), rundir.read_config(), config, status.get("data", {})),
    }
    if (before := status.get("sums", sums)) != sums:
        found["sums_before"] = before
    return found


def superseded(
    segments: list[dict[str, Any]], config: dict[str, Any] | None, new: dict[str, Any], data: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the segments of a run, with the old configuration added to the last one if the configuration changes.

    Args:
        segments: Each holds its configuration only if a later one has another.
        config: The configuration so far.
        new: The configuration from now on.
        data: The description of the data so far, whose files are recorded with the old configuration.
    """
    if not segments or config is None or config == new or "config" in segments[-1]:
        return segments
    files = {"files": data["files"]} if data.get("files") and config.get("data") != new.get("data") else {}
    return [*segments[:-1], {**segments[-1], "config": config, **files}]


def first_status(built: Built) -> dict[str, Any]:
    """Return the status of a run that has not begun."""
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
    """Return the content of preprocess.json, None if the data have no inputs."""
    preprocess = built.data.preprocess
    return None if preprocess is None else preprocess.to_json()


def data_facts(built: Built) -> dict[str, Any]:
    """Return the facts about the data that status.json holds."""
    return finite({**built.data.facts(), "files": fingerprint.of_all(built.data.files)})  # type: ignore[no-any-return]


def progress(run: Learner) -> dict[str, Any]:
    """Return the fields of status.json that change during training."""
    state = run.state
    best, value = run.best
    metrics = {} if state.loss is None else {"loss": state.loss}
    return {
        "step": state.step,
        "epoch": run.epoch,
        "metrics": {**metrics, **(run.at_end or state.validation)},
        "best": None if best is None else {"step": best, "metric": run.monitor, "value": value},
        "skipped": state.skipped,
    }


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the differences in versions and machine between two segments, each as `key: old -> new`."""
    changes = []
    for part in ("versions", "machine"):
        old, new = before.get(part, {}), now[part]
        changes += [f"{key}: {old.get(key)} -> {new[key]}" for key in new if old.get(key) != new[key]]
    return changes
