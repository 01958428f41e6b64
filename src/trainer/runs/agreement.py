"""Checks whether the files of a run, or of a sweep, agree with each other, for `verify`. Without torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from trainer.checkpoints import manifest
from trainer.checkpoints.manifest import BadCheckpoint
from trainer.config import settings
from trainer.errors import UsageError
from trainer.files import plain_json
from trainer.files.plain_json import has_shape
from trainer.files.sums import sum_of
from trainer.runs import directory, sweep_file, vouching
from trainer.runs.directory import RunDirectory
from trainer.runs.vouching import Kept, Recorded

_PREPROCESS = 1  # the format of preprocess.json
_UNRECORDED = "not recorded"
_EVALUATED = ("validation_loss", "validation_accuracy")  # evaluated after the last step, so in no checkpoint
Finding = tuple[str, str | None, str | None]


class _State(TypedDict):
    validation: dict[str, Any]


class _Training(TypedDict):
    state: _State


class _Saved(TypedDict):
    """The part of state.json that is compared."""

    training: _Training


def of_run(run: RunDirectory, good: Sequence[int]) -> Iterator[Finding]:
    """Yield (file, problem, note) for the files of a run besides its checkpoints.

    Args:
        run: The run.
        good: The steps of the good checkpoints.
    """
    kept = Kept(run)
    then = {step: vouching.recorded(run.checkpoints / manifest.name_of(step)) for step in good}
    known = {step: one for step, one in then.items() if one is not None}
    for step in good:
        path = run.checkpoints / manifest.name_of(step)
        if then[step] is None and (problem := vouching.unrecorded_problem(kept, path)) is not None:
            yield f"checkpoints/{path.name}/{manifest.MANIFEST}", problem, None
    yield "status.json", _status_problem(kept, good, known), None
    for file, (problem, note) in {
        "config.yaml": (_config_problem(kept, known), None),
        "preprocess.json": _preprocess(kept, known),
        "metrics.jsonl": (_rows_problem(kept, known, good), None),
    }.items():
        if problem is None and note is None and len(known) < len(good) and (run.path / file).exists():
            note = _UNRECORDED + (f" by {len(good) - len(known)} of {len(good)} checkpoints" if known else "")
        yield file, problem, note


def of_sweep(path: Path) -> str | None:
    """Return the problem of the sweep.json in a directory, which names the jobs and the swept keys."""
    try:
        sweep = sweep_file.read(path)
    except UsageError as error:
        return str(error)
    for folder in directory.jobs(path):
        swept = RunDirectory(folder).read_status().get("swept")
        if swept is not None and list(swept) != sweep["swept"]:
            return f"{path / 'sweep.json'} says that {', '.join(sweep['swept'])} differ; {folder.name} was another job"
    return None


def _status_problem(kept: Kept, good: Sequence[int], known: Mapping[int, Recorded]) -> str | None:
    """Return the problem of status.json: its own sum, which newer runs must have, or its progress."""
    if "state" not in kept.status:
        return "can't be read; resuming the run recreates it"
    raw = plain_json.json_data(kept.rundir.path / "status.json", as_is=True)
    if raw.get("format", 1) != 1:
        return f"has format {raw['format']}, but this version reads 1; use the version that wrote it"
    if good and (problem := _progress_problem(kept, good, known)) is not None:
        return problem
    if (problem := vouching.seal_problem(raw, is_expected=bool(known))) is not None:
        return f"{problem}; `trainer resume` restores it from the checkpoints"
    return None


def _progress_problem(kept: Kept, good: Sequence[int], known: Mapping[int, Recorded]) -> str | None:
    """Compare step, best and metrics with the checkpoints that recorded them."""
    run, status = kept.rundir, kept.status
    step, state = good[-1], _state(run, good[-1])
    best, is_at_end = status.get("best"), _is_best_at_end(status, state)
    if best is not None and best["step"] in good and not is_at_end:
        then = _state(run, best["step"])
        if (then.get("best_step"), then.get("best_value")) != (best["step"], best["value"]):
            return _differs("best", best["value"], then.get("best_value"), best["step"])
    if status.get("state") not in ("done", "stopped") or step != manifest.steps(run.checkpoints)[-1]:
        return None  # a run that has not ended may be ahead of its checkpoints; so is one whose last is damaged
    if (ended := status.get("step", 0)) != step:
        return f"says that the run ended at step {ended:,}, but the newest checkpoint is from step {step:,}"
    found = {"best": (best or {}).get("step"), "skipped": status.get("skipped"), **status.get("metrics", {})}
    then = {"best": state.get("best_step"), "skipped": state.get("skipped"), "loss": state.get("loss")}
    if is_at_end:
        then["best"] = step
    if state.get("validation_step") == step:  # else the run was evaluated again at its end
        then.update(state["validation"])
    changed = step not in known or known[step]["config"] != status.get("sums", {}).get("config")
    for name, value in then.items():
        if name == "best" and changed and found["best"] is None:
            continue  # resumed with another metric to monitor, without taking a step
        if found.get(name) != value:
            return _differs(name, found.get(name), value, step)
    more = [name for name in status.get("metrics", {}) if name not in _names(status, state, changed)]
    return f"has been edited: the checkpoint of step {step:,} has no {', '.join(more)}" if more else None


def _is_best_at_end(status: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Return whether the best evaluation is the one after the last step, which no checkpoint holds.

    Args:
        status: The status.
        state: The loop's state in the last checkpoint.
    """
    best, step = status.get("best"), state.get("step")
    if best is None or status.get("state") != "done" or best["step"] != step or state.get("validation_step") == step:
        return False
    return best["value"] is not None and best["value"] == status.get("metrics", {}).get(best["metric"])


def _names(status: Mapping[str, Any], state: Mapping[str, Any], changed: bool) -> Collection[str]:
    """Return the metrics allowed in the status of a run that has ended.

    Args:
        status: The status.
        state: The loop's state in the last checkpoint.
        changed: Whether the configuration has changed since then.
    """
    known = {"loss", *state["validation"]}
    evaluated = status.get("state") == "done" and state.get("validation_step") != state.get("step")
    if not evaluated or not (status.get("rows") or {}).get("validation"):
        return known
    if state["validation"] and not changed:
        return known
    return {*known, *_EVALUATED}


def _differs(name: str, now: Any, then: Any, step: int) -> str:
    return f"has been edited: {name} is {now}, but {then} in the checkpoint of step {step:,}"


def _state(run: RunDirectory, step: int) -> dict[str, Any]:
    """Return the loop's state in a checkpoint, with None for numbers that were not finite."""
    file = run.checkpoints / manifest.name_of(step) / manifest.STATE
    data = plain_json.json_data(file)
    if not has_shape(_Saved)(data):
        raise BadCheckpoint(f"{file} lacks required fields or has fields of the wrong type")
    state: dict[str, Any] = _finite(data["training"]["state"])
    return state


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return None if "$float" in value else {key: _finite(inner) for key, inner in value.items()}
    return value


def _config_problem(kept: Kept, known: Mapping[int, Recorded]) -> str | None:
    try:
        settings.check(kept.config)
    except UsageError as error:
        return str(error)
    for step, then in known.items():
        if (problem := vouching.config_problem(kept, manifest.name_of(step), then)) is not None:
            return problem
    if kept.status.get("config", kept.config) != kept.config and not _is_in_between(kept, known):
        return "has changed: status.json has another configuration"
    return None


def _is_in_between(kept: Kept, known: Mapping[int, Recorded]) -> bool:
    """Return whether a resume was interrupted between writing status.json, which comes first, and config.yaml."""
    configs = [one["config"] for one in (*[*known.values()][-1:], *kept.starts_after(None))]
    return kept.status.get("state") in ("running", "waiting") and sum_of(kept.config) in configs


def _preprocess(kept: Kept, known: Mapping[int, Recorded]) -> tuple[str | None, str | None]:
    """Return (problem, note)."""
    try:
        data = kept.rundir.read_preprocess()
    except UsageError as error:
        return str(error), None
    if data is not None and not (isinstance(data, dict) and data.get("format") == _PREPROCESS):
        return "has a format that this version can't read", None
    if not known:
        return None, None
    problem = vouching.resume_preprocess_problem(kept, manifest.name_of(max(known)), known[max(known)])
    if problem is not None:
        return problem, None
    others = []
    for step, then in known.items():
        problem = vouching.preprocess_problem(kept, manifest.name_of(step), then)
        if problem is not None and not kept.is_replaced(then):
            return problem, None
        others += [f"{step:,}"] if problem is not None else []
    return None, f"good, but different from that of step {', '.join(others)}, which used other data" if others else None


def _rows_problem(kept: Kept, known: Mapping[int, Recorded], good: Sequence[int]) -> str | None:
    """Compare metrics.jsonl with the record of the newest checkpoint, which covers those of the older ones."""
    file, step = kept.rundir.metrics, max(known, default=0)
    then = known[step].get("metrics") if known else None
    try:
        found = vouching.sum_of_first(file, then["size"] if then else 0)  # must be readable in any case
        size = file.stat().st_size if file.exists() else 0
    except (OSError, ValueError) as error:
        return f"can't be read: {getattr(error, 'strerror', error)}"
    if then is None:
        return None
    if then["size"] > size:
        return f"is shorter than when step {step:,} was saved: its last rows are lost"
    if found != then["sha256"]:
        return f"has been edited since step {step:,} was saved: put it back, or `trainer resume` it with --force"
    has_ended = kept.status.get("state") in ("done", "stopped") and max(good) == kept.status.get("step")
    if has_ended and step == max(good) and size > then["size"]:
        return f"has {size - then['size']:,} bytes that the run did not write; `trainer resume` removes them"
    return None
