"""What an error suggests can be typed as it stands, and gets further."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_errors import WRONG

from trainer import quoting

TABLE = ["experiment=table", "data.path=t.csv", "batch_size=4", "steps=2"]


def suggested(line: str, words: list[str]) -> list[str] | None:
    """Return the words of a command with the suggestion of its error in place of the wrong word."""
    found = re.search(r"did you mean `?(?:trainer )?(.*?)`?\?$", line.strip())
    if found is None:
        return None
    new = shlex.split(found[1])
    if words[0] != "run":
        return new if new[0] in ("run", "list", "show", "explain") else None
    key, said = new[0].partition("=")[0], line.split(": ")[1].partition("=")[0]
    wrong = [word for word in words[1:] if said.lstrip("-+~") == word.lstrip("-+~").partition("=")[0]]
    kept = [word for word in words[1:] if word not in wrong and word.partition("=")[0] != key]
    return ["run", *kept, *new]


CORRECTED = [
    command
    for command, parts in WRONG.items()
    if any("did you mean" in part for part in parts) and command.startswith("run ")
]


@pytest.mark.parametrize("command", CORRECTED)
def test_every_suggestion_gets_further(cli, command):
    words = shlex.split(command)
    before = cli(*words).err
    again = suggested(before, words)
    if again is None or "=" not in again[-1] or {"VALUE", "COLUMN"} & {*re.split("[=.]", again[-1])}:
        return  # names a key, for which the user has to know the value
    result = cli(*again, *(["--dry-run"] if again[0] == "run" and "--dry-run" not in again else []))
    assert result.err != before, again
    assert "can't be parsed" not in result.err, again


def table(name: str, other: str = "first") -> None:
    with open("t.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[other, name], *([row, f"{row}.5"] for row in range(8))])


def follow(cli, words: list[str]) -> None:
    """Type a command and what its errors suggest until it runs."""
    for _ in range(3):
        result = cli(*words)
        if result.code == 0:
            return
        again = suggested(result.err, words)
        assert again is not None, result.err
        words = again
    raise AssertionError(result.err)


@pytest.mark.parametrize(
    "name",
    [
        "Body Mass (g)",
        "a b",
        "it's",
        'say "x"',
        "a=b",
        "ü",
        "x (cm",
        "{a}",
        "a:b",
        "2024",
        "true",
        "a\\",
        "$5",
        "#",
        "a|b",
    ],
)
def test_a_column_is_reached_from_its_name_alone(cli, name):
    table(name)
    follow(cli, ["run", *TABLE, f"data.target={name}", "--dry-run"])
    wrong = quoting.word("data.target", f"{name}x")
    follow(cli, ["run", *TABLE, wrong, "--dry-run"])


def test_a_list_of_columns_with_signs_is_quoted(cli):
    table("Body Mass (g)", "First (%)")
    line = cli("run", *TABLE, "data.target=[Body Mass (g),First (%)]").err
    assert "\"data.target=['Body Mass (g)','First (%)']\"" in line


def test_a_path_with_a_comma_or_a_blank_is_reached(cli):
    table("y")
    Path("t.csv").rename("a, b (1).csv")
    follow(cli, ["run", "experiment=table", "batch_size=4", "data.target=y", "data.path=a, b (1).csv", "--dry-run"])
    Path("a, b (1).csv").rename("a,b.csv")
    follow(cli, ["run", "experiment=table", "batch_size=4", "data.target=y", "data.path=a,b.csv", "--dry-run"])


def test_next_commands_name_a_run_that_looks_like_a_number(cli, train):
    for name in ("2024", "a b", "it's"):
        train("steps=2", "data.samples=8", name=quoting.value(name))
        lines = cli("show", name).out.splitlines()
        (command,) = [line.partition("trainer ")[2] for line in lines if "init_from" in line]
        assert cli(*shlex.split(command), "--dry-run").code == 0, command


TEXTS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=10)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
@example(text="\\'")
@example(text="a\\\\")
@example(text="null")
def test_what_is_quoted_is_read_back(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    (word,) = shlex.split(quoting.typed("name", text))
    assert parser.parse_override(word).value() == text
    (word,) = shlex.split(quoting.typed("name", [text, {"a": text}, None, True, 2]))
    assert parser.parse_override(word).value() == [text, {"a": text}, None, True, 2]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=TEXTS.filter(lambda name: not {*",[]$"} & {*name} and name == name.strip() and len(name) > 2))
def test_any_column_is_reached_from_a_misspelled_name(cli, name):
    table(name, "first column")
    follow(cli, ["run", *TABLE, quoting.word("data.target", f"{name}q"), "--dry-run"])


def test_a_wide_table_names_the_first_columns_and_counts_the_others(refused):
    names = [f"c{number:03d}" for number in range(785)]
    Path("t.csv").write_text("\n".join(",".join(row) for row in (names, *[["1"] * 785] * 8)))
    line = refused("run", *TABLE, "data.target=c7845")
    assert "c000, c001" in line
    assert "and 725 more; did you mean data.target=c784?" in line
    assert len(line) < 800


def test_many_constant_columns_are_one_warning(cli):
    names = [*(f"c{number:03d}" for number in range(124)), "y"]
    rows = [["1"] * 124 + [str(number)] for number in range(8)]
    Path("t.csv").write_text("\n".join(",".join(row) for row in (names, *rows)))
    result = cli("run", *TABLE, "data.target=y")
    assert result.code == 0, result.err
    assert "124 columns are constant in the training rows: c000, c001, c002, c003, c004, ..." in result.err
    assert (result.out + result.err).count("constant") == 1
    assert len((result.out + result.err).splitlines()) < 24
