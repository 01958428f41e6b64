"""The processes that joblib keeps from one sweep to the next."""

from __future__ import annotations

from joblib.externals.loky import reusable_executor


def end_workers() -> None:
    """Let joblib start new ones."""
    if reusable_executor._executor is not None:
        reusable_executor._executor.shutdown(wait=True, kill_workers=True)
