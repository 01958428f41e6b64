"""What vouches for config.yaml, preprocess.json and metrics.jsonl: sums in each manifest and in status.json. No torch.

A checkpoint records what these files held when it was saved; each start of a run, what it went on with. So a file that
differs from a checkpoint's is known if a later start had it, and has been edited if none had. Older versions kept none:
a start without them excuses no file of a checkpoint that has some, and only checkpoints that it saved may have none.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict, cast

from trainer.checkpoints import manifest
from trainer.checkpoints.manifest import BadCheckpoint
from trainer.config import secrets
from trainer.config.settings import Settings, flat
from trainer.errors import UsageError, refusal
from trainer.files import plain_json, reading
from trainer.files.plain_json import as_json, has_shape
from trainer.files.sums import OWN, is_sealed, sum_of
from trainer.runs.directory import RunDirectory
from trainer.runs.status import Sums
from trainer.text import show

_CHUNK = 2**20  # bytes


class Rows(TypedDict):
    """What a manifest says of metrics.jsonl: its length, and the SHA-256 of so many bytes."""

    size: int
    sha256: str


class Recorded(Sums, total=False):
    """What a manifest says of the run; of a step that a run failed at it says nothing of the rows."""

    metrics: Rows


class Edited(UsageError):
    """A file of a run is not the one that its checkpoint was saved with; the message names it and a way out."""


def kept(rundir: RunDirectory) -> Sums:
    """Return the sums of config.yaml and preprocess.json as they are.

    Raises:
        UsageError: One can't be read.
    """
    return {"config": sum_of(rundir.read_config()), "preprocess": _sum_of_file(rundir)}


def planned(rundir: RunDirectory, config: Mapping[str, Any], preprocess: dict[str, Any] | None) -> Sums:
    """Return the sums of both files as they are going to be.

    Args:
        rundir: The run, whose preprocess.json stays as it is if it holds the same or is not needed.
        config: What config.yaml is going to hold.
        preprocess: What preprocess.json is going to hold, None if the data need none.
    """
    stays = preprocess is None or rundir.read_preprocess() == preprocess
    content = _sum_of_file(rundir) if stays else sum_of_preprocess(preprocess)
    return {"config": sum_of(config), "preprocess": content}


def sum_of_preprocess(preprocess: dict[str, Any] | None) -> str | None:
    """Return the sum of a preprocess.json that is written now."""
    return None if preprocess is None else _sha256(as_json(preprocess, in_ascii=False))


def same_data(rundir: RunDirectory, settings: Settings) -> bool:
    """Say whether settings take the data that config.yaml names; secrets are not kept and do not count."""
    return bool(rundir.read_config().get("data") == secrets.tree(settings.to_dict())["data"])


def recorded(path: Path) -> Recorded | None:
    """Return what the manifest of a checkpoint says of its run, None of one that was written before this was kept.

    Raises:
        BadCheckpoint: It can't be read.
    """
    with manifest.verifying(path):
        found = plain_json.json_data(path / manifest.MANIFEST).get("run")
    if found is not None and not has_shape(Recorded)(found):
        raise BadCheckpoint(f"{path / manifest.MANIFEST} has changed: it does not say what the run was")
    return cast("Recorded | None", found)


def require(rundir: RunDirectory, path: Path) -> None:
    """Refuse a checkpoint whose numbers would come out otherwise, as a file that they depend on is not what it was.

    Args:
        rundir: The run.
        path: The checkpoint that is going to be used.

    Raises:
        Edited: There is such a file; names it and what one may do.
    """
    then = recorded(path)
    if then is None:
        if (problem := unrecorded_problem(rundir, path)) is not None:
            raise Edited(problem)
        return
    for problem in (config_problem(rundir, path.name, then), preprocess_problem(rundir, path.name, then)):
        if problem is not None:
            raise Edited(problem)


def require_resumable(
    rundir: RunDirectory,
    path: Path | None,
    force: bool = False,
    announce: Callable[[str], None] = lambda remark: None,
    anew: str | None = None,
    rows: bool = True,
) -> None:
    """Refuse to go on with a run whose files are not those that it has had.

    Args:
        rundir: The run.
        path: The checkpoint that it goes on from, None for its beginning.
        force: Say so and take them as they are.
        announce: Tells the user something in one line.
        anew: The sum of the preprocessing that was made from the same data, if it was made.
        rows: Whether metrics.jsonl matters.

    Raises:
        Edited: There is such a file; names it and what one may do.
        UsageError: metrics.jsonl can't be read, not even by force.
    """
    if rows and path is not None:
        _require_metrics(rundir)
    config = str(rundir.path / "config.yaml")
    for problem in resume_problems(rundir, path, anew, rows):
        # Where status.json is gone, nothing tells an edit from what an earlier resume has changed.
        if not (force or (problem.startswith(config) and not rundir.read_status())):
            raise Edited(problem)
        announce(f"warning: {problem.partition('; allowed: ')[0]}; it is taken as it is")


def resume_problems(rundir: RunDirectory, path: Path | None, anew: str | None = None, rows: bool = True) -> list[str]:
    """Return what is wrong with the files that a run goes on with; the arguments are those of `require_resumable`."""
    then = None if path is None else recorded(path)
    if path is not None and then is None:
        return [problem for problem in [unrecorded_problem(rundir, path)] if problem is not None]
    name = "the run was started" if path is None else path.name
    found = [config_problem(rundir, name, then), going_on_problem(rundir, name, then, anew)]
    if rows and path is not None and then is not None and "metrics" in then:
        found.append(_rows_problem(rundir, path, then["metrics"]))
    return [problem for problem in found if problem is not None]


def unrecorded_problem(rundir: RunDirectory, path: Path) -> str | None:
    """Return what is wrong with a manifest that says nothing of the run: the version that saved it kept sums.

    Args:
        rundir: The run.
        path: The checkpoint.
    """
    segments, is_failure = rundir.read_status().get("segments", []), path.parent == rundir.failure
    step = manifest.step_of(path.name)
    savers = segments if is_failure else _savers(segments, step)  # the step that it failed at may be its first
    if not (savers and all("sums" in one for one in savers)) and not _is_other_recorded(rundir, segments, step, savers):
        return None
    way = f"put it back; `trainer resume {_short(rundir)} --force` takes it as it is"
    return str(refusal(f"{path / manifest.MANIFEST}", "has been edited: it does not say what the run was", way))


def seal_problem(status: Mapping[str, Any], is_expected: bool = False) -> str | None:
    """Return what is wrong with the sum that status.json has of itself.

    Args:
        status: What it holds, as it is.
        is_expected: Whether it must have one; it must where it has other sums.
    """
    if OWN in status:
        return None if is_sealed(status) else "has been edited: it is not what its SHA-256 says"
    segments = status.get("segments")
    starts = segments if isinstance(segments, list) else []
    if is_expected or any("sums" in one for one in (status, *starts) if isinstance(one, dict)):
        return "has been edited: its own SHA-256 is missing"
    return None


def edited_status(rundir: RunDirectory) -> str | None:
    """Return that status.json has been edited, None if it has not or can't be read."""
    file = rundir.path / "status.json"
    try:
        status = plain_json.json_data(file, as_is=True)
    except (OSError, ValueError):
        return None
    problem = seal_problem(status) if isinstance(status, dict) else None
    return None if problem is None else f"{file} {problem}"


def config_problem(rundir: RunDirectory, name: str, then: Sums | None) -> str | None:
    """Return what is wrong with config.yaml: neither a checkpoint nor a later start of the run had it.

    Args:
        rundir: The run.
        name: The checkpoint.
        then: What it records; None to compare with all starts of the run.
    """
    config, status = rundir.read_config(), rundir.read_status()
    now, starts = sum_of(config), starts_after(status, then)
    if now in [one["config"] for one in (*([then] if then else ()), *starts)]:
        return None
    if then is None and (not starts or any("sums" not in one for one in status.get("segments", []))):
        return None  # an older version started it, and nothing has been saved yet
    way = f"put it back, or `trainer resume {_short(rundir)} --force` takes it as it is"
    since = f"since {name}" + (" was saved" if then is not None else "")
    return str(refusal(f"{rundir.path / 'config.yaml'}", f"has been edited {since}{_changes(status, config)}", way))


def preprocess_problem(rundir: RunDirectory, name: str, then: Sums) -> str | None:
    """Return why a checkpoint can't be used with the preprocess.json that is there."""
    file, now = rundir.path / "preprocess.json", _sum_of_file(rundir)
    if now == then["preprocess"]:
        return None
    resume = f"`trainer resume {_short(rundir)}`"
    if now is None:
        return str(refusal(f"{file}", "is missing", f"put it back, or {resume} makes it anew from the data"))
    if is_replaced(rundir, then):
        others = _saved_with(rundir, now)
        reason = f"is not that of {name}: the run has gone on with another one since"
        return str(refusal(f"{file}", reason, others or "a checkpoint that is saved from now on"))
    way = f"put it back, or delete it and {resume} makes it anew from the data"
    return str(refusal(f"{file}", f"has been edited since {name} was saved", way))


def going_on_problem(rundir: RunDirectory, name: str, then: Sums | None, anew: str | None = None) -> str | None:
    """Return why a run can't go on with its preprocess.json; one that is missing is made anew.

    Args:
        rundir: The run.
        name: The checkpoint.
        then: What it records; None of the beginning of the run.
        anew: The sum of the preprocessing that was made from the same data, if it was made.
    """
    config, now = sum_of(rundir.read_config()), _sum_of_file(rundir)
    starts = starts_after(rundir.read_status(), then)
    known = [one for one in (*([then] if then else ()), *starts) if one["config"] == config]
    if not known:
        return None
    expected, file = known[-1]["preprocess"], rundir.path / "preprocess.json"
    short = _short(rundir)
    if now is None and anew not in (None, expected):
        reason = "is missing, and made anew from the data it is another one: they have changed"
        return str(refusal(f"{file}", reason, f"put it back, or `trainer resume {short} --force`"))
    if now not in (None, expected):
        way = f"put it back, or delete it: `trainer resume {short}` makes it anew from the data; or --force"
        return str(refusal(f"{file}", f"has been edited since {name}" + " was saved" * (then is not None), way))
    return None


def is_replaced(rundir: RunDirectory, then: Sums) -> bool:
    """Say whether a later start than a checkpoint's went on with other data, and with the preprocess.json of these."""
    return _sum_of_file(rundir) in [one["preprocess"] for one in starts_after(rundir.read_status(), then)]


def starts_after(status: Mapping[str, Any], then: Sums | None) -> list[Sums]:
    """Return what the starts of a run went on with after a checkpoint, and what it is about to go on with.

    While its files are being changed that is either what they held before or what they are to hold.

    Those by versions that kept no sums are passed over: they vouch for nothing.

    Args:
        status: What status.json says.
        then: What the checkpoint records; None for all starts.
    """
    segments = status.get("segments", [])
    if then is not None:
        same = [n for n, one in enumerate(segments) if one.get("sums", {}).get("config") == then["config"]]
        same = same or [n for n, one in enumerate(segments) if "sums" not in one]  # its own may be among these
        segments = segments[same[-1] + 1 :] if same else segments
    next_ = [status[key] for key in ("sums_before", "sums") if key in status]
    return [one["sums"] for one in segments if "sums" in one] + next_


def first_rows(path: Path, sizes: Sequence[int]) -> dict[int, str]:
    """Return the SHA-256 of so many bytes from the beginning of a file, for each size that it has.

    Raises:
        OSError: It can't be read.
    """
    if not path.exists():
        return {0: _sha256(b"")} if 0 in sizes else {}
    found, running, at = {}, hashlib.sha256(), 0
    with os.fdopen(reading.opened(path), "rb") as file:
        for size in sorted({*sizes}):
            while at < size and (chunk := file.read(min(size - at, _CHUNK))):
                running.update(chunk)
                at += len(chunk)
            if at == size:
                found[size] = running.hexdigest()
    return found


def _savers(segments: Sequence[Mapping[str, Any]], step: int) -> list[Mapping[str, Any]]:
    """Return the starts of a run that may have saved a checkpoint: the last one before its step.

    A start sets later checkpoints aside, and leaves the one that it goes on from. That of step 0 is saved by whichever
    start came so far.
    """
    before = [one for one in segments if one.get("from_step", 0) < step or step == 0]
    return before if step == 0 else before[-1:]


def _is_other_recorded(
    rundir: RunDirectory, segments: Sequence[Mapping[str, Any]], step: int, savers: Sequence[Mapping[str, Any]]
) -> bool:
    """Say whether another checkpoint of the same start records what the run was; if starts are lost, an earlier one."""
    for other in manifest.steps(rundir.checkpoints):
        found = _savers(segments, other)
        is_same = len(savers) == len(found) == 1 and savers[0] is found[0]
        if other != step and (is_same or (not savers and not found and other < step)):
            with suppress(BadCheckpoint, manifest.NewerFormat):
                if recorded(rundir.checkpoints / manifest.name_of(other)) is not None:
                    return True
    return False


def _require_metrics(rundir: RunDirectory) -> None:
    try:
        os.close(reading.opened(rundir.metrics))
    except FileNotFoundError:
        pass  # its rows are lost, which is told of
    except OSError as error:
        raise UsageError(f"{rundir.metrics} can't be read: {error.strerror}") from error


def _rows_problem(rundir: RunDirectory, path: Path, then: Rows) -> str | None:
    """Return why a run can't go on with its metrics.jsonl; one that is shorter has lost rows, which is told of."""
    try:
        found = first_rows(rundir.metrics, [then["size"]]).get(then["size"])
    except (OSError, ValueError) as error:
        return f"{rundir.metrics} can't be read: {error}"
    if found in (None, then["sha256"]):
        return None
    way = f"put it back, or `trainer resume {_short(rundir)} --force` takes it as it is"
    return str(refusal(f"{rundir.metrics}", f"has been edited since {path.name} was saved", way))


def _changes(status: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Say in which settings a configuration differs from what status.json repeats."""
    then, now = flat(dict(status.get("config") or {})), flat(secrets.tree(config))
    if not then:
        return ""
    keys = [key for key in {**then, **now} if show(then.get(key)) != show(now.get(key))]
    some = [f"{key} {show(then.get(key))} -> {show(now.get(key))}" for key in keys[:3]]
    more = ["..."] if len(keys) > len(some) else []
    return f": status.json repeats another configuration ({', '.join([*some, *more])})" if some else ""


def _saved_with(rundir: RunDirectory, preprocess: str) -> list[str]:
    """Return the steps whose checkpoints were saved with a preprocess.json."""
    found = []
    for step in manifest.steps(rundir.checkpoints):
        try:
            then = recorded(rundir.checkpoints / manifest.name_of(step))
        except BadCheckpoint:
            continue
        if then is not None and then["preprocess"] == preprocess:
            found.append(f"--checkpoint {step}")
    return found


def _sum_of_file(rundir: RunDirectory) -> str | None:
    """Return the sum of preprocess.json, None if there is none."""
    file = rundir.path / "preprocess.json"
    try:
        return _sha256(reading.content(file, reading.MOST_PREPROCESS))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} can't be read: {error}") from error


def _short(rundir: RunDirectory) -> str:
    return shlex.quote(rundir.short)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
