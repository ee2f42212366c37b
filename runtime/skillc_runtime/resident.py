"""What of an earlier prompt is still in the context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skillc_runtime.adapters import SetKey

# Prompts are decoded in chunks cut at fixed positions.  A whole chunk left by an earlier request
# of the same set is then bit for bit what decoding it again would give; other cuts are not.
CHUNK = 64


@dataclass(frozen=True, slots=True)
class Resident:
    """What sequence 0 holds: whole chunks of a prompt, decoded under one skill set."""

    key: SetKey
    tokens: tuple[int, ...]

    def shared(self, key: SetKey, prompt: Sequence[int]) -> int:
        """How many leading tokens of `prompt` need no decoding; always fewer than all."""
        if key != self.key:
            return 0
        most = min(len(self.tokens), len(prompt) - 1) // CHUNK * CHUNK
        for at in range(0, most, CHUNK):
            if tuple(prompt[at : at + CHUNK]) != self.tokens[at : at + CHUNK]:
                return at
        return most
