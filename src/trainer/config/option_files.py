"""The YAML files of options: which files a command selects, their contents, and which file an error is in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer.config.arguments import Choice
from trainer.config.catalog import GROUPS, SEVERAL, Catalog, names, near_path
from trainer.config.hydra_errors import explain_yaml
from trainer.config.settings import COMPONENTS, LOGGER
from trainer.errors import UsageError, refusal
from trainer.text import show


def selected(words: Iterable[str], catalog: Catalog) -> dict[str, Path]:
    """Return the files that words select, directly or through an experiment, by the section that each file fills."""
    chosen = dict(word.split("=", 1) for word in words)
    found = {}
    if (experiment := catalog.options("experiment").get(chosen.get("experiment", ""))) is not None:
        found["experiment"] = experiment
        content = read(experiment, "experiment")
        chosen = {**{group: name for group in GROUPS if (name := chosen_by(content, group))}, **chosen}
    for group, choice in chosen.items():
        for name in names(choice):
            if (file := catalog.options(group).get(name)) is not None:
                found[f"{group}.{name}" if group in SEVERAL else group] = file
    return found


def read(file: Path, group: str) -> dict[str, Any]:
    """Read the file of an option.

    Args:
        file: The file.
        group: Its group, or the section that it fills.

    Raises:
        UsageError: The file is not a valid option of its group; names the file.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise refusal(str(file), f"is not UTF-8: byte {error.start} is {error.object[error.start]:#x}") from error
    except yaml.YAMLError as error:
        raise UsageError(explain_yaml(error)) from error
    except (OSError, OmegaConfBaseException) as error:
        raise refusal(str(file), " ".join(str(error).split())) from error
    if not isinstance(content, dict):
        raise refusal(str(file), f"is a {type(content).__name__}", "KEY: VALUE lines")
    if group.partition(".")[0] in (*COMPONENTS, LOGGER) and not content.keys() & {"_target_", "defaults"}:
        raise refusal(str(file), "has no _target_, which names its class", "a line such as _target_: module.Class")
    _require_readable(file, content, text)
    if group == "experiment":
        _require_experiment(file, content, text)
    return {str(key): value for key, value in content.items()}


def _require_readable(file: Path, content: dict[Any, Any], text: str) -> None:
    """Refuse a package or a choice that Hydra can't read."""
    for line in re.findall(r"^# *(@package\b.*)$", text, re.M):
        if len(line.split()) != 2:
            raise refusal(str(file), f"has the line # {line}", "# @package NAME, a name without spaces")
    lines = content.get("defaults")
    for line in lines if isinstance(lines, list) else []:
        for key, value in line.items() if isinstance(line, dict) else []:
            for name in value if isinstance(value, list) else [value]:
                if not isinstance(name, str | None):
                    written = f"{key}: {show(name)}"
                    raise refusal(str(file), f"{written} in its defaults is no name", f'{key}: "{show(name)}"')


def _require_experiment(file: Path, content: dict[Any, Any], text: str) -> None:
    """Refuse an experiment that Hydra would put in the wrong section, or whose choices Hydra would ignore."""
    example = "lines such as - override /model: mlp"
    lines = content.get("defaults") or []
    if not isinstance(lines, list):
        raise refusal(str(file), f"defaults={show(lines)} is not a list", example)
    for line in lines:
        key = str(next(iter(line), "")) if isinstance(line, dict) else ""
        _, override, name = key.partition("override /")
        if key in GROUPS or (override and name not in GROUPS and not name.startswith("hydra/")):
            raise refusal(str(file), f"has the entry {show(line)} in its defaults", example)
    if not re.search(r"^#\s*@package\s+_global_\s*$", text, re.M):
        raise refusal(str(file), "an experiment needs # @package _global_ as its first line")


def with_source(error: UsageError, choices: Iterable[Choice], catalog: Catalog) -> UsageError:
    """Return a refusal that names the file that sets the invalid setting; unchanged if the setting was typed."""
    for choice in choices if error.key else ():
        if any(value.key_or_group == error.key for value in choice.values):
            break
        for group, file in selected(choice.groups, catalog).items():
            key = error.key if group == "experiment" else error.key.removeprefix(f"{group}.")
            part = OmegaConf.select(OmegaConf.create(read(file, group)), key, throw_on_resolution_failure=False)
            if part is not None and str(file) not in str(error):
                return UsageError(f"{error} (in {near_path(file)})", error.key)
    return error


def chosen_by(experiment: dict[str, Any], group: str) -> str | None:
    """Return the option of a group that an experiment selects, several in brackets; None if it selects none."""
    lines = [line for line in experiment.get("defaults") or [] if isinstance(line, dict)]
    return next((show(line[f"override /{group}"]) for line in lines if f"override /{group}" in line), None)
