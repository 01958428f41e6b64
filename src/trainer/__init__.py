"""Trains PyTorch models that a configuration describes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.api import fit

__version__ = "0.1.0"
__all__ = ["__version__", "fit"]


def __getattr__(name: str) -> Any:
    if name == "fit":  # not before it is asked for: it needs torch, which takes a second to import
        from trainer.api import fit

        return fit
    raise AttributeError(f"module 'trainer' has no attribute {name!r}")
