"""README.md and docs/ are true: their commands run and print what stands there, their tables are those of the code."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()

_spec = importlib.util.spec_from_file_location("readme", ROOT / "scripts" / "readme.py")
readme = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(readme)
PAGES = {page.name: page.read_text() for page in readme.PAGES}


def shape(line: str) -> str:
    """A line without what differs from run to run and machine to machine: ids, numbers, curves, widths, the machine."""
    line = re.sub(r"(?<=[│┤]).*", "CHART", line)
    line = re.sub(r"\d{8}-\d{6}-[a-z]{4}", "ID", line)
    line = re.sub(r"\b[b-df-hj-np-tv-xz]{4}\b(?=/\d{3}| |$)", "RUN", line)
    line = re.sub(r"[-+]?\d[\d,.:]*(e[-+]?\d+)?", "0", line)
    line = re.sub(r"[▁▂▃▄▅▆▇█]+", "CURVE", line)
    line = re.sub(r"graph\.(svg|gv)$", "GRAPH", line)  # what can be drawn here
    line = re.sub(r"[─┬]{2,}", "AXIS", line)
    line = re.sub(r"^  (versions|machine) .*", r"\1", line)
    return " ".join(line.replace("threads", "thread").split())


def progress(line: str) -> bool:
    """Whether a line is one of those that are printed now and then."""
    return bool(re.match(r"\s*step 0", shape(line)))


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if readme.BLOCK.search(text)])
def test_the_commands_print_what_the_page_shows(cli, workdir, monkeypatch, page):
    monkeypatch.setenv("COLUMNS", readme.WIDTH)
    text = PAGES[page]
    for block in readme.BLOCK.finditer(text):
        readme.write_files(text[: block.start()], workdir)
        for part in re.split(r"^\$ ", block[1], flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            result = cli(*shlex.split(command)[1:])
            assert (result.code in (1, 2)) == ("error: " in shown), command
            printed = {shape(line) for line in (result.err + result.out).splitlines()}
            for line in filter(None, shown.splitlines()):
                assert progress(line) or shape(line) in printed, f"{command}: {line}"


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_made_from_the_code(page):
    assert readme.tables(PAGES[page]) == PAGES[page]


def test_every_command_and_script_is_in_the_readme():
    from trainer.cli import COMMANDS

    for command in COMMANDS:
        assert f"`trainer {command}" in TEXT
    for script in ("./scripts/trainer run model=dynamic optim=sgd_momentum", "./scripts/test"):
        assert f"    {script}\n" in TEXT


@pytest.mark.parametrize(
    ("page", "link"),
    [(page, link) for page in readme.PAGES for link in re.findall(r"\]\(((?!http)[^)]+)\)", page.read_text())],
)
def test_links_lead_somewhere(page, link):
    name, _, heading = link.partition("#")
    there = page.parent / name if name else page
    assert there.exists()
    if heading:
        headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
        assert heading in [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings]


@pytest.mark.parametrize("script", ["trainer", "test", "test-torch", "check", "setup"])
def test_scripts_are_valid_shell(script):
    path = ROOT / "scripts" / script
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", path], check=True)
