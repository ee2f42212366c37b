"""Weights to answers: runs the base, attaches adapters, speaks HTTP."""

__version__ = "0.1.0"
