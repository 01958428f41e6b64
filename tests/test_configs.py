"""The shipped config files keep to their form, so that lists and help can be made from them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").glob("*/*.yaml"))
OPTIONS = [f for f in FILES if f.parent.name != "experiment"]


def name(file: Path) -> str:
    return f"{file.parent.name}={file.stem}"


@pytest.mark.parametrize("file", OPTIONS, ids=name)
def test_an_option_says_what_it_is_and_names_a_public_class(file):
    lines = file.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert len(lines) <= 18
    content = yaml.safe_load(file.read_text())
    if file.parent.name == "device" or name(file) == "logger=none":
        return
    module, _, cls = content["_target_"].rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), cls), type)
    assert not any(part.startswith("_") for part in content["_target_"].split("."))


@pytest.mark.parametrize("file", [f for f in FILES if f.parent.name == "experiment"], ids=name)
def test_an_experiment_opens_with_its_command(file):
    text = file.read_text()
    assert text.startswith("# @package _global_\n# ")
    assert f"trainer run experiment={file.stem}" in text


def test_only_experiments_the_pairing_of_product_and_no_logger_have_defaults_lists():
    with_defaults = {name(f) for f in OPTIONS if "defaults" in yaml.safe_load(f.read_text())}
    assert with_defaults == {"model=product", "logger=none"}
