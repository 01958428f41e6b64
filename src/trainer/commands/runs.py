"""`trainer runs`: all runs, best first, with mean and std over groups of equal settings."""

from __future__ import annotations

import shlex
from pathlib import Path

from trainer.config import arguments
from trainer.config.arguments import CommandLine
from trainer.config.settings import flat
from trainer.errors import UsageError, refusal, unknown
from trainer.files import garbage
from trainer.runs import directory, entries, find
from trainer.runs.differences import number_of, setting
from trainer.runs.entries import RunSummary
from trainer.runs.ranking import Group, Ranking, ranked_groups, ranking
from trainer.terminal import screen
from trainer.terminal.run_tables import FIRST, looks, means_table, runs_table
from trainer.text import show


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, ("--by", "--group-by", "--all", "--json"), "runs")
    with garbage.uncollected():
        return _rank(words)


def _rank(words: CommandLine) -> int:
    """Print the selected runs, best first, and return the exit code."""
    folders = [word for word in words.overrides if "=" not in word]
    if len(folders) > 1:
        raise UsageError(f"runs: one directory at a time, not {len(folders)}: {' '.join(folders)}")
    known = entries.entries(_below(folders[0]) if folders else directory.every())
    wanted = dict(word.split("=", 1) for word in words.overrides if "=" in word)
    for key in wanted if known else ():
        _require_setting(known, key)
    found = [one for one in known if all(_has(one, key, value) for key, value in wanted.items())]
    if not known:
        where = folders[0] if folders else "./runs"
        raise UsageError(f"there are no runs in {where}; start one with `trainer run`")
    if not found:
        _explain_none(known, wanted)
    by = ranking(found, words.flags.get("by"))
    found.sort(key=lambda one: (one.created, str(one.path)), reverse=True)
    found.sort(key=by.key)
    if "group_by" in words.flags:
        groups = _grouped(found, by, words.flags["group_by"].split(","))
        if "json" in words.flags:
            screen.as_json([group.to_dict() for group in groups])
        else:
            screen.table(means_table(groups, by, found, "runs"))
        return 0
    if "json" in words.flags:
        screen.as_json([one.to_dict() for one in found])
        return 0
    shown = found if "all" in words.flags else found[:FIRST]
    screen.table(runs_table(shown, by))
    if len(shown) < len(found):
        screen.say(f"{len(shown)} of {len(found):,} runs; --all shows all")
    if by.metric is None:
        screen.say("not ranked: the runs have different losses or data; --by METRIC ranks them")
    screen.next_commands({**looks(found), f"trainer resume {shlex.quote(found[0].short)}": "continue the first"})
    return 0


def _below(word: str) -> list[Path]:
    try:
        return find.find_all(word)
    except UsageError as error:
        raise UsageError(f"{word}: no such directory, and no such run or sweep") from error


def _has(of: RunSummary, key: str, value: str) -> bool:
    there = setting(of, key)
    return value == show(there) or (isinstance(there, int | float) and number_of(value) == there)


def _require_setting(known: list[RunSummary], key: str) -> None:
    """Refuse a key that no run has.

    Raises:
        UsageError: No run has the key; suggests the nearest.
    """
    if all(setting(one, key) is None for one in known):
        keys = {"state", "name", *(key for one in known for key in (*one.choices, *flat(dict(one.config))))}
        if key not in keys:
            raise unknown(key, "no run has such a setting", key, keys)


def _explain_none(known: list[RunSummary], wanted: dict[str, str]) -> None:
    """Refuse filters that match no run.

    Raises:
        UsageError: Always; names the first filter that matches no run, and the values that exist.
    """
    for key, value in wanted.items():
        there = sorted({show(setting(one, key)) for one in known if setting(one, key) is not None})
        if not any(_has(one, key, value) for one in known):
            raise unknown(f"{key}={value}", "no run has this value", value, there, f"{key}=")
    raise UsageError(f"no run has {' and '.join(f'{key}={value}' for key, value in wanted.items())} at once")


def _grouped(found: list[RunSummary], by: Ranking, keys: list[str]) -> list[Group]:
    """Return the runs grouped by equal settings, the best mean first.

    Raises:
        UsageError: No run has such a setting, or the runs can't be compared.
    """
    if by.metric is None:
        raise refusal("--group-by", "the runs have different losses or data", "--by METRIC as well")
    for key in keys:
        _require_setting(found, key)
    return ranked_groups(found, by, keys, lambda one, key: show(setting(one, key)))
