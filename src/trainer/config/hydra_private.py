"""The internals of Hydra that trainer uses, all in this module, each with a public fall-back.

No other module uses a private name of Hydra or OmegaConf.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig

TRIED = ("1.3",)  # versions of Hydra in which the internals are present and work
_IS_PLUGIN = getattr(Plugins, "is_in_toplevel_plugins_module", None)


@contextmanager
def outer_set_aside() -> Iterator[None]:
    """Clear Hydra's global state within a block: trainer may be called from a Hydra application.

    The fall-back leaves the state cleared.
    """
    outer = getattr(GlobalHydra.instance(), "hydra", None)
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().clear()  # a new instance by now
        if outer is not None:
            GlobalHydra.instance().hydra = outer


def accept_launchers(module: str) -> None:
    """Let Hydra instantiate launchers of a module outside the package hydra_plugins.

    Without it, applications of Hydra can't select these launchers, but `launcher` still builds them.
    """
    if _IS_PLUGIN is not None:
        is_plugin = _IS_PLUGIN
        Plugins.is_in_toplevel_plugins_module = staticmethod(  # type: ignore[method-assign, assignment]
            lambda name: name.startswith(f"{module}.") or is_plugin(name)
        )


def launcher(config: DictConfig, context: HydraContext, task: TaskFunction, ours: str) -> Launcher:
    """Build and set up the launcher that a config selects.

    Args:
        config: A composed config with its `hydra` section.
        context: The context of the jobs.
        task: The function that runs a job.
        ours: The module of trainer's launchers, which the fall-back instantiates like any other object.
    """
    node = config.hydra.launcher
    if _IS_PLUGIN is not None or not str(node._target_).startswith(f"{ours}."):
        return Plugins.instance().instantiate_launcher(context, task, config)
    found: Launcher = instantiate(node)
    found.setup(hydra_context=context, task_function=task, config=config)
    return found
