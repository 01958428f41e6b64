"""Internals of Hydra: they stand in one module, work in the versions tried, and have a public fall-back."""

from __future__ import annotations

import ast
from pathlib import Path

import hydra
import pytest
from conftest import Run
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from layers import files, wing

from trainer.config import hydra_private
from trainer.config.catalog import Catalog
from trainer.config.compose import hydra_setup
from trainer.launch.launchers import Local

SMALL = ("data.inputs=20", "model.hidden=5", "steps=3")
_OWN = ("self", "cls", "os")  # os._exit is public


def private_names(tree: ast.Module) -> set[str]:
    """Return the private attributes and modules that a module uses, its own excepted."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and "._" in str(node.module):
            found.add(str(node.module))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            is_super = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super"
            if owner not in _OWN and not is_super:
                found.add(node.attr)
    return found


@pytest.mark.parametrize("name", sorted(name for name in files() if wing(name) in ("config", "launch")))
def test_no_other_module_uses_a_private_name(name):
    allowed = {"_target_"} if name == "config.hydra_private" else set()
    assert private_names(ast.parse(files()[name].read_text())) <= allowed


def test_the_internals_are_there_in_the_versions_tried():
    if not hydra.__version__.startswith(hydra_private.TRIED):
        pytest.skip(f"Hydra {hydra.__version__} has not been tried, only {', '.join(hydra_private.TRIED)}")
    assert Plugins.is_in_toplevel_plugins_module("hydra_plugins.x.Y")
    assert hasattr(GlobalHydra.instance(), "hydra")


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("launcher", ["local", "processes", "vectorized", "basic"])
def test_launchers_are_built_with_and_without_the_internals(cli, monkeypatch, internal, launcher):
    if not internal:
        monkeypatch.setattr(hydra_private, "_IS_PLUGIN", None)
        # As in a version in which the method has another name: Hydra refuses launchers outside of hydra_plugins.
        monkeypatch.setattr(Plugins, "is_in_toplevel_plugins_module", staticmethod(lambda name: "trainer" not in name))
    assert cli("run", "-m", "run_dir=sweep", "seed=0,1", f"hydra/launcher={launcher}", *SMALL).code == 0
    assert [Run(Path(f"sweep/00{job}")).status["state"] for job in (0, 1)] == ["done", "done"]


def test_hydra_refuses_our_launchers_unless_they_are_accepted(monkeypatch):
    monkeypatch.setattr(Plugins, "is_in_toplevel_plugins_module", staticmethod(hydra_private._IS_PLUGIN))
    name = f"{Local.__module__}.Local"
    assert not Plugins.is_in_toplevel_plugins_module(name)
    hydra_private.accept_launchers(Local.__module__)
    assert Plugins.is_in_toplevel_plugins_module(name)
    assert not Plugins.is_in_toplevel_plugins_module("trainer.models.MLP")


def test_the_state_of_an_application_of_hydra_is_kept(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        outer = GlobalHydra.instance().hydra
        with hydra_setup(Catalog()):
            assert hydra.compose("config").seed == 0
        assert GlobalHydra.instance().hydra is outer
        assert hydra.compose("config").a == 1


def test_without_the_internals_the_state_ends_up_cleared(monkeypatch):
    class State:
        def clear(self) -> None:
            self.cleared = True

    state = State()
    monkeypatch.setattr(GlobalHydra, "instance", staticmethod(lambda: state))
    with hydra_private.outer_set_aside():
        pass
    assert state.cleared
