"""Imports go one way: read from the sources, so that `fit` works in a notebook and listing needs no torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "trainer"
FILES = {
    ".".join(p.relative_to(SOURCE).with_suffix("").parts): p
    for p in sorted(SOURCE.rglob("*.py"))
    if "examples" not in p.parts and p.read_text()
}
# These talk to Hydra; whatever a run is made of does not.
WITH_HYDRA = {
    "launch.hydra_launchers",
    "launch.sweep_task",
    "config.compose",
    "config.hydra_errors",
    "config.option_files",
    "config.arguments",
    "launch.sweep",
    "launch.launchers",
}


def imports(name: str, everywhere: bool) -> set[str]:
    """The modules that a module of ours imports, at its top or everywhere in it; type-checking blocks do not count."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(FILES[name].read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            nodes += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        if everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)
    return found


def ours(name: str, everywhere: bool = True) -> set[str]:
    """The modules of ours that a module imports, without the leading `trainer.`."""
    found = {module.removeprefix("trainer.") for module in imports(name, everywhere) if module.startswith("trainer.")}
    known = {module for module in found if module in FILES}
    return known | {f"{module}.__init__" for module in found if f"{module}.__init__" in FILES}


def others(name: str, everywhere: bool = True) -> set[str]:
    """The packages that a module imports."""
    return {module.partition(".")[0] for module in imports(name, everywhere)}


def at_start(name: str) -> set[str]:
    """The packages that importing a module imports, through modules of ours as well."""
    seen, todo = set(), [name]
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += ours(module, everywhere=False)
    return {package for module in seen for package in others(module, everywhere=False)}


@pytest.mark.parametrize("name", sorted(set(FILES) - WITH_HYDRA))
def test_only_the_front_talks_to_hydra(name):
    assert not others(name) & {"hydra", "omegaconf"}


@pytest.mark.parametrize(
    "name",
    [
        "training.build",
        "training.instantiate",
        "training.loop",
        "session.train",
        "session.saver",
        "checkpoints.store",
        "data.__init__",
        "losses",
    ],
)
def test_a_run_can_be_built_without_the_front(name):
    assert not at_start(name) & {"hydra", "omegaconf"}


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("models.") and n != "models.__init__"])
def test_models_import_only_what_they_are_made_of(name):
    assert ours(name) <= {"models.handwritten", "models.init"}


def test_data_and_losses_import_nothing_above_them():
    for name in FILES:
        if name.startswith("data."):
            below = {"files.data_file", "errors", "randomness", "files.safe_start", "files.plain_json"}
            assert {m for m in ours(name) if not m.startswith("data.")} <= below
    assert not ours("losses")


def test_the_loop_imports_neither_commands_nor_files():
    assert ours("training.loop") <= {
        "data.__init__",
        "errors",
        "training.fused",
        "randomness",
        "schedules",
        "training.state",
    }


def test_the_command_line_imports_nothing_heavy():
    assert not at_start("cli") & {"torch", "hydra", "omegaconf", "numpy", "rich", "yaml"}
    assert ours("cli", everywhere=False) <= {
        "version",
        "terminal.address_space",
        "errors",
        "config.secrets",
        "terminal.streams",
        "__init__",
    }


@pytest.mark.parametrize(
    "name",
    [
        *(
            "runs.find",
            "commands.runs",
            "commands.show",
            "commands.compare",
            "commands.verify",
            "runs.sweep_file",
            "config.catalog",
            "commands.list",
            "config.settings",
        ),
        *(
            "terminal.screen",
            "terminal.progress",
            "terminal.advice",
            "terminal.help",
            "commands.info",
            "files.fingerprint",
            "commands.eval",
            "commands.predict",
            "commands.export",
        ),
        *(
            "commands.plot",
            "charts.from_runs",
            "runs.curves",
            "charts.text_chart",
            "charts.image_file",
            "charts.spreadsheet",
            "commands.reproduce",
            "runs.history",
            "commands.init",
            "commands.explain",
            "config.docstrings",
        ),
    ],
)
def test_what_only_reads_needs_no_torch(name):
    assert not at_start(name) & {"torch", "numpy", "hydra", "omegaconf", "safetensors", "matplotlib"}


def test_the_loop_fits_a_screen_and_names_no_model_loss_or_optimizer():
    tree = ast.parse(FILES["training.loop"].read_text())
    fit = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "fit")
    assert fit.end_lineno - fit.lineno + 1 <= 60
    words = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    words |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    words |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) for alias in n.names}
    concrete = {
        node.name
        for name in FILES
        if name.startswith("models.") or name in ("losses", "optimizers")
        for node in ast.parse(FILES[name].read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    concrete |= {"SGD", "Adam", "AdamW", "LBFGS", "MSELoss", "CrossEntropyLoss", "Linear"}
    assert len(concrete) > 15
    assert not words & concrete
