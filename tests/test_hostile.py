"""Opening a run that somebody else has made runs none of its code."""

from __future__ import annotations

from pathlib import Path

import hostile
from instants import train_and_copy


def test_no_hostile_run_does_any_harm(cli):
    found = list(hostile.sprung(cli))
    assert [problem for problem in found if problem is not None] == []
    assert len(found) >= 100


def test_the_traps_are_set(cli):
    """Code that the user trusts does run, so that a canary means something."""
    train_and_copy(cli, *hostile.WORDS, run=3)
    hostile.traps()["code that came with it"].spring(Path("run"))
    assert cli("resume", "run", "--trust-code").code == 2
    assert Path(hostile.CANARY).exists()
