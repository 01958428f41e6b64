"""A field of status.json that can't be read costs a listing that field, not the run; bounds hold before decoding."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from instants import begin

from trainer.files import plain_json, reading
from trainer.files.json_fields import Fields
from trainer.runs.status import Status

DEEP = "[" * 200 + "]" * 200


@pytest.fixture
def run(cli) -> Path:
    begin("runs/20260101-000000-bbbb", "data.inputs=4", "model.hidden=3", "steps=1")
    return Path("runs/20260101-000000-bbbb")


def with_field(run: Path, key: str, text: bytes) -> None:
    """Put a text of JSON, right or wrong, in place of a field of status.json."""
    status = json.loads((run / "status.json").read_text())
    status[key] = "HERE"
    (run / "status.json").write_bytes(json.dumps(status).encode().replace(b'"HERE"', text))


@pytest.mark.parametrize(
    "text",
    [b"1e999", b"[1]", b"true", b'{"loss": "low"}', b'{"loss": 1e999}', DEEP.encode(), b'{"loss": %s}' % DEEP.encode()],
    ids=lambda text: text[:20].decode(),
)
def test_a_field_of_the_wrong_kind_is_dropped_and_not_the_run(cli, run, text):
    with_field(run, "metrics", text)
    (found,) = json.loads(cli("runs", "--json").out)
    assert "metrics" not in found
    assert (found["state"], found["config"]["optim"]["lr"]) == ("waiting", 1e-4)
    assert cli("runs").code == 0


@pytest.mark.parametrize("text", [b"", b"[]", b'{"state": "done"', b'{"a": tru}', b"\xff", b"[" * 10**5], ids=repr)
def test_what_is_no_json_is_an_unreadable_run(cli, run, text):
    (run / "status.json").write_bytes(text)
    (found,) = json.loads(cli("runs", "--json").out)
    assert found["state"] == "unreadable"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": [' + b"[]," * reading.MOST_CONTAINERS + b"0]}", "lists and dicts"),
        (b'{"a": [' + b"0," * (reading.MOST_VALUES + 1) + b"0]}", "values"),
        (b'{"a": "' + b" " * reading.MOST_JSON + b'"}', "bytes"),
    ],
    ids=["containers", "values", "bytes"],
)
def test_bounds_hold_before_anything_is_decoded(workdir, monkeypatch, text, said):
    monkeypatch.setattr("trainer.files.json_fields._FIELDS", None)
    Path("status.json").write_bytes(text)
    with pytest.raises(reading.Unreadable, match=said):
        Fields("status.json", Status)


@pytest.mark.parametrize(
    ("name", "escaped"),
    [*itertools.product(["plain", "\x1b[31m", "\x7f", "h\u00f6her"], [True, False]), ("\udc80", True)],
)
def test_fields_are_those_of_the_whole_file(workdir, name, escaped):
    """Half of a surrogate pair stands for a name of a file that is no UTF-8."""
    data = {"name": name, "step": 3, "error": None, name: [{name: [1.5, 2**70, -0.0, "\u2028"]}]}
    Path("status.json").write_text(json.dumps(data, ensure_ascii=escaped))
    assert dict(Fields("status.json", Status)) == plain_json.json_data("status.json")
