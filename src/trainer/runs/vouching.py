"""Checks config.yaml, preprocess.json and metrics.jsonl against the sums in manifests and status.json. Without torch.

A checkpoint records the sums of these files when it is saved, and each start of a run records the sums it continues
with. A file that differs from a checkpoint's record is known if a later start recorded it, and edited otherwise. Older
versions recorded no sums: a start without sums excuses no file of a checkpoint that has some, and only checkpoints
saved by such a start may lack them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, cast

from trainer.checkpoints import manifest
from trainer.checkpoints.manifest import BadCheckpoint
from trainer.config import secrets
from trainer.config.settings import Settings, flat
from trainer.errors import UsageError, refusal
from trainer.files import plain_json, reading
from trainer.files.plain_json import as_json, has_shape
from trainer.files.sums import OWN, is_sealed, sha256, sum_of
from trainer.runs import moved_files
from trainer.runs.directory import RunDirectory
from trainer.runs.status import Sums
from trainer.text import show


class Rows(TypedDict):
    """The manifest's entry for metrics.jsonl: its length in bytes, and the SHA-256 of that many bytes."""

    size: int
    sha256: str


class Recorded(Sums, total=False):
    """The manifest's entry for the run; a checkpoint of the step at which a run failed has no rows."""

    metrics: Rows


@dataclass(frozen=True)
class Kept:
    """The files of a run besides its checkpoints, each read when it is first needed; UsageError if it can't be read."""

    rundir: RunDirectory

    @cached_property
    def status(self) -> dict[str, Any]:
        """The content of status.json."""
        return self.rundir.read_status()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.yaml."""
        return self.rundir.read_config()

    @cached_property
    def preprocess_sum(self) -> str | None:
        """The sum of preprocess.json, None if there is none."""
        file = self.rundir.path / "preprocess.json"
        try:
            return sha256(reading.content(file, reading.MOST_PREPROCESS))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{file} can't be read: {error}") from error

    @property
    def sums(self) -> Sums:
        """The sums of config.yaml and preprocess.json."""
        return {"config": sum_of(self.config), "preprocess": self.preprocess_sum}

    @property
    def resume(self) -> str:
        """The command that resumes the run."""
        return f"trainer resume {shlex.quote(self.rundir.short)}"

    def problem(self, file: str, reason: str, allowed: Sequence[str] | str) -> str:
        """Return the one line that names a file of the run, its problem and the ways out."""
        return str(refusal(str(self.rundir.path / file), reason, allowed))

    def starts_after(self, then: Sums | None) -> list[Sums]:
        """Return the sums that starts of the run recorded after a checkpoint (None: all starts), oldest first.

        While a start is replacing the files, the sums before and after come last, because the files may match either.
        Starts by versions that recorded no sums are skipped.
        """
        segments = self.status.get("segments", [])
        if then is not None:
            same = [n for n, one in enumerate(segments) if one.get("sums", {}).get("config") == then["config"]]
            same = same or [n for n, one in enumerate(segments) if "sums" not in one]  # one of them may have saved it
            segments = segments[same[-1] + 1 :] if same else segments
        pending = [self.status[key] for key in ("sums_before", "sums") if key in self.status]
        return [one["sums"] for one in segments if "sums" in one] + pending

    def known(self, then: Sums | None) -> list[Sums]:
        """Return the sums that a checkpoint records, and then those of `starts_after`."""
        return [*([] if then is None else [then]), *self.starts_after(then)]

    def is_replaced(self, then: Sums) -> bool:
        """Return whether a start after a checkpoint continued with other data, and so with this preprocess.json."""
        return self.preprocess_sum in [one["preprocess"] for one in self.starts_after(then)]


def planned(rundir: RunDirectory, config: Mapping[str, Any], preprocess: dict[str, Any] | None) -> Sums:
    """Return the sums that config.yaml and preprocess.json will have.

    Args:
        rundir: The run, whose preprocess.json is left as it is if the new content is the same or there is none.
        config: The new content of config.yaml.
        preprocess: The new content of preprocess.json, None if the data need none.
    """
    stays = preprocess is None or rundir.read_preprocess() == preprocess
    prepared = Kept(rundir).preprocess_sum if stays else sum_of_preprocess(preprocess)
    return {"config": sum_of(config), "preprocess": prepared}


def sum_of_preprocess(preprocess: dict[str, Any] | None) -> str | None:
    """Return the sum that a preprocess.json will have once written."""
    return None if preprocess is None else sha256(as_json(preprocess, in_ascii=False))


def same_data(rundir: RunDirectory, settings: Settings) -> bool:
    """Return whether settings select the data named in config.yaml; secrets, which are not stored, are ignored."""
    stored, files = rundir.read_config().get("data") or {}, rundir.read_status().get("data", {}).get("files", {})
    return moved_files.is_same(files, stored, secrets.tree(settings.to_dict())["data"])


def recorded(path: Path) -> Recorded | None:
    """Return the entry for the run in the manifest of a checkpoint, None if an older version wrote the manifest.

    Raises:
        BadCheckpoint: The checkpoint can't be read.
    """
    with manifest.verifying(path):
        found = plain_json.json_data(path / manifest.MANIFEST).get("run")
    if found is not None and not has_shape(Recorded)(found):
        raise BadCheckpoint(f"{path / manifest.MANIFEST} has changed: its entry for the run is invalid")
    return cast("Recorded | None", found)


def require(rundir: RunDirectory, path: Path) -> None:
    """Refuse to use a checkpoint if a file that its results depend on has been edited.

    Args:
        rundir: The run.
        path: The checkpoint.

    Raises:
        UsageError: A file has been edited; the message names it and a way out.
    """
    kept, then = Kept(rundir), recorded(path)
    if then is None:
        problem = unrecorded_problem(kept, path)
    else:
        problem = config_problem(kept, path.name, then) or preprocess_problem(kept, path.name, then)
    if problem is not None:
        raise UsageError(problem)


def require_resumable(
    rundir: RunDirectory,
    path: Path | None,
    force: bool = False,
    announce: Callable[[str], None] = lambda remark: None,
    prepared: str | None = None,
    rows: bool = True,
) -> None:
    """Refuse to continue a run whose files have been edited.

    Args:
        rundir: The run.
        path: The checkpoint to continue from, None for the beginning.
        force: Whether to announce the problems and use the files as they are.
        announce: Prints one line to the user.
        prepared: The sum of the preprocessing recomputed from the same data, if it was.
        rows: Whether metrics.jsonl matters.

    Raises:
        UsageError: A file has been edited; the message names it and a way out. Or metrics.jsonl can't be read.
    """
    if rows and path is not None:
        _require_metrics(rundir)
    config = str(rundir.path / "config.yaml")
    for problem in resume_problems(rundir, path, prepared, rows):
        # Without status.json, an edit can't be told from the changes of an earlier resume.
        if not (force or (problem.startswith(config) and not rundir.read_status())):
            raise UsageError(problem)
        announce(f"warning: {problem.partition('; allowed: ')[0]}; it is used as it is")


def resume_problems(
    rundir: RunDirectory, path: Path | None, prepared: str | None = None, rows: bool = True
) -> list[str]:
    """Return the problems of the files with which a run would continue; arguments as for `require_resumable`."""
    kept, then = Kept(rundir), None if path is None else recorded(path)
    if path is not None and then is None:
        return list(filter(None, [unrecorded_problem(kept, path)]))
    name = "the run was started" if path is None else path.name
    found = [config_problem(kept, name, then), resume_preprocess_problem(kept, name, then, prepared)]
    if rows and then is not None and "metrics" in then:
        found.append(_rows_problem(kept, name, then["metrics"]))
    return list(filter(None, found))


def unrecorded_problem(kept: Kept, path: Path) -> str | None:
    """Return a problem if a manifest without an entry for the run should have one."""
    segments, is_failure = kept.status.get("segments", []), path.parent == kept.rundir.failure
    step = manifest.step_of(path.name)
    savers = segments if is_failure else _savers(segments, step)  # a run may fail at the first step of a start
    has_sums = savers and all("sums" in one for one in savers)
    if not has_sums and not _is_other_recorded(kept.rundir, segments, step, savers):
        return None
    way = f"put it back, or `{kept.resume} --force` to use it as it is"
    return str(refusal(f"{path / manifest.MANIFEST}", "has been edited: it has no entry for the run", way))


def seal_problem(status: Mapping[str, Any], is_expected: bool = False) -> str | None:
    """Return the problem of the sum that status.json includes of itself.

    Args:
        status: The unescaped content of status.json.
        is_expected: Whether the sum is required; it always is if status.json includes other sums.
    """
    if OWN in status:
        return None if is_sealed(status) else "has been edited: it doesn't match its SHA-256"
    segments = status.get("segments")
    starts = segments if isinstance(segments, list) else []
    if is_expected or any("sums" in one for one in (status, *starts) if isinstance(one, dict)):
        return "has been edited: its own SHA-256 is missing"
    return None


def edited_status(rundir: RunDirectory) -> str | None:
    """Return a line if status.json has been edited, None if it has not or can't be read."""
    file = rundir.path / "status.json"
    try:
        status = plain_json.json_data(file, as_is=True)
    except (OSError, ValueError):
        return None
    problem = seal_problem(status) if isinstance(status, dict) else None
    return None if problem is None else f"{file} {problem}"


def config_problem(kept: Kept, name: str, then: Sums | None) -> str | None:
    """Return a problem if config.yaml matches neither a checkpoint nor a later start of the run.

    Args:
        kept: The files of the run.
        name: The checkpoint.
        then: The sums that it records; None to compare with all starts of the run.
    """
    known = kept.known(then)
    if sum_of(kept.config) in [one["config"] for one in known]:
        return None
    if then is None and (not known or any("sums" not in one for one in kept.status.get("segments", []))):
        return None  # an older version started the run, and nothing has been saved since
    way = f"put it back, or `{kept.resume} --force` to use it as it is"
    return kept.problem("config.yaml", f"has been edited since {_saved(name, then)}{_changes(kept)}", way)


def preprocess_problem(kept: Kept, name: str, then: Sums) -> str | None:
    """Return why a checkpoint can't be used with the run's preprocess.json; arguments as for `config_problem`."""
    now = kept.preprocess_sum
    if now == then["preprocess"]:
        return None
    if now is None:
        way = f"put it back, or `{kept.resume}` to recreate it from the data"
        return kept.problem("preprocess.json", "is missing", way)
    if kept.is_replaced(then):
        reason = f"does not belong to {name}: the run has since continued with other data"
        others = _saved_with(kept.rundir, now)
        return kept.problem("preprocess.json", reason, others or "a checkpoint saved from now on")
    way = f"put it back, or delete it and use `{kept.resume}` to recreate it from the data"
    return kept.problem("preprocess.json", f"has been edited since {_saved(name, then)}", way)


def resume_preprocess_problem(kept: Kept, name: str, then: Sums | None, prepared: str | None = None) -> str | None:
    """Return why a run can't continue with its preprocess.json; a missing one is recreated.

    Args:
        kept: The files of the run.
        name: The checkpoint.
        then: The sums that it records; None for the beginning of the run.
        prepared: The sum of the preprocessing recomputed from the same data, if it was.
    """
    config = sum_of(kept.config)
    known = [one for one in kept.known(then) if one["config"] == config]
    if not known:
        return None
    expected, now = known[-1]["preprocess"], kept.preprocess_sum
    if now is None and prepared not in (None, expected):
        reason = "is missing, and recreating it gives a different one: the data have changed"
        return kept.problem("preprocess.json", reason, f"put it back, or `{kept.resume} --force`")
    if now not in (None, expected):
        way = f"put it back, or delete it and use `{kept.resume}` to recreate it from the data; or --force"
        return kept.problem("preprocess.json", f"has been edited since {_saved(name, then)}", way)
    return None


def sum_of_first(path: Path, size: int) -> str | None:
    """Return the SHA-256 of the first `size` bytes of a file, None if it is shorter.

    Raises:
        OSError: The file can't be read.
        Unreadable: The file is almost entirely a hole.
    """
    try:
        with reading.summed(path) as file:
            if file.size < size:
                return None
            file.skip(size)
            return file.sum
    except FileNotFoundError:
        return None if size else sha256(b"")


def _saved(name: str, then: Sums | None) -> str:
    return name if then is None else f"{name} was saved"


def _savers(segments: Sequence[Mapping[str, Any]], step: int) -> list[Mapping[str, Any]]:
    """Return the starts of a run that may have saved a checkpoint: the last one before its step, for step 0 any start.

    A start sets later checkpoints aside and keeps the one it continues from.
    """
    before = [one for one in segments if one.get("from_step", 0) < step or step == 0]
    return before if step == 0 else before[-1:]


def _is_other_recorded(
    rundir: RunDirectory, segments: Sequence[Mapping[str, Any]], step: int, savers: Sequence[Mapping[str, Any]]
) -> bool:
    """Return whether another checkpoint of the same start has an entry for the run; without starts, an earlier one."""
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
        pass  # resuming announces lost rows
    except OSError as error:
        raise UsageError(f"{rundir.metrics} can't be read: {error.strerror}") from error


def _rows_problem(kept: Kept, name: str, then: Rows) -> str | None:
    """Return why a run can't continue with its metrics.jsonl; one that is too short has lost rows, which is allowed."""
    file = kept.rundir.metrics
    try:
        found = sum_of_first(file, then["size"])
    except (OSError, ValueError) as error:
        return f"{file} can't be read: {error}"
    if found in (None, then["sha256"]):
        return None
    way = f"put it back, or `{kept.resume} --force` to use it as it is"
    return kept.problem(file.name, f"has been edited since {name} was saved", way)


def _changes(kept: Kept) -> str:
    """Describe the settings in which config.yaml differs from the configuration in status.json."""
    then, now = flat(dict(kept.status.get("config") or {})), flat(secrets.tree(kept.config))
    if not then:
        return ""
    keys = [key for key in {**then, **now} if show(then.get(key)) != show(now.get(key))]
    some = [f"{key} {show(then.get(key))} -> {show(now.get(key))}" for key in keys[:3]]
    more = ["..."] if len(keys) > len(some) else []
    return f": status.json has another configuration ({', '.join([*some, *more])})" if some else ""


def _saved_with(rundir: RunDirectory, preprocess: str) -> list[str]:
    """Return the flags for the checkpoints that were saved with a preprocess.json with this sum."""
    found = []
    for step in manifest.steps(rundir.checkpoints):
        try:
            then = recorded(rundir.checkpoints / manifest.name_of(step))
        except BadCheckpoint:
            continue
        if then is not None and then["preprocess"] == preprocess:
            found.append(f"--checkpoint {step}")
    return found
