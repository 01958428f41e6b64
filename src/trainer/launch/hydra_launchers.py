"""Registers the launchers with Hydra, and builds the one that a command or a sweep selects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher as HydraLauncher
from hydra.types import HydraContext
from omegaconf import DictConfig

from trainer.config import hydra_private
from trainer.config.arguments import CommandLine
from trainer.config.catalog import LAUNCHERS, Catalog
from trainer.config.compose import hydra_setup
from trainer.config.hydra_errors import explained
from trainer.errors import refusal, unknown
from trainer.launch.launcher_words import is_harmless, launcher_name, launcher_words, words_of
from trainer.launch.launchers import EachLauncher, Local, Processes, Vectorized
from trainer.runs.sweep_file import Sweep

IN_PROCESS = ("basic", "local", "vectorized")  # launchers that run one job at a time in this process


@contextmanager
def launching(sweep: Sweep) -> Iterator[None]:
    """Let Hydra find the configuration of a sweep's launcher for the duration of a block."""
    with hydra_setup(_launcher_catalog(words_of(sweep), sweep["launcher"]["config_dirs"])), explained():
        yield


def _launcher_catalog(words: Sequence[str], config_dirs: Sequence[str]) -> Catalog:
    """Return the catalog for a launcher; a harmless launcher uses shipped files only."""
    harmless = all(map(is_harmless, words))
    return Catalog(shipped_only=True) if harmless else Catalog(tuple(map(Path, config_dirs)))


def require_no_secrets_in_files(launcher: str, secrets: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a launcher that writes jobs to files if their settings hold a secret.

    Raises:
        UsageError: They do; names the key.
    """
    key = next((key for values in secrets for key in values), None)
    if key is not None and launcher not in LAUNCHERS:
        what = f"hydra/launcher={launcher}"
        raise refusal(what, f"writes its jobs to files, but {key} is a secret", " or ".join(LAUNCHERS))


def asked_launcher(words: CommandLine, path: Path) -> HydraLauncher:
    """Build the launcher that a command selects.

    Args:
        words: The words of the command.
        path: The sweep's directory.

    Raises:
        UsageError: There is no such launcher, or it has no such setting.
    """
    typed = launcher_words(words.launcher)
    with hydra_setup(_launcher_catalog(typed, words.config_dirs)), explained():
        if words.launcher:
            register()
            choice = f"hydra/launcher={launcher_name(typed)}"
            of_it = compose("config", [choice], return_hydra_config=True).hydra.launcher
            known = [f"hydra.launcher.{name}" for name in of_it if not name.startswith("_")]
            for word in typed:
                key = word.partition("=")[0]
                if word != choice and ".".join(key.split(".")[:3]) not in known:
                    raise unknown(word, f"{choice} has no such setting", key, known)
        return make_launcher(typed, path)


def make_launcher(
    words: Sequence[str], path: Path, task: Callable[[DictConfig], None] = lambda config: None
) -> HydraLauncher:
    """Build a launcher for a sweep's directory; it writes none of Hydra's usual files."""
    register()
    folder = str(path.absolute()).replace("\\", "\\\\").replace("'", "\\'")
    fixed = [
        f"hydra.sweep.dir='{folder}'",
        "hydra.sweep.subdir=${run_dir}",
        "hydra.output_subdir=null",
        "hydra.mode=MULTIRUN",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    config = compose("config", [*words, *fixed], return_hydra_config=True)
    callbacks: Any = Callback()  # has the methods of Hydra's private Callbacks, which do nothing without a config
    context = HydraContext(GlobalHydra.instance().config_loader(), callbacks)
    return hydra_private.launcher(config, context, task, ours=EachLauncher.__module__)


@dataclass
class LocalConfig:
    """hydra/launcher=local."""

    _target_: str = "trainer.launch.launchers.Local"


@dataclass
class ProcessesConfig:
    """hydra/launcher=processes."""

    _target_: str = "trainer.launch.launchers.Processes"
    n_jobs: int | None = None


@dataclass
class VectorizedConfig:
    """hydra/launcher=vectorized."""

    _target_: str = "trainer.launch.launchers.Vectorized"


def register() -> None:
    """Register the launchers with Hydra, every time: its registries may have been replaced."""
    hydra_private.accept_launchers(EachLauncher.__module__)
    for name, launcher, node in (
        ("local", Local, LocalConfig),
        ("processes", Processes, ProcessesConfig),
        ("vectorized", Vectorized, VectorizedConfig),
    ):
        Plugins.instance().register(launcher)
        ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="trainer")
