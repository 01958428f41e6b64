"""README.md and docs/ are true: their commands print the output shown, their tables and pictures match the code."""

from __future__ import annotations

import html
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.cli import COMMANDS
from trainer.terminal import help

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()

COLUMNS = ("trainer", "plain script", "Lightning", "HF Trainer", "Ludwig", "Ultralytics")


def script(name):
    """Import a file of scripts/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pictures = script("pictures")
readme = script("readme")
PAGES = {page.name: page.read_text() for page in readme.PAGES}


def shape(line: str) -> str:
    """Return a line without the parts that differ between runs and machines: ids, numbers, curves, widths."""
    line = re.sub(r"(?<=[│┤]).*", "CHART", line)
    line = re.sub(r"\d{8}-\d{6}-[a-z]{4}", "ID", line)
    line = re.sub(r"\b[b-df-hj-np-tv-xz]{4}\b(?=/\d{3}| |$)", "RUN", line)
    line = re.sub(r"[-+]?\d[\d,.:]*(e[-+]?\d+)?", "0", line)
    line = re.sub(r"[▁▂▃▄▅▆▇█]+", "CURVE", line)
    line = re.sub(r"graph\.(svg|gv)$", "GRAPH", line)  # what can be drawn here
    line = re.sub(r"[─┬]{2,}", "AXIS", line)
    line = re.sub(r"^  (versions|machine) .*", r"\1", line)
    return " ".join(line.replace("threads", "thread").split())


def first_word(line: str) -> str:
    """Return the name in a line about the machine."""
    return line.split()[0]


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
            same = first_word if command == "trainer info" else shape
            printed = {same(line) for line in (result.err + result.out).splitlines()}
            for line in filter(None, shown.splitlines()):
                assert same(line) in printed, f"{command}: {line}"


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_made_from_the_code(page):
    assert readme.tables(PAGES[page]) == PAGES[page]


def test_the_readme_fits_on_a_few_screens_and_names_both_scripts():
    assert len(TEXT.splitlines()) <= 180
    for script in ("./scripts/trainer run model=dynamic optim=sgd_momentum", "./scripts/test"):
        assert f"    {script}\n" in TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_row_and_a_section_with_an_example(command):
    page = PAGES["commands.md"]
    assert f"| [`trainer {command}`](#{command}) | " in page
    section = re.search(rf"^## {command}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)[1]
    examples = [line for block in readme.BLOCK.findall(section) for line in readme.commands(block)]
    assert any(shlex.split(line)[1] == command for line in examples)


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_flags_in_the_text_exist(page):
    text = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for command, words in re.findall(r"`trainer ([a-z]+)([^`]*)`", text):
        assert command in COMMANDS
        assert set(re.findall(r"--[a-z-]+", words)) <= set(re.findall(r"--[a-z-]+", help.text(command)))


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_code_blocks_are_run(page):
    """A block with output is a console block, whose commands a test runs."""
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL):
        assert kind == "console" or not re.search(r"^(\$ )?trainer ", block, re.MULTILINE)


def test_every_cell_of_the_comparison_has_its_source():
    heads, _, *rows = [re.findall(r"(?<=\|) (.*?) ?(?=\|)", line) for line in TEXT.splitlines() if line[:1] == "|"]
    assert tuple(heads[1:]) == COLUMNS
    page = PAGES["comparison.md"]
    assert re.search(r"was read on \d{4}-\d\d-\d\d", page)
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == [row[0] for row in rows]
    for row in rows:
        section = page.partition(f"## {row[0]}\n")[2].partition("\n## ")[0]
        sources = dict(re.findall(r"^\| (.*?) \| .* \| (.*) \|$", section, re.MULTILINE))
        for column in COLUMNS:
            assert re.search(r"\]\(https://|\]\([a-z]+\.md", sources[column]), (row[0], column)


def test_the_pictures_show_the_screen_of_today(tmp_path):
    def lines(svg):
        found = re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>([^<]*)</text>', svg.partition('-matrix">')[2])
        joined = {}
        for y, part in found:
            joined[y] = joined.get(y, "") + html.unescape(part).replace("\xa0", " ")
        return [line.rstrip() for line in joined.values() if line.strip()]

    recorded = lines(pictures.svg(pictures.recorded(str(tmp_path)), pictures.LIGHT))
    for name in pictures.THEMES:
        svg = (pictures.IMAGES / f"run-{name}.svg").read_text()
        assert not re.search(r"url\(.?http|<image|<script", svg)
        shown = lines(svg)
        assert len(shown) == len(recorded)
        live = next(number for number, line in enumerate(shown) if shape(line).startswith("step 0/0"))
        assert [shape(line) for line in shown[:live]] == [shape(line) for line in recorded[:live]]
        words = re.findall(r"[a-z]+", " ".join(shown[live:]))
        assert words == re.findall(r"[a-z]+", " ".join(recorded[live:]))


def test_the_site_has_every_page_and_no_broken_link(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (ROOT / "docs").glob("*.md"):
        built = (tmp_path / "site" / f"{page.stem}.html").read_text()
        assert not re.findall(r'(?:src|<link[^>]* href)="(?:https?:)?//[^"]*"', built)  # nothing from other sites


@pytest.mark.parametrize(
    ("page", "link"),
    [
        (page, link)
        for page in [*readme.PAGES, ROOT / "CONTRIBUTING.md"]
        for link in re.findall(r"""\]\(((?!http)[^)]+)\)|(?:src|srcset)="([^"]+)\"""", page.read_text())
    ],
)
def test_links_lead_somewhere(page, link):
    name, _, heading = "".join(link).partition("#")
    there = page.parent / name if name else page
    assert there.exists()
    if heading:
        headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
        assert heading in [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings]


@pytest.mark.parametrize("script", ["trainer", "test", "test-torch", "check", "setup", "docs"])
def test_scripts_are_valid_shell(script):
    path = ROOT / "scripts" / script
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", path], check=True)
