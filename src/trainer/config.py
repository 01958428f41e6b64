"""Composes the configuration of each job with Hydra and hands it on as checked, plain Settings."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from trainer import redact, settings
from trainer.errors import UsageError, nearest, refusal, unknown
from trainer.options import GROUPS, Catalog, near_path, shipped_configs
from trainer.settings import COMPONENTS, Settings
from trainer.values import show
from trainer.words import Choice


@dataclass(frozen=True)
class Job:
    """One composed configuration: its settings, what the groups select, and remarks for the user."""

    settings: Settings
    choices: dict[str, str]
    notes: tuple[str, ...] = ()


class UserConfigs(SearchPathPlugin):
    """Appends the user's config folders, so that a stray config.yaml there can't replace the shipped one."""

    folders: ClassVar[list[Path]] = []

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append them behind the shipped ones."""
        for folder in self.folders:
            search_path.append("user", f"file://{folder}")


def register(catalog: Catalog) -> None:
    """Tell Hydra of our schema and of the config folders; again each time, for launchers may swap its registries."""
    here, path = {"", str(Path.cwd())}, sys.path[:]
    sys.path[:] = [folder for folder in path if folder not in here]  # a hydra_plugins there is none of ours
    Plugins.instance()
    sys.path[:] = path
    UserConfigs.folders = catalog.folders[1:]
    ConfigStore.instance().store(name="schema", node=settings.defaults(), provider="trainer")
    if UserConfigs not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(UserConfigs)


@contextmanager
def hydra_setup(catalog: Catalog) -> Iterator[None]:
    """Let Hydra find the shipped configs and the user's, for the duration of a block."""
    register(catalog)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(shipped_configs()), job_name="trainer", version_base="1.3"):
        yield


def compose_jobs(choices: list[Choice], catalog: Catalog) -> list[Job]:
    """Compose and check the configuration of every job.

    Raises:
        UsageError: A configuration is wrong; names the key, the value and what is allowed.
    """
    composed: dict[tuple[str, ...], DictConfig] = {}
    jobs = []
    with hydra_setup(catalog), explained():
        for choice in choices:
            if choice.groups not in composed:
                for group, file in files(choice.groups, catalog).items():
                    read(file, group)
                composed[choice.groups] = compose("config", list(choice.groups), return_hydra_config=True)
            jobs.append(_job(composed[choice.groups].copy(), choice, catalog))
    return jobs


def _job(config: DictConfig, choice: Choice, catalog: Catalog) -> Job:
    chosen = config.hydra.runtime.choices
    options = {group: str(chosen[group]) for group in GROUPS if chosen.get(group) is not None}
    with open_dict(config):
        config.pop("hydra")
    notes = _settle_swaps(config, choice, options, catalog)
    checked = _apply(config, choice, catalog)
    if checked.optim.get("lr") == 0:
        notes.append("optim.lr=0: the weights will not change")
    return Job(checked, options, tuple(notes))


def _apply(config: DictConfig, choice: Choice, catalog: Catalog) -> Settings:
    """Set the typed values in a config and check the whole."""
    keys = {override.key_or_group for override in choice.values}
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if one in keys:
            config[other] = None
    for override in choice.values:
        set_value(config, override)
    for key in list(config):
        if str(key) not in Settings.__dataclass_fields__:
            raise _unknown_root(str(key), choice.values, config, catalog)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return settings.check({str(key): value for key, value in plain.items()})


def set_value(config: DictConfig, override: Override) -> None:
    """Set one typed `key=value` in a config, whether or not the key is there yet."""
    key, value = override.key_or_group, override.value()
    parents = key.split(".")[:-1]
    for depth in range(1, len(parents) + 1):
        parent = OmegaConf.select(config, ".".join(parents[:depth]), throw_on_missing=False)
        if parent is not None and not OmegaConf.is_config(parent):
            raise refusal(override.input_line or key, f"{'.'.join(parents[:depth])} is a value, not a section")
    with open_dict(config):
        OmegaConf.update(config, key, value, merge=True, force_add=True)


def _unknown_root(key: str, values: tuple[Override, ...], config: DictConfig, catalog: Catalog) -> UsageError:
    """Refuse a key that is none of ours, leading to a nested key of that name or to the nearest one."""
    typed = {override.key_or_group.split(".")[0]: str(override.input_line).lstrip("+") for override in values}
    what = typed.get(key, key)
    value = what.partition("=")[2]
    known = OTHER_KEYS.get(key.lower(), key.lower())
    nested = [leaf for leaf in _leaves(config) if leaf.count(".") == 1 and leaf.split(".")[1] == known]
    groups = [group for group in GROUPS if value in catalog.options(group)]
    allowed = sorted(Settings.__dataclass_fields__)
    near = known if "." in known else nested[0] if nested else nearest(known, groups) or nearest(known, allowed)
    return refusal(what, "no such setting", () if near else allowed, near and (f"{near}={value}" if value else near))


# What settings are called elsewhere.
OTHER_KEYS = {
    "learning_rate": "lr",
    "momentum": "optim.momentum",
    "wd": "optim.weight_decay",
    "weight_decay": "optim.weight_decay",
    "betas": "optim.betas",
    "max_steps": "steps",
    "num_steps": "steps",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "bs": "batch_size",
    "optimizer": "optim",
    "scheduler": "schedule",
    "dataset": "data",
    "criterion": "loss",
    "output_dir": "run_dir",
    "exp": "experiment",
    "grad_clip": "clip_norm",
    "early_stopping": "patience",
}


def _leaves(config: Any, prefix: str = "") -> Iterator[str]:
    for key in config:
        node = config._get_node(key)
        yield f"{prefix}{key}"
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from _leaves(node, f"{prefix}{key}.")


def _settle_swaps(config: DictConfig, choice: Choice, options: dict[str, str], catalog: Catalog) -> list[str]:
    """Drop what an experiment sets for an option that was swapped for one without such a setting; say so.

    What the new option has as well stays as the experiment sets it: the learning rate is remarked on.
    """
    if "experiment" not in options:
        return []
    notes = []
    typed = {override.key_or_group for override in choice.values}
    experiment = read(catalog.options("experiment")[options["experiment"]], "experiment")
    for word in choice.groups:
        group, _, option = word.partition("=")
        content = experiment.get(group)
        if group not in COMPONENTS or option == _chosen_by(experiment, group) or not isinstance(content, dict):
            continue
        for key, value in content.items():
            what = f"{group}.{key}={show(value)} is what experiment={options['experiment']} sets for its own {group}"
            if key not in read(catalog.options(group)[option], group):
                with open_dict(config):
                    config[group].pop(key)
                notes.append(f"{what}; {word} goes without")
            elif key == "lr" and f"{group}.lr" not in typed:
                notes.append(f"{what}; {group}.lr=... sets it for {word}")
    return notes


def files(words: Iterable[str], catalog: Catalog) -> dict[str, Path]:
    """Return the file of each group that words select, directly or by an experiment."""
    chosen = dict(word.split("=", 1) for word in words)
    found = {}
    if (experiment := catalog.options("experiment").get(chosen.get("experiment", ""))) is not None:
        found["experiment"] = experiment
        content = read(experiment, "experiment")
        chosen = {**{group: name for group in GROUPS if (name := _chosen_by(content, group))}, **chosen}
    for group, name in chosen.items():
        if (file := catalog.options(group).get(name)) is not None:
            found[group] = file
    return found


def read(file: Path, group: str) -> dict[str, Any]:
    """Read the file of an option.

    Raises:
        UsageError: It does not hold what an option of its group must; names the file.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise refusal(str(file), f"is not UTF-8: byte {error.start} is {error.object[error.start]:#x}") from error
    except yaml.YAMLError as error:
        raise UsageError(_explain_yaml(error)) from error
    except (OSError, OmegaConfBaseException) as error:
        raise refusal(str(file), " ".join(str(error).split())) from error
    if not isinstance(content, dict):
        raise refusal(str(file), f"holds a {type(content).__name__}", "KEY: VALUE lines")
    if group in COMPONENTS and not content.keys() & {"_target_", "defaults"}:
        raise refusal(str(file), "has no _target_, the class that it selects", "a line such as _target_: module.Class")
    lines = content.get("defaults") or []
    if not isinstance(lines, list):
        raise refusal(str(file), f"defaults={show(lines)} is no list", "lines such as - override /model: mlp")
    for line in lines if group == "experiment" else []:
        key = str(next(iter(line), "")) if isinstance(line, dict) else ""
        _, override, name = key.partition("override /")
        if key in GROUPS or (override and name not in GROUPS and not name.startswith("hydra/")):
            raise refusal(str(file), f"{show(line)} in its defaults", "lines such as - override /model: mlp")
    if group == "experiment" and not re.search(r"^#\s*@package\s+_global_\s*$", text, re.M):
        raise refusal(str(file), "an experiment needs the line # @package _global_ at its top")
    return {str(key): value for key, value in content.items()}


def with_source(error: UsageError, choices: Iterable[Choice], catalog: Catalog) -> UsageError:
    """Return a refusal with the user's own file that the blamed setting stands in, unless it was typed."""
    match = re.match(r"(?:job \d+ \(.*?\): )?([\w.]+)", str(error))
    blamed = match[1] if match else ""
    for choice in choices:
        if any(value.key_or_group == blamed for value in choice.values):
            break
        for group, file in files(choice.groups, catalog).items():
            key = blamed if group == "experiment" else blamed.removeprefix(f"{group}.")
            part = OmegaConf.select(OmegaConf.create(read(file, group)), key, throw_on_resolution_failure=False)
            if part is not None and str(file) not in str(error):
                return UsageError(f"{error} (in {near_path(file)})")
    return error


def _chosen_by(experiment: dict[str, Any], group: str) -> str | None:
    lines = [line for line in experiment.get("defaults") or [] if isinstance(line, dict)]
    return next((str(line[f"override /{group}"]) for line in lines if f"override /{group}" in line), None)


@contextmanager
def explained() -> Iterator[None]:
    """Turn whatever Hydra, OmegaConf or YAML raise in a block into one line that says what to do."""
    try:
        yield
    except yaml.YAMLError as error:
        raise UsageError(_explain_yaml(error)) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"a config file is not UTF-8: byte {error.start} is {error.object[error.start]:#x}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_explain(error)) from error
    except RecursionError as error:
        raise UsageError("an interpolation refers to itself; look for ${...} in what you changed") from error


def _explain_yaml(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{where}{problem.strip()}"


def _explain(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException | yaml.YAMLError) else error
    if isinstance(cause, yaml.YAMLError):
        return _explain_yaml(cause)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = lines[0] if lines else type(cause).__name__
    if text.endswith(":") and len(lines) > 1:
        text = f"{text} {lines[1]}"
    key = getattr(cause, "full_key", None)
    if match := re.search(r"Environment variable '([^']+)' not found", text):
        return f"{key or 'config'}: the environment variable {match[1]} is not set"
    if "Interpolation key" in text or "InterpolationKeyError" in type(cause).__name__:
        return f"{key or 'config'}: {text}"
    if missing := getattr(error, "missing_cfg_file", None):
        options = [str(option) for option in getattr(error, "options", None) or []]
        group, _, option = missing.rpartition("/")
        return str(unknown(f"{group}={option}", "no such option", option, options, f"{group}="))
    return f"{key}: {text}" if key and key not in text else text


def override(stored: Settings, choice: Choice, catalog: Catalog) -> Settings:
    """Return the settings of an existing run with the words of a resume applied.

    Raises:
        UsageError: A word is wrong; names the key, the value and what is allowed.
    """
    config = OmegaConf.create(stored.to_dict())
    with hydra_setup(catalog), explained():
        for word in choice.groups:
            group = word.partition("=")[0]
            if group == "experiment":
                raise refusal(word, "an experiment starts a run; it can't change one")
            if group in COMPONENTS:
                config[group] = compose("config", [word])[group]
            else:  # a section of our own: the option names some of its settings
                config[group].update(read(catalog.options(group)[word.partition("=")[2]], group))
        return _apply(config, choice, catalog)


def show_with_hydra(flags: dict[str, str], choice: Choice, catalog: Catalog) -> int:
    """Answer --cfg and --info, which Hydra prints itself."""
    import hydra

    words = [*choice.groups, *(f"++{str(value.input_line).lstrip('+')}" for value in choice.values)]
    asked = [part for flag, value in flags.items() for part in (f"--{flag}", value) if part]
    register(catalog)
    printed = io.StringIO()
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["trainer run", *asked, *words, "hydra.output_subdir=null", "hydra/job_logging=none"]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    try:
        with explained(), redirect_stdout(printed):
            hydra.main(version_base="1.3", config_path=str(shipped_configs()), config_name="config")(lambda _: None)()
    except SystemExit as end:
        return 2 if end.code else 0
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        GlobalHydra.instance().clear()
        sys.stdout.write(redact.hide_lines(printed.getvalue()))
    return 0
