"""Trains PyTorch models that a configuration describes."""

__version__ = "0.1.0"
