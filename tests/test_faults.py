"""A short version of every series of faults; scripts/faults.py runs them whole."""

from __future__ import annotations

import errno
from itertools import islice

import faults
import pytest


def survived(cases, at_least: int) -> None:
    """Fail with what went wrong in any case; also if there were too few to mean anything."""
    found = list(cases)
    assert [problem for problem in found if problem is not None] == []
    assert len(found) >= at_least


def test_kills_at_random_instants(cli):
    survived(faults.kills_at_random(cli, range(12)), 12)


def test_kills_at_the_operations_of_a_save(cli):
    survived(faults.kills_at_operations(cli, stride=4), 10)


def test_kills_at_the_operations_of_a_run_with_loggers(cli):
    survived(faults.kills_with_loggers(cli, stride=23), 20)


@pytest.mark.slow
def test_kills_at_every_operation_of_a_run_with_loggers(cli):
    survived(faults.kills_with_loggers(cli), 500)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=["ENOSPC", "EIO", "EROFS"])
def test_file_operations_that_fail(cli, code):
    survived(faults.failing_operations(cli, stride=11, codes=(code,)), 5)


def test_files_that_may_not_grow(cli):
    survived(faults.limited_files(cli, (1500, 6000)), 2)


def test_a_small_disk(cli):
    found = list(faults.small_disks(cli, ("96k",)))
    if not found:
        pytest.skip("nothing may be mounted here")
    assert found == [None]


def test_power_losses(cli):
    survived(faults.power_losses(cli, stride=23), 30)


def test_corruptions(cli):
    survived(faults.corruptions(cli, stride=512, resume_each=20), 60)


def test_signals(cli):
    survived(faults.signals(cli, ("SIGUSR2",)), 6)


def test_two_writers(cli):
    survived(faults.writers(cli, starts=5), 5)


def test_a_series_tells_what_went_wrong(cli, monkeypatch):
    """With verification switched off, damage is reported as not noticed."""
    monkeypatch.setattr("hashlib.sha256", lambda data=b"": _Same())
    assert any("was not noticed" in str(case) for case in islice(faults.corruptions(cli, stride=512), 40))


class _Same:
    def update(self, data: memoryview) -> None:
        pass

    def hexdigest(self) -> str:
        return "0" * 64
