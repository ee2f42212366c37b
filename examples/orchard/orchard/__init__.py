"""Inventory of a fruit farm: crates, what is in them, and what they weigh."""


class FarmError(Exception):
    """Shown to farm workers; the message ends with what to do next."""
