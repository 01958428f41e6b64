"""One file of a run changed at a time: no command goes on with other numbers without a word."""

from __future__ import annotations

import mutations
import pytest


@pytest.mark.parametrize("stride", [pytest.param(29, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_no_change_is_silent(cli, stride):
    counts = mutations.count(cli, stride)
    assert counts.tried >= 500 // stride
    assert not counts.silent, str(counts)
    assert counts.noticed + len(counts.idle) == counts.tried, str(counts)
    assert counts.noticed >= 0.95 * counts.tried, str(counts)
    assert counts.refused >= 0.4 * counts.tried, str(counts)
