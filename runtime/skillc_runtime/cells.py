"""Which cells of the cache the tokens of each sequence stand in.

Attention adds up a sequence's tokens in the order of their cells, and sums of floats depend on
their order. llama.cpp puts new tokens wherever cells are free, so an answer's last bits would
depend on what was decoded before it. Here no cell is given back one by one: dropped tokens go over
to a sequence that nobody reads, new ones always come behind all others, and from time to time
those in use are written anew, without gaps, from the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

from skillc_runtime.context import Context

_SLACK = 1024


class Cells:
    """The cells of a context for sequences 0 to `sequences` - 1; two more are used within."""

    def __init__(self, context: Context, sequences: int, *, ordered: bool) -> None:
        """Without `ordered` cells are given back at once and taken in any order."""
        self._context = context
        self._dropped = sequences
        self.padding = sequences + 1
        self.ordered = ordered and not context.recurrent
        self._top = 0

    def added(self, count: int) -> None:
        """Take note that `count` tokens were decoded."""
        self._top += count

    def drop(self, sequence: int, start: int = 0) -> bool:
        """Drop a sequence from a position on; False when the base cannot cut there."""
        if self.ordered:
            self._context.share(sequence, self._dropped, start)
        return self._context.forget(sequence, start)

    def drop_padding(self) -> None:
        """Free the padding of the last decode, which must have been its last token."""
        self._context.forget(self.padding)

    def empty(self) -> None:
        """Drop all sequences."""
        self._context.forget()
        self._top = 0

    def crowded(self, used: int, count: int) -> bool:
        """Whether `compact` should come before `count` more tokens, while `used` are in use."""
        if not self.ordered:
            return False
        full = self._top + count + 1 > self._context.cells
        return full or self._top > 2 * used + _SLACK

    def compact(self, lengths: dict[int, int], *, data: bool = False) -> Sequence[int]:
        """Write the sequences of these lengths anew and drop all others; returns those lost.

        With `data` what was dropped is overwritten too.
        """
        states = {number: self._context.save(number) for number in lengths}
        self.empty()
        if data:
            self._context.clear(data=True)
        lost = [
            number for number, state in states.items() if not self._context.restore(number, state)
        ]
        self._top = sum(size for number, size in lengths.items() if number not in lost)
        return lost
