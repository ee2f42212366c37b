"""How much of a skill's text an adapter alone brings back: a cheap check at compile time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.families.host import Factors, Host

WINDOW, CUE, WINDOWS = 64, 8, 24
BATCH = 8
CODE = re.compile(r"```[^\n]*\n(?P<fence>.*?)```|`(?P<span>[^`\n]+)`", re.DOTALL)


class Guess(Protocol):
    """Token ids [B, L] in, the most likely next ones [B, L] out, with the adapter or without."""

    def __call__(self, windows: Tensor, *, attached: bool) -> Tensor: ...


def probe(host: Host, tokenizer: Tokenizer, text: str, factors: Factors) -> dict[str, float]:
    """Token accuracies with the adapter (`recall`) and without (`recall_none`).

    Windows of the text are continued without the text in context; only tokens inside code spans
    count (all, if there are none). Empty when the text is too short to say.
    """

    def guess(windows: Tensor, *, attached: bool) -> Tensor:
        with host.attached(factors if attached else {}):
            return guesses(host, windows)

    return recall(tokenizer, text, guess)


def recall(tokenizer: Tokenizer, text: str, guess: Guess) -> dict[str, float]:
    """`probe` for any way to run the base: `guess` gives each position's most likely next token."""
    windows, wanted = _windows(tokenizer, text)
    if not wanted.any():
        return {}
    scores = {}
    for name, attached in (("recall", True), ("recall_none", False)):
        hits = (guess(windows, attached=attached)[:, :-1] == windows[:, 1:])[wanted]
        scores[name] = round(float(hits.float().mean()), 4)
    return scores


def guesses(host: Host, windows: Tensor) -> Tensor:
    """The likeliest next token [B, L] after each of the windows' tokens, on the CPU."""
    parts = []
    for part in torch.split(windows, BATCH):
        # Logits of all windows at once would be the largest thing in memory.
        found: Tensor = host.model(part.to(host.device), use_cache=False).logits.argmax(-1)
        parts.append(found.cpu())
    return torch.cat(parts)


def _windows(tokenizer: Tokenizer, text: str) -> tuple[Tensor, Tensor]:
    encoded = tokenizer.encode(text, add_special_tokens=False)
    spans = [match.span(match.lastgroup or 0) for match in CODE.finditer(text)]
    inside = [
        any(begin <= left and right <= end for begin, end in spans)
        for left, right in encoded.offsets
    ]
    if not any(inside):
        inside = [True] * len(inside)
    size = min(WINDOW, len(encoded.ids))
    stride = max(1, size - CUE)
    starts = [
        min(start, len(encoded.ids) - size)
        for start in range(0, max(1, len(encoded.ids) - CUE), stride)
    ]
    chosen = starts[:: -(-len(starts) // WINDOWS)]
    windows = torch.tensor([encoded.ids[start : start + size] for start in chosen])
    wanted = torch.tensor([inside[start + 1 : start + size] for start in chosen])
    wanted[:, : CUE - 1] = False
    return windows, wanted
