"""What an engine has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Decodes, the tokens in them, how often another set was attached; bytes of copied prompts."""

    decodes: int = 0
    tokens: int = 0
    switches: int = 0
    copied: int = 0
