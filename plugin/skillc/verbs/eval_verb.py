"""`skillc eval`: hands over to skillc.evaluate."""

from skillc.evaluate.cli import command

__all__ = ["command"]
