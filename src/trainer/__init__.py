"""Trains PyTorch models that a configuration describes."""

from trainer.version import __version__

TYPE_CHECKING = False  # importing typing would slow down TAB completion
if TYPE_CHECKING:
    from typing import Any

    from trainer.api import fit

__all__ = ["__version__", "fit"]


def __getattr__(name: str) -> "Any":
    if name == "fit":  # imported on first use: it needs torch, which takes a second to import
        from trainer.api import fit

        return fit
    raise AttributeError(f"module 'trainer' has no attribute {name!r}")
