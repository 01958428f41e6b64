"""Imports go one way, as the table of layers says; those inside functions and those for types count as well."""

from __future__ import annotations

import ast
from collections import Counter

import pytest
from layers import FLOOR, LAYERS, at_start, circles, files, imports, others, ours, violations, wing

MOST_LINES, MOST_MODULES = 400, 18
DATA_FILES = {"files.data_file", "files.safe_start"}  # what data come from is opened there, and by workers
WITHOUT_TORCH = ("runs", "charts", "config", "files", "terminal")


def test_every_module_has_a_layer():
    assert {wing(name) for name in files()} - {"__init__", "__main__"} <= set(FLOOR)
    assert sum(map(len, LAYERS)) == len(FLOOR)


def test_imports_go_to_lower_layers_or_stay_in_their_wing():
    assert violations() == []


def test_no_modules_import_each_other_in_a_circle():
    assert circles() == []


def test_nothing_reaches_a_command():
    """Only cli does, by its name: what two commands need is below them."""
    reaching = {name: found for name in files() if (found := {o for o in ours(name) if wing(o) == "commands"})}
    assert reaching == {}


def test_training_knows_no_run_directory():
    for name in files():
        if wing(name) == "training":
            assert not {wing(other) for other in ours(name)} & {"runs", "checkpoints", "session"}, name


def test_no_module_is_long_and_no_folder_holds_many():
    long = {name: lines for name, path in files().items() if (lines := len(path.read_text().splitlines())) > MOST_LINES}
    assert long == {}
    folders = Counter(path.parent.name for path in files().values() if path.name != "__init__.py")
    assert {name: many for name, many in folders.items() if many > MOST_MODULES and name != "commands"} == {}


def test_wings_import_nothing_on_their_own():
    """But for models and data, which hold names of users' configs: one module of a wing must not load the others."""
    full = {path.parent.name for path in files().values() if path.name == "__init__.py" and path.read_text().strip()}
    assert full == {"trainer", "models", "data"}


@pytest.mark.parametrize("name", sorted(name for name in files() if wing(name) not in ("config", "launch")))
def test_only_config_and_launch_talk_to_hydra(name):
    assert not others(name) & {"hydra", "omegaconf"}


@pytest.mark.parametrize(
    "name",
    [*sorted(name for name in files() if wing(name) in WITHOUT_TORCH), "checkpoints.manifest"],
)
def test_what_only_reads_and_shows_imports_no_torch(name):
    assert "torch" not in others(name)
    assert not at_start(name) & {"torch", "matplotlib", "safetensors"}


@pytest.mark.parametrize(
    "name",
    [
        *("training.build", "training.instantiate", "training.loop", "session.prepare", "session.train"),
        *("session.saver", "session.run_state", "checkpoints.store", "data.__init__", "losses"),
    ],
)
def test_a_run_can_be_built_without_the_front(name):
    assert not at_start(name) & {"hydra", "omegaconf"}


@pytest.mark.parametrize("name", sorted(n for n in files() if n.startswith("models.") and n != "models.__init__"))
def test_models_import_only_what_they_are_made_of(name):
    assert ours(name) <= {"models.handwritten", "models.init"}


def test_data_and_losses_import_nothing_above_them():
    for name in files():
        if wing(name) == "data":
            above = {other for other in ours(name) if wing(other) != "data"}
            assert above <= {"errors", "quoting", "randomness", "text", "files.plain_json", *DATA_FILES}, name
    assert not ours("losses")


def test_the_loop_imports_neither_commands_nor_files():
    assert ours("training.loop") <= {
        *("data.__init__", "errors", "randomness", "schedules", "training.fused", "training.state"),
        "training.torch_private",
    }


def test_the_command_line_imports_nothing_heavy():
    assert not at_start("cli") & {"torch", "hydra", "omegaconf", "numpy", "rich", "yaml"}
    above_ground = {other for other in ours("cli", functions=False) if FLOOR.get(wing(other), 0) > 0}
    assert above_ground <= {"terminal.help", "terminal.streams"}


def test_a_press_of_tab_imports_nothing():
    assert imports("terminal.completion", functions=True, types=False) <= {
        *("__future__", "__future__.annotations", "itertools", "os", "sys"),
        *(one for one in imports("terminal.completion") if one.startswith("trainer.terminal.completion_paths")),
    }
    assert imports("terminal.completion_paths", types=False) <= {"__future__", "__future__.annotations", "os"}


@pytest.mark.parametrize(
    "name",
    [
        *(f"commands.{name}" for name in ("runs", "show", "compare", "verify", "list", "info", "eval", "predict")),
        *(f"commands.{name}" for name in ("export", "plot", "reproduce", "init", "explain", "run", "resume")),
        *("charts.from_runs", "charts.plan", "charts.text_chart", "charts.image_file", "charts.spreadsheet"),
        *("config.catalog", "config.settings", "config.docstrings", "files.fingerprint"),
        *("runs.find", "runs.sweep_file", "runs.curves", "runs.history", "runs.entries", "runs.ranking"),
        *("terminal.screen", "terminal.run_screen", "terminal.progress", "terminal.advice", "terminal.help"),
    ],
)
def test_what_only_reads_needs_no_torch(name):
    assert not at_start(name) & {"torch", "numpy", "hydra", "omegaconf", "safetensors", "matplotlib"}


def test_the_loop_fits_a_screen_and_names_no_model_loss_or_optimizer():
    tree = ast.parse(files()["training.loop"].read_text())
    fit = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "fit")
    assert fit.end_lineno - fit.lineno + 1 <= 60
    words = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    words |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    words |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) for alias in n.names}
    concrete = {
        node.name
        for name in files()
        if name.startswith("models.") or name in ("losses", "optimizers")
        for node in ast.parse(files()[name].read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    concrete |= {"SGD", "Adam", "AdamW", "LBFGS", "MSELoss", "CrossEntropyLoss", "Linear"}
    assert len(concrete) > 15
    assert not words & concrete
