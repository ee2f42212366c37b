"""Lookups: where the text arm's answers choose, and where in the document that choice stands.

What the heads of `train.match` learn from lines alone they have to do between everything else that
a document says. So in the text arm's own rows their attention is taught, too: from each token that
chooses among a skill's answers, to that token's place in the document, against all tokens that
are seen from there; and to the very first token where the document has no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from skillc_compiler.data.generate import Question, Sample
from skillc_compiler.train import ops
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.heads import Heads, projected
from skillc_compiler.train.nano import Nano, Trace
from skillc_compiler.train.rows import SKILL, Rows

NOTHING = 0  # the place that is looked at where there is nothing to be found: a row's first token
_FAR = -1e4


@dataclass
class Lookups:
    """P lookups: the row and the last place before the choice, and the places to be looked at."""

    rows: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    wanted: list[list[int]] = field(default_factory=list)

    def add(self, row: int, place: int, wanted: Sequence[int]) -> None:
        """One lookup; none where nothing is wanted."""
        if wanted:
            self.rows.append(row)
            self.places.append(place)
            self.wanted.append(list(wanted))


@dataclass(frozen=True)
class Located:
    """Where the tokens of a skill's text begin and end."""

    text: str
    encoder: Encoder
    size: int  # tokens that are read

    def wanted(
        self, sample: Sample, question: Question, chosen: Sequence[int]
    ) -> dict[int, list[int]]:
        """Of the `chosen` tokens of an answer those that the text has, with their places there."""
        if question.kind == "outside":
            return {0: [NOTHING]}
        answering = [f for f in sample.facts if f.answer == question.answer]
        values = {f.value for f in answering if f.value in f.answer}
        if len(values) != 1 or question.calls:
            return {}
        value = values.pop()
        first = question.answer.find(value)
        answer = self.encoder.tokenizer.encode(question.answer, add_special_tokens=False)
        told = self.encoder.tokenizer.encode(self.text, add_special_tokens=False)
        shift = len(self.encoder.open_system)
        found: dict[int, list[int]] = {}
        for at in occurrences(self.text, value):
            for number in chosen:
                if number >= len(answer.ids) or (begin := answer.offsets[number][0]) < first:
                    continue
                token = told.char_to_token(at + begin - first)
                if token is not None and token + shift < self.size:
                    found.setdefault(number, []).append(token + shift)
        return found


def occurrences(text: str, value: str) -> list[int]:
    """Where the value begins in the text, but for longer commands that begin with it."""
    found, at = [], text.find(value) if value else -1
    while at >= 0:
        if not text.startswith(" -", at + len(value)):
            found.append(at)
        at = text.find(value, at + 1)
    return found


def looked(
    model: Nano, rows: Rows, trace: Trace, lookups: Lookups, heads: Heads
) -> tuple[Tensor, float]:
    """Mean negative log of the attention (nats) on what is wanted, and that attention's mean."""
    device = rows.tokens.device
    row = torch.tensor(lookups.rows, device=device)
    place = torch.tensor(lookups.places, device=device)
    segments = rows.segments[row]
    seen = (segments == SKILL) | (segments == segments.gather(1, place[:, None]))
    seen &= torch.arange(segments.shape[1], device=device)[None] <= place[:, None]
    wanted = torch.zeros_like(seen)
    for number, places in enumerate(lookups.wanted):
        wanted[number, places] = True
    queries = projected(model, rows, trace, heads, "q")
    keys = projected(model, rows, trace, heads, "k")
    scale = model.config.head_dim**-0.5
    losses, shares = [], []
    with ops.exact(device):
        for query, key in zip(queries, keys, strict=True):
            asked = query[row, place].float()[:, None]
            scores = (asked @ key[row].float().transpose(1, 2)).squeeze(1) * scale
            scores = scores.masked_fill(~seen, _FAR)
            loss = scores.logsumexp(1) - scores.masked_fill(~wanted, _FAR).logsumexp(1)
            losses.append(loss.mean())
            shares.append((-loss.detach()).exp().mean())
    return torch.stack(losses).mean(), float(torch.stack(shares).mean())
