"""Composes the configuration of each job with Hydra and returns it as checked Settings."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from trainer.config import hydra_private, option_files, secrets, settings, targets
from trainer.config.arguments import Choice
from trainer.config.catalog import GROUPS, LAUNCHERS, SEVERAL, Catalog, near_path, shipped_configs
from trainer.config.hydra_errors import explained
from trainer.config.settings import COMPONENTS, LOGGER, Settings
from trainer.errors import UsageError, nearest, refusal
from trainer.text import show

SCHEMA = "schema"  # the first entry of the defaults in config.yaml


@dataclass(frozen=True)
class JobConfig:
    """One composed job: its settings, the option of each group, and remarks for the user."""

    settings: Settings
    choices: dict[str, str]
    notes: tuple[str, ...] = ()


class UserConfigs(SearchPathPlugin):
    """Appends the user's config folders, so that a config.yaml there can't replace the shipped one."""

    folders: ClassVar[list[Path]] = []

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders after the shipped one."""
        for folder in self.folders:
            search_path.append("user", f"file://{folder}")


def register(catalog: Catalog) -> None:
    """Register the schema and the config folders with Hydra, every time: launchers may replace its registries."""
    here, path = {"", str(Path.cwd())}, sys.path[:]
    sys.path[:] = [folder for folder in path if folder not in here]  # loads no plugins from there
    Plugins.instance()
    sys.path[:] = path
    UserConfigs.folders = catalog.folders[1:]
    reserved = (SCHEMA, *(f"hydra/launcher/{name}" for name in LAUNCHERS))
    for file in (folder / f"{name}.yaml" for folder in UserConfigs.folders for name in reserved):
        if file.exists():  # Hydra would use it instead of ours
            raise refusal(near_path(file), "has the name of a file of trainer's", "another name")
    ConfigStore.instance().store(name=SCHEMA, node=settings.defaults(), provider="trainer")
    if UserConfigs not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(UserConfigs)


@contextmanager
def hydra_setup(catalog: Catalog) -> Iterator[None]:
    """Let Hydra find the shipped and the user's configs within a block."""
    register(catalog)
    with (
        hydra_private.outer_set_aside(),
        initialize_config_dir(str(shipped_configs()), job_name="trainer", version_base="1.3"),
    ):
        yield


def compose_jobs(choices: list[Choice], catalog: Catalog) -> list[JobConfig]:
    """Compose and check the configuration of every job.

    Raises:
        UsageError: A configuration is invalid; names the key, the value and what is allowed.
    """
    composed: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}
    jobs: list[JobConfig] = []
    with hydra_setup(catalog), explained():
        for choice in choices:
            if choice.groups not in composed:
                for group, file in option_files.selected(choice.groups, catalog).items():
                    option_files.read(file, group)
                composed[choice.groups] = _composed(choice.groups, catalog)
            config, options = composed[choice.groups]
            jobs.append(_job(config.copy(), dict(options), choice, catalog))
    if any(targets.own_targets(job.settings) for job in jobs):
        targets.search_working_directory()
    return jobs


def merged_files(groups: Iterable[str], catalog: Catalog) -> list[tuple[Path, str]]:
    """Return the config files that Hydra merges, in order of increasing precedence, each with the section it fills.

    Args:
        groups: The words that choose options.
        catalog: The options that can be selected.
    """
    with hydra_setup(catalog), explained():
        loader = GlobalHydra.instance().config_loader()
        merged = loader.compute_defaults_list("config", list(groups), RunMode.RUN).defaults
    found = []
    for one in merged:
        places = (folder / f"{one.config_path}.yaml" for folder in catalog.folders)
        file = None if one.config_path.startswith("hydra") else next(filter(Path.is_file, places), None)
        if file is not None:  # Hydra's configs and the schema have no file here
            found.append((file, one.package.removeprefix("_global_").removeprefix(".")))
    return found


def _composed(groups: tuple[str, ...], catalog: Catalog) -> tuple[DictConfig, dict[str, str]]:
    """Return the composed config without its `hydra` section, and the chosen option of each group."""
    config = compose("config", list(groups), return_hydra_config=True)
    chosen = config.hydra.runtime.choices
    options = {group: str(chosen[group]) for group in GROUPS if group not in SEVERAL and chosen.get(group) is not None}
    with open_dict(config):
        config.pop("hydra")
        if "_target_" in config[LOGGER]:
            _move_down(config[LOGGER], option_files.selected(groups, catalog))
    return config, options


def _move_down(section: DictConfig, files: dict[str, Path]) -> None:
    """Move the settings of a logger whose file has no @package line to a section under its name.

    Args:
        section: The logger section that Hydra has composed.
        files: The selected files by the sections that they fill.

    Raises:
        UsageError: Several files lack the line, so Hydra has merged them into one.
    """
    above = {}
    for key, file in [item for item in files.items() if item[0].startswith(f"{LOGGER}.")]:
        content = option_files.read(file, key)
        if "_target_" in content and f"@package {key}" not in file.read_text(encoding="utf-8"):
            above[key] = content
    for key in above if len(above) > 1 else ():
        raise refusal(near_path(files[key]), f"needs the line # @package {key} to be one of several loggers")
    for key, content in above.items():
        name = key.removeprefix(f"{LOGGER}.")
        own = {str(argument): section.pop(argument) for argument in content}
        section[name] = {**own, **section.get(name, {})}


def _job(config: DictConfig, options: dict[str, str], choice: Choice, catalog: Catalog) -> JobConfig:
    notes = _settle_swaps(config, choice, options, catalog)
    checked = _apply(config, choice, catalog)
    if checked.optim.get("lr") == 0:
        notes.append("optim.lr=0: the weights will not change")
    return JobConfig(checked, options, tuple(notes))


def _apply(config: DictConfig, choice: Choice, catalog: Catalog) -> Settings:
    """Set the typed values in a config and check the result."""
    keys = {override.key_or_group for override in choice.values}
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if one in keys:
            config[other] = None
    for group, section in choice.sections.items():
        # A section of the same class keeps the values that were set before.
        before = config[group] if config[group].get("_target_") == section.get("_target_") else {}
        config[group] = {**section, **before, **{key: value for key, value in section.items() if value is not None}}
    for override in choice.values:
        set_value(config, override)
    for key in list(config):
        if str(key) not in Settings.__dataclass_fields__:
            raise _unknown_root(str(key), choice.values, config, catalog)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return settings.check({str(key): value for key, value in plain.items()})


def set_value(config: DictConfig, override: Override) -> None:
    """Set one typed `key=value` in a config; the key need not exist."""
    key, value = override.key_or_group, override.value()
    parents = key.split(".")[:-1]
    for depth in range(1, len(parents) + 1):
        parent = OmegaConf.select(config, ".".join(parents[:depth]), throw_on_missing=False)
        if parent is not None and not OmegaConf.is_config(parent):
            raise refusal(override.input_line or key, f"{'.'.join(parents[:depth])} is a value, not a section")
    with open_dict(config):
        OmegaConf.update(config, key, value, merge=True, force_add=True)


def _unknown_root(key: str, values: tuple[Override, ...], config: DictConfig, catalog: Catalog) -> UsageError:
    """Return the error for an unknown setting in a config."""
    typed = {override.key_or_group.split(".")[0]: str(override.input_line).lstrip("+") for override in values}
    return no_such_setting(typed.get(key, key), _keys(OmegaConf.to_container(config)), catalog)


def no_such_setting(what: str, leaves: Iterable[str], catalog: Catalog) -> UsageError:
    """Return the error for an unknown setting; it suggests a nested setting of that name, or the nearest name.

    Args:
        what: The key, or the word as it was typed.
        leaves: The dotted keys that exist.
        catalog: The options that can be selected.
    """
    key, _, value = what.partition("=")
    root = key.partition(".")[0].lower()
    known = OTHER_KEYS.get(root, root)
    nested = [leaf for leaf in leaves if leaf.count(".") == 1 and leaf.split(".")[1] == known]
    groups = [group for group in GROUPS if value in catalog.options(group)]
    allowed = sorted(Settings.__dataclass_fields__)
    near = known if {*"./"} & {*known} else nested[0] if nested else nearest(known, groups) or nearest(known, allowed)
    near = near or (None if value else catalog.group_of(key))
    return refusal(what, "no such setting", () if near else allowed, near and (f"{near}={value}" if value else near))


# Names that other tools use for settings.
OTHER_KEYS = {
    "launcher": "hydra/launcher",
    "n_jobs": "hydra.launcher.n_jobs",
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


def _keys(tree: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested settings, including sections."""
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def _settle_swaps(config: DictConfig, choice: Choice, options: dict[str, str], catalog: Catalog) -> list[str]:
    """Drop the settings of an experiment that the options chosen in the command do not have; return remarks.

    Settings that a chosen option does have keep the experiment's value; there is a remark about the learning rate.
    """
    if "experiment" not in options:
        return []
    notes = []
    typed = {override.key_or_group for override in choice.values}
    experiment = option_files.read(catalog.options("experiment")[options["experiment"]], "experiment")
    for word in choice.groups:
        group, _, option = word.partition("=")
        content, its_own = experiment.get(group), option_files.chosen_by(experiment, group)
        if group not in COMPONENTS or option == its_own or not isinstance(content, dict):
            continue
        for key, value in content.items():
            what = f"{group}.{key}={show(value)} is set by experiment={options['experiment']} for its own {group}"
            if key not in option_files.read(catalog.options(group)[option], group):
                with open_dict(config):
                    config[group].pop(key)
                notes.append(f"{what}; {word} has no such setting")
            elif key == "lr" and f"{group}.lr" not in typed:
                notes.append(f"{what}; {group}.lr=... changes it for {word}")
    sections = {str(name): section for name, section in config[LOGGER].items() if OmegaConf.is_dict(section)}
    for name in [name for name, section in sections.items() if "_target_" not in section]:
        with open_dict(config):
            config[LOGGER].pop(name)
        notes.append(f"{LOGGER}.{name} is set by experiment={options['experiment']}, but this logger was not chosen")
    return notes


def override(stored: Settings, choice: Choice, catalog: Catalog) -> Settings:
    """Return the settings of an existing run with the words of a command applied.

    Raises:
        UsageError: A word is invalid; names the key, the value and what is allowed.
    """
    config = OmegaConf.create(stored.to_dict())
    with hydra_setup(catalog), explained():
        for word in choice.groups:
            group = word.partition("=")[0]
            if group == "experiment":
                raise refusal(word, "an experiment can start a run but not change one")
            if group in COMPONENTS:
                config[group] = compose("config", [word])[group]
            elif group in SEVERAL:
                config[group] = _composed((word,), catalog)[0][group]
            else:  # the device: an option sets only some of its settings
                config[group].update(option_files.read(catalog.options(group)[word.partition("=")[2]], group))
        changed = _apply(config, choice, catalog)
    if targets.own_targets(changed) - targets.own_targets(stored):
        targets.search_working_directory()  # the user has typed these classes: they may be there
    return changed


def show_with_hydra(flags: dict[str, str], choice: Choice, catalog: Catalog) -> int:
    """Let Hydra print the output of --cfg and --info."""
    import hydra

    words = [*choice.groups, *(f"++{str(value.input_line).lstrip('+')}" for value in choice.values)]
    asked = [part for flag, value in flags.items() for part in (f"--{flag}", value) if part]
    register(catalog)
    printed = io.StringIO()
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["trainer run", *asked, *words, "hydra.output_subdir=null", "hydra/job_logging=none"]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise instead of printing and exiting
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
        sys.stdout.write(secrets.hide_lines(printed.getvalue()))
    return 0
