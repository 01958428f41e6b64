"""Whether the files of a run, or of a sweep, agree with each other: what `verify` says of them. Without torch."""

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
from trainer.runs.status import Sums
from trainer.runs.vouching import Recorded

_PREPROCESS = 1  # the format of preprocess.json
_UNRECORDED = "not recorded"
_EVALUATED = ("validation_loss", "validation_accuracy")  # by the loop; after the last step no checkpoint has them
Finding = tuple[str, str | None, str | None]


class _State(TypedDict):
    """What is compared of where a run stood."""

    validation: dict[str, Any]


class _Training(TypedDict):
    """What a checkpoint holds beside the weights."""

    state: _State


class _Saved(TypedDict):
    """What state.json holds."""

    training: _Training


def of_run(run: RunDirectory, good: Sequence[int]) -> Iterator[Finding]:
    """Yield what there is to say of the files beside a run's checkpoints: the file, what is wrong, what is to be noted.

    Args:
        run: The run.
        good: The steps of the checkpoints that are whole.
    """
    then = {step: vouching.recorded(run.checkpoints / manifest.name_of(step)) for step in good}
    known = {step: one for step, one in then.items() if one is not None}
    for step in good:
        path = run.checkpoints / manifest.name_of(step)
        if then[step] is None and (problem := vouching.unrecorded_problem(run, path)) is not None:
            yield f"checkpoints/{path.name}/{manifest.MANIFEST}", problem, None
    yield "status.json", _status_problem(run, good, bool(known)), None
    for file, (problem, note) in {
        "config.yaml": _config(run, known),
        "preprocess.json": _preprocess(run, known),
        "metrics.jsonl": (_rows_problem(run, known, good), None),
    }.items():
        if problem is None and note is None and len(known) < len(good) and (run.path / file).exists():
            note = _UNRECORDED + (f" by {len(good) - len(known)} of {len(good)} checkpoints" if known else "")
        yield file, problem, note


def of_sweep(path: Path) -> str | None:
    """Return what is wrong with the sweep.json of a directory, which names the jobs and what differs between them."""
    try:
        sweep = sweep_file.read(path)
    except UsageError as error:
        return str(error)
    for folder in directory.jobs(path):
        swept = RunDirectory(folder).read_status().get("swept")
        if swept is not None and list(swept) != sweep["swept"]:
            return f"{path / 'sweep.json'} says that {', '.join(sweep['swept'])} differ; {folder.name} was another job"
    return None


def _status_problem(run: RunDirectory, good: Sequence[int], is_sealed: bool) -> str | None:
    """Return what is wrong with status.json: its own sum, which it may have to have, or where the run stands."""
    status = run.read_status()
    if "state" not in status:
        return "can't be read; it is made anew when the run goes on"
    raw = plain_json.json_data(run.path / "status.json", as_is=True)
    if raw.get("format", 1) != 1:
        return f"has format {raw['format']}, and this version reads 1; use the version that wrote it"
    if good and (problem := _standing_problem(run, status, good)) is not None:
        return problem
    if (problem := vouching.seal_problem(raw, is_sealed)) is not None:
        return f"{problem}; `trainer resume` writes what the checkpoints say"
    return None


def _standing_problem(run: RunDirectory, status: Mapping[str, Any], good: Sequence[int]) -> str | None:
    """Compare step, best and metrics with what the checkpoints say, as far as they come from there."""
    best = status.get("best")
    if best is not None and best["step"] in good:
        then = _state(run, best["step"])
        if (then.get("best_step"), then.get("best_value")) != (best["step"], best["value"]):
            return _differs("best", best["value"], then.get("best_value"), best["step"])
    if status.get("state") not in ("done", "stopped") or good[-1] != manifest.steps(run.checkpoints)[-1]:
        return (
            None  # it goes on writing after a checkpoint, was killed before it wrote again, or the last one is broken
        )
    state, step = _state(run, good[-1]), good[-1]
    if (ended := status.get("step", 0)) != step:
        return f"says that the run ended at step {ended:,}, and the newest checkpoint is of step {step:,}"
    found = {"best": (best or {}).get("step"), "skipped": status.get("skipped"), **status.get("metrics", {})}
    then = {"best": state.get("best_step"), "skipped": state.get("skipped"), "loss": state.get("loss")}
    if state.get("validation_step") == step:  # else it was evaluated once more at its end
        then.update(state["validation"])
    saved = vouching.recorded(run.checkpoints / manifest.name_of(step))
    changed = saved is None or saved["config"] != status.get("sums", {}).get("config")
    for name, value in then.items():
        if name == "best" and changed and found["best"] is None:
            continue  # it was resumed with another metric to watch, and took no step
        if found.get(name) != value:
            return _differs(name, found.get(name), value, step)
    more = [name for name in status.get("metrics", {}) if name not in _names(status, state, changed)]
    return f"has been edited: the checkpoint of step {step:,} has no {', '.join(more)}" if more else None


def _names(status: Mapping[str, Any], state: Mapping[str, Any], changed: bool) -> Collection[str]:
    """Return the metrics that a run which has ended may have.

    Args:
        status: Where it stands.
        state: Where it stood when its last checkpoint was saved.
        changed: Whether it has another configuration since.
    """
    known = {"loss", *state["validation"]}
    evaluated = status.get("state") == "done" and state.get("validation_step") != state.get("step")
    if not evaluated or not (status.get("rows") or {}).get("validation"):
        return known
    if state["validation"] and not changed:
        return known
    return {*known, *_EVALUATED}


def _differs(name: str, now: Any, then: Any, step: int) -> str:
    return f"has been edited: {name} is {now}, and {then} in the checkpoint of step {step:,}"


def _state(run: RunDirectory, step: int) -> dict[str, Any]:
    """Return where a run stood, as a checkpoint says it; null for a number that was not finite."""
    file = run.checkpoints / manifest.name_of(step) / manifest.STATE
    data = plain_json.json_data(file)
    if not has_shape(_Saved)(data):
        raise BadCheckpoint(f"{file} does not hold what it must")
    state: dict[str, Any] = _finite(data["training"]["state"])
    return state


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return None if "$float" in value else {key: _finite(inner) for key, inner in value.items()}
    return value


def _config(run: RunDirectory, known: Mapping[int, Recorded]) -> tuple[str | None, str | None]:
    status = run.read_status()
    try:
        config = run.read_config()
        settings.check(config)
    except UsageError as error:
        return str(error), None
    for step, then in known.items():
        if (problem := vouching.config_problem(run, manifest.name_of(step), then)) is not None:
            return problem, None
    if "config" in status and status["config"] != config and not _is_in_between(status, sum_of(config), known):
        return "has changed: status.json repeats another configuration", None
    return None, None


def _is_in_between(status: Mapping[str, Any], config: str, known: Mapping[int, Recorded]) -> bool:
    """Say whether a resume was ended between status.json, which comes first, and config.yaml."""
    starts = vouching.starts_after(status, None)
    before: list[Sums] = [*[*known.values()][-1:], *starts]
    return status.get("state") in ("running", "waiting") and config in [one["config"] for one in before]


def _preprocess(run: RunDirectory, known: Mapping[int, Recorded]) -> tuple[str | None, str | None]:
    try:
        data = run.read_preprocess()
    except UsageError as error:
        return str(error), None
    if data is not None and not (isinstance(data, dict) and data.get("format") == _PREPROCESS):
        return "holds no preprocessing of this version", None
    if not known:
        return None, None
    problem = vouching.going_on_problem(run, manifest.name_of(max(known)), known[max(known)])
    if problem is not None:
        return problem, None
    others = []
    for step, then in known.items():
        problem = vouching.preprocess_problem(run, manifest.name_of(step), then)
        if problem is not None and not vouching.is_replaced(run, then):
            return problem, None
        others += [f"{step:,}"] if problem is not None else []
    return None, f"good, and not that of step {', '.join(others)}: the data were others then" if others else None


def _rows_problem(run: RunDirectory, known: Mapping[int, Recorded], good: Sequence[int]) -> str | None:
    """Compare metrics.jsonl with what the newest checkpoint records, which covers what the older ones do."""
    rows = {step: known[step]["metrics"] for step in sorted(known)[-1:] if "metrics" in known[step]}
    status = run.read_status()
    try:
        sums = vouching.first_rows(run.metrics, [one["size"] for one in rows.values()])
        size = run.metrics.stat().st_size if run.metrics.exists() else 0
    except OSError as error:
        return f"can't be read: {error.strerror}"
    for step, one in rows.items():
        if one["size"] > size:
            return f"is shorter than when step {step:,} was saved: its last rows are lost"
        if sums.get(one["size"]) != one["sha256"]:
            return f"has been edited since step {step:,} was saved: put it back, or `trainer resume` it with --force"
    has_ended = status.get("state") in ("done", "stopped") and rows and max(good) == status.get("step")
    if has_ended and max(rows) == max(good) and size > rows[max(rows)]["size"]:
        return f"has {size - rows[max(rows)]['size']:,} bytes more than the run wrote; `trainer resume` cuts them off"
    return None
