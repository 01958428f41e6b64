"""Parses command lines: flags, group choices and values, checked before Hydra sees them."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import quoting
from trainer.config import secrets
from trainer.config.catalog import GROUPS, SEVERAL, Catalog
from trainer.config.settings import Settings
from trainer.errors import UsageError, nearest, refusal, unknown
from trainer.text import show

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

VALUED_FLAGS = {
    "-c": "cfg",
    "--cfg": "cfg",
    "-i": "info",
    "--info": "info",
    "-p": "package",
    "--package": "package",
    "--by": "by",
    "--group-by": "group_by",
    "--checkpoint": "checkpoint",
    "--input": "input",
    "--row": "row",
    "--format": "format",
    "--against": "against",
    "--metric": "metric",
    "--title": "title",
    "--size": "size",
    "-o": "output",
    "--output": "output",
    "-cd": "config_dir",
    "--config-dir": "config_dir",
}
_SHORT = {"-m": "multirun", "-h": "help"}
HELP_FLAGS, CONFIG_DIR_FLAGS = ("-h", "--help"), ("-cd", "--config-dir")
RUN_FLAGS = (
    *("-m", "--multirun", "--dry-run", "--resolve", "-c", "--cfg", "-i", "--info", "-p", "--package"),
    *CONFIG_DIR_FLAGS,
)
INFO_DEFAULT = "all"
INFO_CHOICES = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
MOST_JOBS = Settings.max_jobs
SETTINGS = tuple(Settings.__dataclass_fields__)


@dataclass
class CommandLine:
    """A parsed command line.

    Args:
        flags: The flags by name, each with its value or an empty string.
        config_dirs: The values of --config-dir.
        rows: The values of --row.
        overrides: All other words.
        name: The command.
        argv: The words as they were typed.
    """

    flags: dict[str, str] = field(default_factory=dict)
    config_dirs: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    name: str = "run"
    argv: Sequence[str] = ()

    @property
    def command(self) -> str:
        """The whole command with its secrets redacted."""
        return shlex.join(["trainer", self.name, *secrets.words(self.argv)])

    @property
    def launcher(self) -> list[str]:
        """The words that choose and configure a sweep's launcher."""
        return [word.lstrip("+") for word in self.overrides if word.lstrip("+").startswith("hydra")]

    @property
    def multirun(self) -> bool:
        """Whether -m was given."""
        return "multirun" in self.flags

    def take_run(self, alone: bool = False) -> str:
        """Remove the word that names a run from the overrides and return it.

        Args:
            alone: Whether any other word is refused.

        Raises:
            UsageError: No word names a run, or several do.
        """
        word, *others = self.overrides or [""]
        if not word or ("=" in word and not Path(word).exists()):
            raise self.which_run()
        if alone and others:
            raise self.which_run("one run at a time:")
        self.overrides = others
        return word

    def which_run(self, reason: str = "which run?") -> UsageError:
        """Return the error for a command that names no run, or several."""
        return UsageError(f"{self.name}: {reason} `trainer {self.name} last`, a path, an id or its last four letters")

    def catalog(self) -> Catalog:
        """Return the options that can be selected, including those in --config-dir."""
        for folder in self.config_dirs:
            if not Path(folder).is_dir():
                raise refusal(f"--config-dir={folder}", f"no such folder: {Path(folder).absolute()}")
        return Catalog(tuple(Path(folder) for folder in self.config_dirs))


def split(argv: Sequence[str], flags: Sequence[str] = RUN_FLAGS, name: str = "run") -> CommandLine:
    """Separate the flags from the other words, which may come in any order.

    Args:
        argv: The words after the command.
        flags: The flags of the command besides --help.
        name: The command.

    Raises:
        UsageError: A flag is unknown or has no value.
    """
    words, rest, known = CommandLine(name=name, argv=argv), list(argv), (*flags, *HELP_FLAGS)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            words.overrides.append(word)
        elif word in known and word not in VALUED_FLAGS:
            words.flags[_SHORT.get(word) or word.lstrip("-").replace("-", "_")] = ""
        elif flag in VALUED_FLAGS and flag in known:
            if VALUED_FLAGS[flag] == "info" and not equals and (not rest or rest[0] not in INFO_CHOICES):
                value, equals = INFO_DEFAULT, "="
            if not equals:
                if not rest:
                    raise refusal(word, "needs a value", f"{word} VALUE")
                value = rest.pop(0)
            if VALUED_FLAGS[flag] == "config_dir":
                words.config_dirs.append(value)
            elif VALUED_FLAGS[flag] == "row":
                words.rows.append(value)
            else:
                words.flags[VALUED_FLAGS[flag]] = value
        else:
            if (setting := word.lstrip("-")).partition("=")[0].partition(".")[0] in (*GROUPS, *SETTINGS):
                raise refusal(
                    word, "is a setting, not a flag", (), quoting.shell(setting) if equals else f"{setting}=VALUE"
                )
            raise unknown(word, "no such flag", word, [flag for flag in known if flag.startswith("--")])
    return words


@dataclass(frozen=True)
class Choice:
    """The words of one job.

    Args:
        groups: The group choices, as `model=mlp`, names without quotes.
        values: The settings, which override the values of the selected options.
        swept: The values of the swept keys.
        sections: Sections that replace the selected ones.
    """

    groups: tuple[str, ...]
    values: tuple[Override, ...]
    swept: dict[str, str] = field(default_factory=dict)
    sections: Mapping[str, dict[str, Any]] = field(default_factory=dict)


def jobs(words: CommandLine, catalog: Catalog) -> list[Choice]:
    """Expand the overrides into one Choice per job; without -m there is exactly one.

    Raises:
        UsageError: A word is not an override, an option is unknown, a key is given twice, a key has
            several values without -m, or there are more jobs than max_jobs.
    """
    overrides = [parse(word, catalog) for word in words.overrides]
    _refuse_repeats(overrides)
    limit = next((o.value() for o in overrides if o.key_or_group == "max_jobs"), MOST_JOBS)
    limit = limit if isinstance(limit, int) else MOST_JOBS  # a wrong one is refused as a setting
    values = [_values(override, words.multirun, catalog, limit) for override in overrides]
    if (count := math.prod(map(len, values))) > limit:
        raise refusal(f"-m with {count:,} jobs", "is more than the limit", f"up to {limit:,}; max_jobs={count}")
    axes = [_axis(override, texts, catalog) for override, texts in zip(overrides, values, strict=True)]
    swept = {o.key_or_group for o in overrides if o.is_sweep_override()}
    return [_choice(combination, swept) for combination in itertools.product(*axes)]


def parse(word: str, catalog: Catalog) -> Override:
    """Parse one override with Hydra's grammar.

    Raises:
        UsageError: The word is not a valid override; the message says how to write it.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = word.partition("=")
    (shown,) = secrets.words([word])
    if not equals and word in (*GROUPS, *SETTINGS):
        raise refusal(shown, "has no value", f"{word}={'OPTION' if word in GROUPS else 'VALUE'}, without spaces")
    if not equals and not word.startswith("~"):
        found = catalog.group_of(word)
        if Path(word).suffix in (".csv", ".parquet"):
            option = "" if word.endswith(".csv") else " data=parquet"
            found = f"experiment=table{option} {quoting.typed('data.path', word)} data.target=COLUMN"
        raise refusal(shown, "is not key=value", (), found or None)
    if not key.strip("+~ "):
        raise refusal(shown, "has no key", "key=value")
    if equals and not value:
        raise refusal(shown, "has no value", f"{key}=VALUE, or {key}=null")
    group = key.lstrip("+")
    if equals and group in GROUPS:
        readable = f"{key}={quoting.choice(value, catalog.options(group))}"
    elif len(value) == 1 and not value.isalnum() and value not in '"\\':  # a mark, such as a separator
        readable = f'{key}="\\t"' if value == "\t" else f'{key}="{value}"'  # Hydra would strip a tab
    else:
        readable = word
    try:
        override = OverridesParser.create().parse_override(readable)
    except HydraException as error:
        if group in GROUPS:
            raise catalog.unknown(group, value) from error
        raise _unreadable(shown, key, shown.partition("=")[2]) from error
    override.input_line = word
    return override


def _unreadable(word: str, key: str, value: str) -> UsageError:
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) != value.count(closing):
            position = len(key) + 1 + value.rfind(opening if opening in value else closing)
            reason = f"the {value[position - len(key) - 1]!r} at character {position + 1} is unbalanced"
            return refusal(word, reason, (), None if value[:1] in "[{" else quoting.corrected(key, value))
    return refusal(word, "can't be parsed", (), quoting.corrected(key, value))


def _refuse_repeats(overrides: list[Override]) -> None:
    seen: dict[str, Override] = {}
    for override in overrides:
        key = override.key_or_group
        if key in seen:
            raise refusal(key, f"is given twice: {seen[key].input_line} and {override.input_line}", "one of them")
        seen[key] = override
    if "steps" in seen and "epochs" in seen:
        raise refusal(f"{seen['steps'].input_line} {seen['epochs'].input_line}", "both set the length", "one of them")


def _values(override: Override, multirun: bool, catalog: Catalog, most: int) -> list[Any]:
    """Return the values of an override as text, or the options that it names; only a sweep has several."""
    from hydra.core.override_parser.types import ChoiceSweep

    from trainer.config import sweeps

    key, word, pattern = override.key_or_group, str(override.input_line), override.value()
    if override.is_delete():
        raise refusal(word, "settings can't be deleted", f"{key}={'OPTION' if key in GROUPS else 'null'}")
    if key.startswith("hydra") and not key.startswith(("hydra/launcher", "hydra.launcher.")):
        allowed = ["hydra/launcher", "hydra.launcher.KEY"]
        hint = {"hydra.run.dir": "run_dir", "hydra.sweep.dir": "run_dir", "hydra.job.name": "name"}.get(key)
        raise refusal(key, "trainer does not use it", allowed, hint or nearest(key, allowed))
    if key.startswith("hydra"):
        if not multirun:
            raise refusal(word, "is only for sweeps", (), f"-m {quoting.shell(word)}")
        if override.is_sweep_override() or (key == "hydra/launcher" and not isinstance(pattern, str)):
            raise refusal(word, "a sweep has one launcher, and each setting of it has one value")
    if override.is_sweep_override() and not multirun:
        value = word.partition("=")[2]
        if key.endswith("path") and Path(value).exists():
            raise refusal(word, "several values", "-m to run each", quoting.typed(key, value))
        together = f", or {quoting.shell(f'{key}=[{value}]')} for "
        if key in SEVERAL:
            one = f"{together}all of them"
        elif key in SETTINGS:  # none of these settings is a list
            one = ""
        else:
            one = ", or one option" if key in GROUPS else f"{together}one list"
        raise refusal(word, "several values", f"-m to run each{one if isinstance(pattern, ChoiceSweep) else ''}")
    if key in GROUPS:
        return sweeps.options(override, catalog, most)
    if override.is_sweep_override():
        return sweeps.values(override, most)
    return [override.get_value_element_as_str()]


def _axis(override: Override, values: list[Any], catalog: Catalog) -> list[Override]:
    """Return one override per value; options of groups get their exact names."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    key, parser = override.key_or_group, OverridesParser.create()
    if key not in GROUPS:
        return [parser.parse_override(f"{key}={text}") for text in values]
    found = [_matched(key, value, catalog) for value in values]
    return [parser.parse_override(quoting.word(key, value)) for value in found]


def _matched(group: str, value: Any, catalog: Catalog) -> Any:
    """Return the option that a word names, a list of options if the group takes several, or None for no option."""
    if group in SEVERAL and isinstance(value, list):
        found = [catalog.match(group, name) for name in value]
        if len({*found}) < len(found):
            raise refusal(f"{group}={show(value)}", "names an option twice", "each once")
        return found
    if not isinstance(value, str):
        raise refusal(f"{group}={show(value)}", f"{group} takes the name of an option", catalog.options(group))
    name = catalog.match(group, value)
    return name if name in catalog.options(group) else None


def _choice(combination: tuple[Override, ...], swept: set[str]) -> Choice:
    groups, values, chosen = [], [], {}
    for override in combination:
        key, value = override.key_or_group, override.value()
        if key in swept:
            as_shown = isinstance(value, bool) or key in GROUPS
            chosen[key] = show(value) if as_shown else override.get_value_element_as_str()
        if key in GROUPS:
            if value is not None:  # experiment=null is the default, and Hydra has no word for it
                groups.append(f"{key}={show(value)}")
        elif not key.startswith("hydra"):
            values.append(override)
    return Choice(tuple(groups), tuple(values), chosen)
