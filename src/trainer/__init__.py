"""Trains PyTorch models that a configuration describes."""

from trainer.version import __version__

TYPE_CHECKING = False  # typing's own would be imported with every TAB that completes a command
if TYPE_CHECKING:
    from typing import Any

    from trainer.api import fit

__all__ = ["__version__", "fit"]


def __getattr__(name: str) -> "Any":
    if name == "fit":  # not before it is asked for: it needs torch, which takes a second to import
        from trainer.api import fit

        return fit
    raise AttributeError(f"module 'trainer' has no attribute {name!r}")
