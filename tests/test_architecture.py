"""docs/architecture.md is true: its picture is that of the layers, and what it names is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from layers import LAYERS, SOURCE, files, wing

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
TREE = PAGE.partition("```\n")[2].partition("```")[0]


def test_the_picture_is_that_of_the_layers():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "architecture.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_tree_has_a_line_for_every_wing_and_no_other():
    named = set(re.findall(r"^  (\w+)/ ", TREE, re.MULTILINE))
    assert named == {wing(name) for name in files() if "." in name} | {"examples"}
    assert set(re.findall(r"^  (\w+)\.py ", TREE, re.MULTILINE)) == {
        name for name in files() if "." not in name and not name.startswith("__")
    }
    assert named - {"examples"} <= set().union(*LAYERS)


def definitions(path: Path) -> set[str]:
    """What a module defines, methods as Class.method."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("link", sorted(set(re.findall(r"`([\w/]+\.py)(?::([\w.]+))?`", PAGE))))
def test_files_and_functions_that_it_names_are_there(link):
    file, name = link
    path = next(folder / file for folder in (SOURCE, ROOT) if (folder / file).is_file())
    assert not name or name in definitions(path)


def test_it_names_many():
    assert len(re.findall(r"`[\w/]+\.py:[\w.]+`", PAGE)) > 30
