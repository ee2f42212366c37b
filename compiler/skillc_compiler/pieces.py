"""A text tokenized in pieces as if it were one: SentencePiece's space in front comes once.

Tokenizers of Llama 2's and Mistral's kind put a space in front of whatever they are given, and
after every control token. What a chat template puts around contents is tokenized apart from them,
so each piece would bring a space that is not in the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPACE = "\u2581"
# With a character in front that merges with nothing, the space is before that and can be taken off.
_SHIELD = "\x01"

Encode = Callable[[str], Sequence[int]]


def encode_pieces(
    pieces: Iterable[tuple[str, Encode]], *, adds_space: bool, is_control: Callable[[int], bool]
) -> list[list[int]]:
    """The ids of each piece by its own encoder; `adds_space`: they put a space in front.

    A space at the end of a piece goes to the next one, as it would in one text.
    """
    if not adds_space:
        return [list(encode(text)) if text else [] for text, encode in pieces]
    found: list[list[int]] = []
    fresh, pending, last = True, "", None
    for text, encode in pieces:
        whole = pending + text
        pending = " " if whole.endswith(" ") else ""
        whole = whole[: len(whole) - len(pending)]
        ids: list[int] = []
        if whole:
            if fresh:
                ids = list(encode(whole))
            elif whole.startswith(" ") and len(whole) > 1:
                ids = list(encode(whole[1:]))
            else:
                ids = without_space(whole, encode)
            fresh = bool(ids) and is_control(ids[-1])
        found.append(ids)
        last = encode
    if pending and last is not None:
        found[-1] += without_space(pending, last)
    return found


def without_space(text: str, encode: Encode) -> list[int]:
    """The ids of `text` without a space in front that is not in it."""
    shield = list(encode(_SHIELD))
    ids = list(encode(_SHIELD + text))
    return ids[len(shield) :] if ids[: len(shield)] == shield else list(encode(text))


def puts_space(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer puts a space in front of what it is given."""
    return tokenizer.encode("a", add_special_tokens=False).tokens[0].startswith(_SPACE)


def control_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids of a tokenizer's control tokens."""
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(number for number, token in added.items() if token.special)
