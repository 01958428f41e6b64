"""Which jobs of a sweep can be trained as one, and how many at a time."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.config import secrets as redact
from trainer.config.settings import check
from trainer.errors import TrainerError
from trainer.runs.directory import RunDirectory
from trainer.session import prepare
from trainer.session.status_writer import SECONDS
from trainer.training.stacked import eligible

_SAME = ("model", "data", "loss", "device", "batch_size", "accumulate", "compile")  # what jobs must have in common
_NUMBERS = ("lr", "momentum", "dampening", "weight_decay", "betas", "eps")  # what their optimizers need not
_FILES = 6  # that a job has open, at most
_OTHER_FILES = 100
_WRITES = 16  # of status.json a second, by all jobs that are trained together


def groups(rundirs: Sequence[RunDirectory]) -> list[list[RunDirectory]]:
    """Return jobs in groups whose configurations differ in numbers only, in the order of their first ones."""
    found: dict[str, list[RunDirectory]] = {}
    for rundir in rundirs:
        config = rundir.read_status().get("config") or {"optim": {}, "only": str(rundir.path)}
        optimizer = {key: value for key, value in config["optim"].items() if key not in _NUMBERS}
        common = [{key: config.get(key) for key in (*_SAME, "only")}, optimizer]
        found.setdefault(json.dumps(common, sort_keys=True), []).append(rundir)
    return list(found.values())


def size_of(group: Sequence[RunDirectory], secrets: Mapping[str, Any]) -> tuple[int, str]:
    """Return how many jobs of a group to train at a time, and in words how they are trained.

    Args:
        group: Jobs whose configurations differ in numbers only.
        secrets: What is not kept in the directory of the first one, by dotted key.
    """
    if len(group) == 1:
        return 1, "singly: no other job differs from it in numbers only"
    try:
        settings = check(redact.filled(group[0].read_config(), secrets))
        built = prepare.rebuild(group[0], settings, group[0].read_status().get("choices"))
    except (TrainerError, OSError, ArithmeticError, ValueError, RuntimeError):
        return 1, "singly: the first one can't be built"  # which it says itself when it is its turn
    if (reason := eligible.why_singly(built)) is not None:
        return 1, f"singly: {reason}"
    seeds = {rundir.read_config().get("seed") for rundir in group}
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(len(group), max((files - _OTHER_FILES) // _FILES, 1))
    size, share = eligible.best_size(built, count, same_rows=len(seeds) == 1)
    measured = f"together each takes {share:.2g} times as long as alone"
    how = "singly" if size == 1 else f"together, {_largest(len(group), size)} at a time"
    return size, f"{how}: {measured}"


def parts(group: Sequence[RunDirectory], size: int) -> Iterator[list[RunDirectory]]:
    """Yield the jobs of a group in parts of about one size, which is at most `size`."""
    count = -(-len(group) // size)
    for number in range(count):
        yield list(group[number * len(group) // count : (number + 1) * len(group) // count])


def _largest(jobs: int, size: int) -> int:
    return -(-jobs // -(-jobs // size))


def named(group: Sequence[RunDirectory]) -> str:
    """Return the names of jobs in short."""
    names = [rundir.path.name for rundir in group]
    if len(names) == 1:
        return f"job {names[0]} is trained"
    return f"{len(names)} jobs ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}) are trained"


def seconds_between_writes(jobs: int) -> float:
    """Return the seconds between two writings of each status.json when jobs are trained together."""
    return max(SECONDS, jobs / _WRITES)
