"""CSV files of any bytes are read as Python's csv module reads them, or refused with their line."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import shutil
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainer.data import csv_text, files, packed
from trainer.data.csv_text import Form
from trainer.errors import UsageError

EMPTY = ("",)  # the words that mean a missing cell unless data.missing lists some
WORDS = ("", "NA", "a", "1,5")  # those of a data.missing
PIECES = (
    '"',
    '""',
    ",",
    ";",
    "\t",
    "\n",
    "\r\n",
    "\r",
    " ",
    "a",
    "b",
    "1,5",
    '"x,y"',
    "é",
    "\0",
    '5" pipe',
    "NA",
    '"a"b',
)


ENDS = ("\n", "\r\n", "\r", "\n\n", "\n \n", "\r\n\r\n")


def rows_of(width: int, separator: str) -> st.SearchStrategy[str]:
    """Texts whose records have mostly the same number of cells, some of them quoted, spelled in odd ways."""
    inner = st.lists(st.sampled_from(PIECES), max_size=3).map("".join)
    bare = inner.map(lambda text: re.sub(f"[{separator}\r\n]", "", text)).map(lambda text: text.lstrip('"'))
    quoted = st.tuples(inner, st.sampled_from(("", "", "", "x", " "))).map(
        lambda both: '"' + both[0].replace('"', '""') + '"' + both[1]
    )
    lines = st.lists(
        st.tuples(st.lists(bare | quoted, min_size=width, max_size=width), st.sampled_from(ENDS)),
        min_size=1,
        max_size=8,
    )
    names = separator.join(f"n{number}" for number in range(width))
    return st.tuples(st.sampled_from(("", *ENDS)), st.sampled_from(ENDS), lines).map(
        lambda parts: parts[0] + names + parts[1] + "".join(separator.join(cells) + end for cells, end in parts[2])
    )


TEXTS = st.sampled_from(",;\t").flatmap(
    lambda separator: st.tuples(
        st.integers(1, 4).flatmap(lambda width: rows_of(width, separator))
        | st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
        st.just(separator),
    )
)


def has_open_quote(text: str, separator: str) -> bool:
    """Whether a quoted cell never ends, by the grammar of the csv module: a quote opens a cell only at its start."""
    state = "start"
    for character in text:
        if state == "quoted":
            state = "after" if character == '"' else "quoted"
        elif character == '"' and state in ("start", "after"):
            state = "quoted"
        else:
            state = "start" if character in (separator, "\n", "\r") else "bare"
    return state == "quoted"


def expected(text: str, separator: str, missing: tuple[str, ...]) -> list[list[str]] | None:
    """The records of a file that are not blank; None where the file is no table."""
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    rows = [row for row in rows if row and not (len(row) == 1 and row[0] and not row[0].strip(" \t"))]
    if not rows or has_open_quote(text, separator) or len({len(row) for row in rows}) > 1:
        return None
    names = [name.strip() for name in rows[0]]
    if len({*names}) < len(names):
        return None
    width = len(names)
    return [
        names,
        *(
            row
            for row in rows[1:]
            if width == 1 or not all(cell in missing or (not i and not cell.strip(" \t")) for i, cell in enumerate(row))
        ),
    ]


def cells(rows: list[list[str]], missing: tuple[str, ...]) -> list[tuple[str | None, ...]]:
    return [tuple(None if cell in missing else cell for cell in row) for row in rows]


def read(path: Path, form: Form, missing: tuple[str, ...]) -> pl.DataFrame:
    """The table of a file, read whole and, unless words mean missing, in parts alike."""
    whole = files.read_csv(path, "data.path", form, missing)
    if missing != EMPTY:
        return whole
    parts = [part for part in files.csv_parts(path, "--input", 2, form) if part.height]
    assert pl.concat(parts).equals(whole)
    return whole


@given(TEXTS, st.booleans(), st.sampled_from((5, 2**22)))
@example(('a,b\n5" pipe,1\n7" pipe,2\n', ","), False, 5)
@example(('a,b\r"x\ry",1\r', ","), False, 5)
@example(('\n \n"a\nb",b\n1,2\n', ","), True, 5)
@example(('a,b\n"x"y,1\n', ","), False, 5)
@example(('a,b\n1,"2\n3,4\n', ","), False, 5)
@example(('""\n"', ","), False, 5)
@example(("a,b\n1,2\r\r\n3,4", ","), False, 5)
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_as_by_pythons_csv(tmp_path_factory, both, bom, chunk):
    text, separator = both
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" * bom + text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_text, "_CHUNK", chunk)  # bytes looked at together
        for missing in (EMPTY, WORDS):
            require_as_by_python(path, text, separator, missing)


def require_as_by_python(path: Path, text: str, separator: str, missing: tuple[str, ...]) -> None:
    rows = expected(text, separator, missing)
    if rows is None or len(rows) < 2:
        with pytest.raises(UsageError) as refused:
            read(path, Form(separator), missing)
        assert "\n" not in str(refused.value)
        return
    frame = read(path, Form(separator), missing)
    assert frame.columns == rows[0]
    assert frame.rows() == cells(rows[1:], missing)


ROWS = [(f'{n}" pipe' if n % 2 else "a, b", n, n * 0.25) for n in range(1, 13)]
RUN = ("experiment=table", "data.target=y", "batch_size=4", "steps=2", "data.validation=0.25")


def written(separator: str = ",", end: str = "\n", decimal: str = ".", header: bool = True) -> bytes:
    """A file of ROWS as Python's csv writes it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=end)
    if header:
        writer.writerow(("kind", "n", "y"))
    writer.writerows((kind, n, str(y).replace(".", decimal)) for kind, n, y in ROWS)
    return text.getvalue().encode()


FORMS = {
    "CR at the ends of lines": (written(end="\r"), ()),
    "quotes in cells that are not quoted": (written().replace(b'"1"" pipe"', b'1" pipe'), ()),
    "blank lines first": (b"\r\n \t\r\n" + written(end="\r\n"), ()),
    "blank lines within": (written().replace(b"\n", b"\n\n  \n"), ()),
    "tabs": (written("\t"), ()),
    "tabs, as one types them": (written("\t"), ("data.separator=\\t",)),
    "a tab itself": (written("\t"), ("data.separator=\t",)),
    "tabs by name": (written("\t"), ("data.separator=tab",)),
    "commas": (written(), ("data.separator=,",)),
    "semicolons": (written(";"), ("data.separator=;",)),
    "bars": (written("|"), ("data.separator=|",)),
    "blanks": (written(" "), ("data.separator=space",)),
    "decimal commas": (written(";", decimal=","), ("data.decimal=,",)),
    "decimal commas in quotes": (written(",", decimal=","), ("data.decimal=,",)),
    "no header": (written(header=False), ("data.header=false", "data.target=column_3")),
    "gzip": (gzip.compress(written()), ()),
}


@pytest.mark.parametrize("case", FORMS)
def test_files_of_many_forms_give_the_same_run(cli, train, case):
    content, words = FORMS[case]
    Path("t.csv").write_bytes(written())
    Path("other.csv").write_bytes(content)
    run = train(*RUN, "data.path=t.csv")
    words = [word for word in RUN if word.split("=")[0] not in {one.split("=")[0] for one in words}] + [*words]
    other = train(*words, "data.path=other.csv", name="other")
    assert other.bits() == run.bits()
    result = cli("predict", "other", "--input", "other.csv", "--output", "o.csv")
    assert result.code == 0, result.err
    with open("o.csv", newline="") as file:
        found = list(csv.reader(file))[1:]
    assert [row[0] for row in found] == [kind for kind, _, _ in ROWS]
    with open("o.csv", newline="") as file:
        assert [row[2].replace(",", ".") for row in csv.reader(file)][1:] == [str(y) for _, _, y in ROWS]


@pytest.mark.parametrize("name", ["t.csv.gz", "t.CSV.GZ", "t.gz"])
def test_a_compressed_file_is_read_under_any_name(train, cli, name):
    Path(name).write_bytes(gzip.compress(written()))
    train(*RUN, f"data.path={name}")
    assert cli("predict", "run", "--input", name).code == (0 if ".csv" in name.lower() else 2)


def test_a_file_compressed_by_zstandard_is_read_where_its_package_is_there(train, cli):
    zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    Path("t.csv").write_bytes(written())
    Path("t.csv.zst").write_bytes(zstd.compress(written()))
    run, other = train(*RUN, "data.path=t.csv"), train(*RUN, "data.path=t.csv.zst", name="other")
    assert run.bits() == other.bits()
    Path("t.csv.zst").write_bytes(zstd.compress(written())[:-9])
    assert "can't be unpacked" in cli("run", *RUN, "data.path=t.csv.zst").err


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python has it")
def test_without_its_package_zstandard_is_refused_with_the_extra(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "backports", None)
    Path("t.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    assert "pip install backports.zstd (the extra `data`)" in refused("run", *RUN, "data.path=t.csv.zst")


WRONG = {
    "a quote that never ends": (
        b'kind,n,y\na,1,2\n"b,2,3\nc,3,4\n',
        (),
        'line 3 has a cell that starts with " and never',
    ),
    "a cell too many, after CR": (b"kind,n,y\ra,1,2\rb,2,3,4\r", (), "line 3 has 4 cells, but the first line has 3"),
    "a cell too few, after a cell of two lines": (
        b'kind,n,y\n"a\nb" x,1,2\nb,2\n',
        (),
        "line 4 has 2 cells, but the first line has 3",
    ),
    "nothing but blank lines": (b"\n  \n\n", (), "has nothing but blank lines"),
    "numbers as names": (b"1,2,2\n1,2,3\n", (), r"two columns are named '2'; did you mean data\.header=false\?"),
    "a broken archive": (gzip.compress(written())[:40], (), "can't be unpacked: "),
    "a separator of two": (
        written(),
        ("data.separator=ab",),
        r"data\.separator=ab: is not one character; allowed: .*tab",
    ),
    "a decimal mark that is none": (written(), ("data.decimal=x",), r"data\.decimal=x: no such choice; allowed: \., ,"),
    "decimal commas unsaid": (
        written(";", decimal=","),
        (),
        r"line 2: '0,25' in the column y .*did you mean data\.decimal=,\?",
    ),
    "decimal points said to be commas": (written(), ("data.decimal=,",), r"line 2: '0\.25'.*a decimal comma only"),
    "not utf-8, with an odd quote": (b'kind,n,y\n5" pipe,1,2\n\xff,2,3\n', (), "the byte 0xff at offset 21"),
    "UTF-16": ("kind,n,y\n".encode("utf-16"), (), "is not UTF-8"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_table_is_refused_with_its_line(cli, case):
    content, words, message = WRONG[case]
    Path("t.csv").write_bytes(content)
    result = cli("run", *RUN, "data.path=t.csv", *words)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert re.search(message, result.err), result.err
    assert not Path("runs").exists()


def test_a_bomb_is_refused(refused, monkeypatch):
    monkeypatch.setattr(packed, "_UNPACKED", 2**16)
    Path("t.csv").write_bytes(gzip.compress(written() + b"a,1,2\n" * 2**20))
    assert "unpacks to more than" in refused("run", *RUN, "data.path=t.csv")


def test_a_file_without_names_of_another_width_is_not_taken_for_the_same(train, cli):
    """Where the target is the first column, the others have other numbers in a file without it."""
    first = written(header=False)
    target_first = "".join(f"{y},{n},{n % 3},{n * 2}\n" for _, n, y in ROWS)
    Path("t.csv").write_text(target_first)
    words = ("data.header=false", "data.target=column_1", "data.columns=[column_2,column_3]")
    train(*(word for word in RUN if "target" not in word), "data.path=t.csv", *words)
    Path("new.csv").write_text("".join(line.partition(",")[2] + "\n" for line in target_first.splitlines()))
    result = cli("predict", "run", "--input", "new.csv")
    assert result.code == 2
    assert "has 3 columns without names; the model was trained on 4" in result.err
    assert cli("predict", "run", "--input", "t.csv").code == 0
    assert cli("eval", "run", "data.path=new.csv").code == 2
    Path("t.csv").write_bytes(first)
    train(
        *(word for word in RUN if "target" not in word), "data.path=t.csv", *words[:1], "data.target=column_3", name="b"
    )
    Path("new.csv").write_text('"a, b",3\n')
    assert cli("predict", "b", "--input", "new.csv").out.startswith("column_1,column_2,predicted_column_3\n")


def test_typed_rows_have_points_whatever_the_file_has(train, cli):
    Path("t.csv").write_bytes(written(";", decimal=","))
    train(*RUN, "data.path=t.csv", "data.decimal=,")
    assert cli("predict", "run", '--row=kind=1" pipe,n=2.5').code == 0


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_predictions_come_from_a_file_whose_name_is_not_utf8(train, cli, suffix):
    Path("t.csv").write_bytes(written())
    train(*RUN, "data.path=t.csv")
    name, target = os.fsdecode(b"n\xff") + suffix, os.fsdecode(b"o\xff.csv")
    if suffix == ".csv":
        shutil.copy("t.csv", name)
    else:
        pl.read_csv("t.csv").write_parquet("t.parquet")
        os.rename("t.parquet", name)
    result = cli("predict", "run", "--input", name, "--output", target)
    assert result.code == 0, result.err
    assert len(Path(target).read_text().splitlines()) == 13
    result = cli("predict", "run", "--input", os.fsdecode(b"m\xff") + suffix)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert f"--input=m\\udcff{suffix}: no such file" in result.err
