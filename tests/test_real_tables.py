"""Small made-up twins of well-known tables, each trained by the command that a newcomer types.

What the program has read is compared with a reader of the test's own: the rows, the range and mean of each column of
numbers, the number of values of each category, and the count of each class.
"""

from __future__ import annotations

import csv
import datetime
import io
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import Run


@dataclass
class Twin:
    """A made-up table.

    Args:
        names: The columns.
        cell: The cells of a row, given its number and a generator of random numbers.
        words: What a newcomer adds to `trainer run experiment=table data.path=FILE`.
        target: The column to predict.
        unused: Columns that are not inputs.
        rows: Number of rows.
        form: How Python's csv writes the file.
        missing: Cells that mean a missing value.
        decimal: The decimal mark.
        header: Whether the names are written.
        classes: Whether the target is a class.
    """

    names: list[str]
    cell: Callable[[int, random.Random], list[Any]]
    words: list[str]
    target: str
    unused: set[str] = field(default_factory=set)
    rows: int = 60
    form: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ("",)
    decimal: str = "."
    header: bool = True
    classes: bool = False

    def content(self) -> tuple[list[list[str]], bytes]:
        """The cells as text, and the file."""
        generator = random.Random(7)
        rows = [[str(cell) for cell in self.cell(n, generator)] for n in range(self.rows)]
        text = io.StringIO(newline="")
        writer = csv.writer(text, **{"lineterminator": "\n", **self.form})
        if self.header:
            writer.writerow(self.names)
        writer.writerows(rows)
        return rows, text.getvalue().encode()


def some(chance: float, value: Any, otherwise: str, r: random.Random) -> Any:
    return otherwise if r.random() < chance else value


def penguin(n: int, r: random.Random) -> list[Any]:
    kind = ("Adelie", "Chinstrap", "Gentoo")[n % 3]
    length = some(0.05, round(r.uniform(35, 55), 1), "", r)
    return [
        kind,
        ("Biscoe", "Dream")[n % 2],
        length,
        r.randint(2700, 6300),
        some(0.1, ("MALE", "FEMALE")[n % 2], "", r),
    ]


def titanic(n: int, r: random.Random) -> list[Any]:
    name = f'Braund, Mr. Owen "{n}" Harris'
    return [n + 1, n % 2, n % 3 + 1, name, some(0.2, r.randint(1, 70), "", r), f"A/5 {n}", round(r.uniform(7, 99), 4)]


def adult(n: int, r: random.Random) -> list[Any]:
    work = (" Private", " State-gov", " ?")[n % 3]
    return [r.randint(17, 90), work, f" {r.randint(1, 16)}", (" <=50K", " >50K")[r.random() < 0.3]]


def iris(n: int, r: random.Random) -> list[Any]:
    return [*(round(r.uniform(0.1, 7.9), 1) for _ in range(4)), f"Iris-{('setosa', 'versicolor', 'virginica')[n % 3]}"]


def wine(n: int, r: random.Random) -> list[Any]:
    return [round(r.uniform(4, 15), 1), round(r.uniform(0.99, 1.01), 5), r.randint(3, 8)]


def house(n: int, r: random.Random) -> list[Any]:
    sea = ("NEAR BAY", "<1H OCEAN", "INLAND")[n % 3]
    return [
        -round(r.uniform(114, 124), 2),
        some(0.1, float(r.randint(1, 6000)), "", r),
        sea,
        float(r.randint(1, 500001)),
    ]


def mpg(n: int, r: random.Random) -> list[Any]:
    return [round(r.uniform(9, 46), 1), (4, 6, 8)[n % 3], some(0.1, r.randint(46, 230), "?", r), f"ford torino {n}"]


def cancer(n: int, r: random.Random) -> list[Any]:
    return [842302 + 7 * n, "MB"[n % 2], round(r.uniform(7, 28), 2), round(r.uniform(0, 0.4), 5)]


def bikes(n: int, r: random.Random) -> list[Any]:
    return [datetime.date(2011, 1, 1) + datetime.timedelta(n), n % 7, round(r.random(), 6), r.randint(22, 8714)]


def abalone(n: int, r: random.Random) -> list[Any]:
    return ["MFI"[n % 3], round(r.uniform(0.1, 0.8), 3), round(r.uniform(0.01, 2.8), 4), r.randint(1, 29)]


def heart(n: int, r: random.Random) -> list[Any]:
    return [float(r.randint(29, 77)), float(n % 2), some(0.1, float(n % 4), "?", r), n % 5]


def credit(n: int, r: random.Random) -> list[Any]:
    return [
        ("'<0'", "'0<=X<200'", "'no checking'")[n % 3],
        r.randint(4, 72),
        r.randint(250, 18424),
        ("good", "bad")[n % 2],
    ]


def longley(n: int, r: random.Random) -> list[Any]:
    return [60323 + 700 * n + r.randint(0, 99), 83 + 2.1 * n, 234289 + 20000 * n, 1947 + n]


def spectrum(n: int, r: random.Random) -> list[Any]:
    return [*(f"{r.gauss(0.5, 0.1):.6e}" for _ in range(700)), round(r.uniform(5, 20), 2)]


def indexed(n: int, r: random.Random) -> list[Any]:
    return [n, round(r.gauss(0, 1), 4), round(r.gauss(5, 2), 4)]


def european(n: int, r: random.Random) -> list[Any]:
    return [f"Straße {n % 4}", *(f"{r.uniform(-9, 99):.2f}".replace(".", ",") for _ in range(2))]


def notes(n: int, r: random.Random) -> list[Any]:
    return [f'a "quoted"\nnote, of {n % 3}\r\nlines', r.randint(1, 9), round(r.uniform(1, 2), 3)]


TWINS = {
    "penguins": Twin(
        ["species", "island", "bill_length_mm", "body_mass_g", "sex"],
        penguin,
        ["data.target=species", "data.nan=mean"],
        "species",
        classes=True,
    ),
    "titanic": Twin(
        ["PassengerId", "Survived", "Pclass", "Name", "Age", "Ticket", "Fare"],
        titanic,
        ["data.target=Survived", "data.exclude=[PassengerId,Name,Ticket]", "data.nan=mean"],
        "Survived",
        {"PassengerId", "Name", "Ticket"},
        classes=True,
    ),
    "adult": Twin(
        ["age", "workclass", "education-num", "income"], adult, ["data.target=income"], "income", classes=True
    ),
    "iris, without a header": Twin(
        [f"column_{n}" for n in range(1, 6)],
        iris,
        ["data.header=false", "data.target=column_5"],
        "column_5",
        header=False,
        classes=True,
    ),
    "wine quality": Twin(
        ["fixed acidity", "density", "quality"],
        wine,
        ["data.target=quality"],
        "quality",
        form={"delimiter": ";", "quoting": csv.QUOTE_NONNUMERIC, "lineterminator": "\r\n"},
    ),
    "housing": Twin(
        ["longitude", "total_bedrooms", "ocean_proximity", "median_house_value"],
        house,
        ["data.target=median_house_value", "data.nan=drop"],
        "median_house_value",
    ),
    "mpg": Twin(
        ["mpg", "cylinders", "horsepower", "car name"],
        mpg,
        ["data.target=mpg", "data.exclude=[car name,horsepower]"],
        "mpg",
        {"car name", "horsepower"},
    ),
    "breast cancer": Twin(
        ["id", "diagnosis", "radius_mean", "fractal_dimension"],
        cancer,
        ["data.target=diagnosis", "data.exclude=[id]"],
        "diagnosis",
        {"id"},
        classes=True,
    ),
    "bike sharing": Twin(
        ["dteday", "weekday", "temp", "cnt"],
        bikes,
        ["data.target=cnt", "data.exclude=[dteday]"],
        "cnt",
        {"dteday"},
    ),
    "abalone": Twin(
        ["Sex", "Length", "Whole weight", "Rings"], abalone, ["data.target=Rings", "data.classes=false"], "Rings"
    ),
    "heart disease": Twin(
        ["age", "sex", "ca", "num"],
        heart,
        ["data.target=num", "data.categories=[ca]"],
        "num",
        classes=True,
    ),
    "credit-g": Twin(
        ["checking_status", "duration", "credit_amount", "class"], credit, ["data.target=class"], "class", classes=True
    ),
    "longley": Twin(
        ["TOTEMP", "GNPDEFL", "GNP", "YEAR"], longley, ["data.target=TOTEMP", "batch_size=12"], "TOTEMP", rows=16
    ),
    "a spectrum": Twin(
        [*(f"{1100 + 2 * n}nm" for n in range(700)), "octane"], spectrum, ["data.target=octane"], "octane"
    ),
    "an index": Twin(["", "x", "y"], indexed, ["data.target=y"], "y", {""}),
    "European": Twin(
        ["Straße", "Länge", "Preis"],
        european,
        ["data.target=Preis", "data.decimal=,"],
        "Preis",
        form={"delimiter": ";"},
        decimal=",",
    ),
    "quoted newlines": Twin(["note", "n", "y"], notes, ["data.target=y"], "y", form={"lineterminator": "\r\n"}),
}


def numbers(cells: list[str], decimal: str) -> list[float] | None:
    try:
        return [float(cell.replace(decimal, ".")) for cell in cells]
    except ValueError:
        return None


@pytest.mark.parametrize("name", TWINS)
def test_the_numbers_of_a_real_kind_of_table_are_read(cli, name):
    twin = TWINS[name]
    every, content = twin.content()
    Path("table.csv").write_bytes(content)
    result = cli("run", "run_dir=run", "experiment=table", "data.path=table.csv", *twin.words, "epochs=1")
    assert result.code == 0, result.err
    data = Run(Path("run")).status["data"]
    used = [column for column in twin.names if column not in twin.unused]
    places = {column: twin.names.index(column) for column in used}
    is_dropped = "data.nan=drop" in twin.words
    rows = [row for row in every if not is_dropped or all(row[place] for place in places.values())]
    assert data["rows"] == len(rows)
    found = {one["column"]: one for one in data["columns"]}
    assert [*found] == [*(column for column in used if column != twin.target), twin.target]
    for column, place in places.items():
        cells = [row[place].strip(" \t") for row in rows]
        filled = [cell for cell in cells if cell not in twin.missing]
        if column == twin.target and twin.classes:
            assert data["classes"] == Counter(filled)
            continue
        assert found[column]["missing"] == sum(row[place].strip(" \t") in twin.missing for row in every)
        values = numbers(filled, twin.decimal)
        if values is None or f"data.categories=[{column}]" in twin.words:
            assert found[column]["kind"] == "category"
            continue
        assert found[column]["kind"] == "number"
        assert (found[column]["low"], found[column]["high"]) == (min(values), max(values))
        assert found[column]["mean"] == pytest.approx(sum(values) / len(values), rel=1e-12)
    result = cli("predict", "run", "--input", "table.csv", "--output", "predictions.csv")
    assert result.code == 0, result.err
    with open("predictions.csv", newline="") as file:
        predicted = list(csv.reader(file))
    assert [row[: len(twin.names)] for row in predicted[1:]] == every
