"""Decides which jobs of a sweep are trained as one program, and how many at a time."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator, Sequence

from trainer.errors import TrainerError
from trainer.session.job import Job
from trainer.session.session import SECONDS
from trainer.training.stacked import eligible

_SAME = ("model", "data", "loss", "device", "batch_size", "accumulate", "compile")  # equal in all jobs of a group
_NUMBERS = ("lr", "momentum", "dampening", "weight_decay", "betas", "eps")  # of optimizers; may differ within a group
_FILES = 6  # the most open files of a job
_OTHER_FILES = 100
_WRITES = 16  # of status.json per second, by all jobs of a group


def groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return jobs in groups whose configurations differ only in numbers, ordered by their first jobs."""
    found: dict[str, list[Job]] = {}
    for job in jobs:
        config = job.rundir.read_status().get("config") or {"optim": {}, "only": str(job.rundir.path)}
        optimizer = {key: value for key, value in config["optim"].items() if key not in _NUMBERS}
        common = [{key: config.get(key) for key in (*_SAME, "only")}, optimizer]
        found.setdefault(json.dumps(common, sort_keys=True), []).append(job)
    return list(found.values())


def size_of(group: Sequence[Job]) -> tuple[int, str]:
    """Return how many jobs of a group to train at a time, and a description of how they are trained.

    Args:
        group: Jobs whose configurations differ only in numbers.
    """
    if len(group) == 1:
        return 1, "separately: no other job differs from it only in numbers"
    try:
        built = group[0].build()
    except (TrainerError, OSError, ArithmeticError, ValueError, RuntimeError):
        return 1, "separately: the first one can't be built"  # its own training shows the error
    if (reason := eligible.why_singly(built)) is not None:
        return 1, f"separately: {reason}"
    seeds = {job.rundir.read_config().get("seed") for job in group}
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(len(group), max((files - _OTHER_FILES) // _FILES, 1))
    size, share = eligible.best_size(built, count, same_rows=len(seeds) == 1)
    measured = f"when trained together, each takes {share:.2g} times as long as alone"
    at_a_time = max(map(len, parts(group, size)))
    how = "separately" if size == 1 else f"together, {at_a_time} at a time"
    return size, f"{how}: {measured}"


def parts(group: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Yield the jobs of a group in parts of about equal size, at most `size`."""
    count = -(-len(group) // size)
    for number in range(count):
        yield list(group[number * len(group) // count : (number + 1) * len(group) // count])


def named(group: Sequence[Job]) -> str:
    """Return the names of a few jobs of a group, with their number."""
    names = [job.rundir.path.name for job in group]
    if len(names) == 1:
        return f"job {names[0]} is trained"
    return f"{len(names)} jobs ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}) are trained"


def seconds_between_writes(jobs: int) -> float:
    """Return the seconds between two writes of each status.json when jobs are trained together."""
    return max(SECONDS, jobs / _WRITES)
