"""Plans a picture of some runs, and makes it from their numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from trainer.charts import from_runs, spreadsheet
from trainer.charts.from_runs import Measured
from trainer.charts.picture import HeatMap, Panel, Picture
from trainer.errors import UsageError, refusal, unknown
from trainer.runs import differences
from trainer.runs import ranking as rankings
from trainer.runs.differences import setting
from trainer.runs.entries import RunSummary
from trainer.runs.ranking import Ranking

_LEAST = 3  # distinct values of a setting that make a curve


@dataclass(frozen=True)
class Plan:
    """The content of a picture.

    Args:
        entries: The runs.
        metrics: The metrics to draw.
        ranking: What ranks the runs.
        differing: The settings in which the runs differ.
        by: The settings to group by; None: a line for each run.
        against: The settings to draw the results against.
        curves: Whether curves are drawn.
        chosen: Whether `against` was chosen automatically.
        track: Yields the runs while they are read, with a progress bar.
    """

    entries: list[RunSummary]
    metrics: list[str]
    ranking: Ranking
    differing: list[str]
    by: list[str] | None
    against: list[str]
    curves: bool
    chosen: bool = False
    track: Callable[[Sequence[RunSummary], str], Iterable[RunSummary]] = lambda entries, what: entries


def planned(found: list[RunSummary], flags: dict[str, str], is_sweep: bool) -> Plan:
    """Choose what to draw by the flags, else by the settings in which the runs differ.

    Raises:
        UsageError: No run has a metric or a setting, or flags exclude each other.
    """
    if "curves" in flags and "against" in flags:
        raise refusal("--curves --against", "exclude each other", "one of them")
    named = _metrics(found, flags)
    ranked = [name for name in named if any(name in one.metrics for one in found)]
    ranking = rankings.ranking(found, ranked[-1] if ranked else None)
    differing = differences.differing(found)
    by = _settings(found, flags, "by") if "by" in flags else None
    against = _settings(found, flags, "against")
    _require_numbers(found, against, differing)
    curves, chosen = not against, False
    if is_sweep and not against:
        free = [key for key in differing if key != differences.SEED]
        if "curves" not in flags and by is None and _suggests_numbers(found, free, ranking):
            against, curves, chosen = free, len(free) == 1, True
        if by is None and differences.SEED in differing:
            by = free
    if against and ranking.metric is None:
        raise refusal("--against", "the runs have different losses or data", "--metric NAME as well")
    return Plan(found, named or _usual(found, ranking), ranking, differing, by, against, curves, chosen)


def _metrics(found: Sequence[RunSummary], flags: dict[str, str]) -> list[str]:
    """Return the metrics that --metric names.

    Raises:
        UsageError: No run has measured one of them.
    """
    named = [name.replace(" ", "_") for name in _listed(flags, "metric")]
    known = {"loss", "lr", *(name for one in found for name in one.metrics)}
    for name in named:
        if name not in known:
            raise unknown(f"--metric={name}", "no run here has measured it", name, known, "--metric=")
    return named


def _settings(found: Sequence[RunSummary], flags: dict[str, str], flag: str) -> list[str]:
    """Return the settings that a flag names.

    Raises:
        UsageError: No run has one of them.
    """
    keys = _listed(flags, flag)
    for key in keys:
        differences.require_setting(found, key, f"--{flag}")
    return keys


def _require_numbers(found: Sequence[RunSummary], against: list[str], differing: list[str]) -> None:
    """Refuse settings that results can't be drawn against.

    Raises:
        UsageError: There are more than two settings, or the only one is not a number.
    """
    if len(against) > 2:
        raise refusal(
            f"--against={','.join(against)}", "names more than two settings", "KEY, or KEY,KEY for a heat map"
        )
    if len(against) == 1 and not differences.is_number(found, against[0]):
        numbers = [key for key in differing if differences.is_number(found, key)]
        raise refusal(f"--against={against[0]}", "is not a number in every run", numbers)


def _listed(flags: dict[str, str], flag: str) -> list[str]:
    """Return the words of a comma-separated flag.

    Raises:
        UsageError: One of them is empty.
    """
    if flag not in flags:
        return []
    words = [word.strip() for word in flags[flag].split(",")]
    if not all(words):
        raise refusal(f"--{flag}={flags[flag]}", "has an empty name", f"--{flag} NAME,NAME")
    return list(dict.fromkeys(words))


def _suggests_numbers(found: list[RunSummary], free: list[str], ranking: Ranking) -> bool:
    """Return whether a sweep varies only one or two numbers, so that its results are best drawn against them."""
    if ranking.metric is None or not all(differences.is_number(found, key) for key in free):
        return False
    levels = [len({setting(one, key) for one in found}) for key in free]
    return (len(free) == 1 and levels[0] >= _LEAST) or len(free) == 2


def _usual(found: list[RunSummary], ranking: Ranking) -> list[str]:
    """Return the metrics drawn by default: the losses of one run, the loss and the ranked metric of several runs."""
    if len(found) == 1:
        return [*from_runs.LOSSES]
    ranked = ranking.metric or "validation_loss"
    measured = {name for one in found for name in one.metrics}
    return ["loss", *([ranked] if ranked in measured and ranked != "loss" else [])]


def picture_of(plan: Plan, title: str) -> tuple[Picture, list[str]]:
    """Return the picture, and notes about it.

    Raises:
        UsageError: The runs have measured nothing yet.
    """
    notes: list[str] = []
    if rankings.differ(plan.entries, "data"):
        notes.append("the runs have different data: their numbers are not comparable")
    elif rankings.differ(plan.entries, "loss") and any(name.endswith("loss") for name in plan.metrics):
        notes.append("the runs have different losses: their losses are not comparable")
    parts: list[Panel | HeatMap] = []
    legend, is_ordered = "", False
    if plan.curves:
        if len(plan.entries) == 1:
            parts += from_runs.of_run(plan.entries[0], plan.metrics)
        else:
            panels, more, legend = _each(plan) if plan.by is None else _groups(plan, plan.by)
            parts, notes = [*parts, *panels], [*notes, *more]
            is_ordered = _is_ordered(plan.entries, plan.differing if plan.by is None else plan.by)
    if len(plan.against) == 1:
        (key,) = plan.against
        others = [other for other in plan.differing if other not in (key, differences.SEED)]
        parts = [*parts[-1:], from_runs.against(plan.entries, plan.ranking, key, others)]
        if plan.chosen:
            notes.append(f"the results against {key} are drawn too, because it is a number; --curves omits them")
    elif plan.against:
        heat_map = from_runs.heat_map(plan.entries, plan.ranking, *plan.against)
        parts.append(heat_map)
        if any(cell.spread is not None for cell in heat_map.cells.values()):
            notes.append("numbers are mean ± standard deviation over the runs with the same two settings")
        if plan.chosen:
            notes.append("the sweep varies two numbers, so its results are drawn; --curves draws its curves instead")
    if not any(_has_numbers(part) for part in parts):
        raise UsageError(f"plot: no numbers yet in {', '.join(one.short for one in plan.entries[:5])}")
    failed = [one for one in plan.entries if one.state == "failed"]
    notes += [f"failed: {one.short}: {one.error}" for one in failed[:3]]
    if len(failed) > 3:
        notes.append(f"{len(failed) - 3} more failed; `trainer runs state=failed` lists them")
    return Picture(parts, title, legend, is_ordered), notes


def _is_ordered(found: list[RunSummary], keys: Sequence[str]) -> bool:
    """Return whether colors can be a gradient: the runs differ only in one number."""
    return len(keys) == 1 and keys[0] != differences.SEED and differences.is_number(found, keys[0])


def _has_numbers(part: Panel | HeatMap) -> bool:
    if isinstance(part, HeatMap):
        return any(cell.value is not None for cell in part.cells.values())
    return any(math.isfinite(y) for line in part.lines for y in line.y)


def _measured(plan: Plan, of: Sequence[RunSummary], labels: Sequence[str]) -> list[Measured]:
    tracked = plan.track(of, "reading")
    return [
        Measured(one, from_runs.measured(one, plan.metrics), label) for one, label in zip(tracked, labels, strict=True)
    ]


def _grouped(plan: Plan, by: Sequence[str]) -> dict[tuple[str, ...], list[Measured]]:
    groups = differences.grouped(plan.entries, by)
    return {values: _measured(plan, of, [one.short for one in of]) for values, of in groups.items()}


def _each(plan: Plan) -> tuple[list[Panel], list[str], str]:
    """Return the curves with a line for each run, notes about them, and the heading of the legend."""
    best_first = sorted(plan.entries, key=plan.ranking.key)
    if plan.ranking.metric is None:
        best_first.sort(key=lambda one: one.name, reverse=True)
    bright = {one.short for one in best_first[: from_runs.MOST]}
    if _is_ordered(plan.entries, plan.differing):
        best_first.sort(key=lambda one: float(setting(one, plan.differing[0])))
    heading, labels = differences.labels(best_first, plan.differing)
    several = _measured(plan, best_first, labels)
    notes = []
    if len(several) > len(bright):
        which = "best" if plan.ranking.metric is not None else "newest"
        notes.append(f"{len(several)} runs: the {which} {len(bright)} are in color, the others are pale")
    return from_runs.of_runs(several, plan.metrics, bright), notes, heading


def _groups(plan: Plan, by: list[str]) -> tuple[list[Panel], list[str], str]:
    """Return the curves with a line for each group, notes about them, and the heading of the legend."""
    groups = _grouped(plan, by)
    means = {}
    for values, members in groups.items():
        if numbers := from_runs.results([one.entry for one in members], plan.ranking):
            means[values] = statistics.fmean(numbers)
    best_first = sorted(means, key=means.__getitem__, reverse=plan.ranking.descending)
    bright = {*[*best_first, *(values for values in groups if values not in means)][: from_runs.MOST]}
    notes = []
    if len(groups) > len(bright):
        which = "best" if means else "first"
        notes.append(f"{len(groups)} groups: the {which} {len(bright)} are in color, the others are pale")
    if any(from_runs.stops_apart(members, plan.metrics) for members in groups.values()):
        notes.append("each mean ends where the first run of its group ends")
    counts = (sum(not one.failed for one in members) for members in groups.values())
    averaged = from_runs.mean_of([number for number in counts if number])
    heading = f"{', '.join(by)} ({averaged})" if by and averaged else ", ".join(by)
    return from_runs.of_groups(groups, plan.metrics, bright), notes, heading


def numbers_of(plan: Plan, flags: dict[str, str]) -> str:
    """Return the numbers as CSV: the means of --by, the results of --against, else every value of every run."""
    if "against" in flags:
        return spreadsheet.of_results(plan.entries, plan.differing, plan.ranking)
    if "metric" not in flags:
        measured = (name for one in plan.entries for name in one.metrics)
        plan = replace(plan, metrics=list(dict.fromkeys([*plan.metrics, *measured])))
    if "by" in flags:
        by = plan.by or []
        return spreadsheet.of_means(_grouped(plan, by), by, plan.metrics)
    several = _measured(plan, plan.entries, [one.short for one in plan.entries])
    return spreadsheet.of_runs(several, plan.differing, plan.metrics)
