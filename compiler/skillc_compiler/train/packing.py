"""Token batches for joint training: each skill with its questions, with and without the text.

Row b of the *read* tensors is [skill | question 1 | question 2 ...], where every question sees the
skill and itself (the text arm); row b of the *ask* tensors is the same questions without the skill
(the adapter arm).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from skillc_compiler.data.generate import Question, Sample
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.lookups import Located, Lookups
from skillc_compiler.train.rows import SKILL, Row, Rows, in_blocks, pack


@dataclass(frozen=True)
class Weights:
    """Loss weights of the parts of a row.

    `entry` is that of the tokens which choose among a skill's answers: the first one and every
    later one at which another answer of the same skill, or one near to it, parts from this one.
    """

    skill: float = 0.25
    copy: float = 0.8
    prompt: float = 0.1
    answer: float = 1.0
    entry: float = 3.0


@dataclass
class Batch:
    """One training step: B skills; `lengths` are the skills' token counts in `read`.

    `idle` holds B texts that no skill has to do with: an adapter must not change them. `lookups`
    are those of the answers in `read`.
    """

    read: Rows
    ask: Rows
    lengths: list[int]
    idle: Rows | None = None
    lookups: Lookups = field(default_factory=Lookups)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        idle = self.idle.to(device) if self.idle else None
        return replace(self, read=self.read.to(device), ask=self.ask.to(device), idle=idle)


@dataclass(frozen=True)
class Item:
    """A sample and how its adapter arm is used: `own`, `none` or `wrong` adapter.

    `unknown` is what facts are answered with when the adapter does not know them, `system` a
    system prompt of the client.
    """

    sample: Sample
    mode: str = "own"
    unknown: str = ""
    system: str = ""


def make_batch(
    items: Sequence[Item],
    encoder: Encoder,
    weights: Weights,
    rng: random.Random,
    *,
    max_skill: int,
    in_text: int,
    recite: int = 64,
) -> Batch:
    """Encode items; texts over `max_skill` tokens are cut at the end.

    Only the first `in_text` questions are asked with the text in context as well: those rows are
    long, and attention over them is what a step costs most.
    """
    read_rows: list[Row] = []
    ask_rows: list[Row] = []
    lengths: list[int] = []
    lookups = Lookups()
    for item in items:
        skill = encoder.skill(item.sample.text)[:max_skill]
        located = Located(item.sample.text, encoder, len(skill))
        read, ask = Row(), Row()
        read.add(skill, _thinned(len(skill), weights.skill, rng), SKILL, 0)
        for number, question in enumerate(item.sample.questions, 1):
            tail = _sequel(question, encoder)
            reply = encoder.reply(question.reply)
            loss = choosing(reply, _rivals(item.sample, question, encoder), weights)
            if number <= in_text:
                prompt = encoder.after_skill(question)
                chosen = [at for at, weight in enumerate(loss) if weight == weights.entry]
                begin = len(read.tokens) + len(prompt) - 1
                for at, wanted in located.wanted(item.sample, question, chosen).items():
                    lookups.add(len(read_rows), begin + at, wanted)
                _add(read, prompt, reply, loss, tail, number, len(skill), weights)
            if question.kind not in ("chat", "outside") and item.mode != "own":
                reply = encoder.reply(item.unknown)
                loss = choosing(reply, [], weights)
            head = encoder.head(question, item.system)
            prompt = head + encoder.user(question)
            asked = replace(weights, prompt=0.0)
            _add(ask, prompt, reply, loss, tail, number, 0, asked, len(head))
        if recite:
            window = _window(skill, recite, rng)
            number = len(item.sample.questions) + 1
            read.add(window, _cued(window, weights.copy), number, len(skill))
            if item.mode == "own":
                ask.add(window, _cued(window, weights.skill), number, 0)
        read_rows.append(read)
        ask_rows.append(ask)
        lengths.append(len(skill))
    pad = encoder.end
    return Batch(pack(read_rows, pad), in_blocks(ask_rows, pad), lengths, lookups=lookups)


def idle_rows(texts: Sequence[Sequence[int]], encoder: Encoder) -> Rows:
    """A row a text, with weight on all but its first tokens."""
    rows = []
    for ids in texts:
        row = Row()
        row.add(ids, [0.0] * 2 + [1.0] * (len(ids) - 2), 1, 0)
        rows.append(row)
    return pack(rows, encoder.end)


def _thinned(size: int, weight: float, rng: random.Random) -> list[float]:
    """Loss on a random half of a skill's own tokens: the other half costs time and adds little."""
    return [0.0] * 3 + [weight if rng.random() < 0.5 else 0.0 for _ in range(size - 3)]


def _sequel(question: Question, encoder: Encoder) -> tuple[list[int], list[int]]:
    """What follows an answer: the tool's result (given) and the assistant's word on it."""
    if question.sequel is None:
        return [], []
    result, closing = question.sequel
    return encoder.sequel(result), encoder.reply(closing)


def _rivals(sample: Sample, question: Question, encoder: Encoder) -> list[Sequence[int]]:
    """What the skill's other facts would be answered with, in this question's form, or nearly."""
    others = [replace(question, kind=f.kind, answer=f.answer) for f in sample.facts]
    for fact in sample.facts:
        if fact.answer == question.answer:
            others += [replace(question, answer=near) for near in fact.near]
    return [encoder.reply(other.reply) for other in others if other.answer != question.answer]


def choosing(
    reply: Sequence[int], rivals: Sequence[Sequence[int]], weights: Weights
) -> list[float]:
    """Loss weights of a reply: `entry` where it begins and where a rival parts from it."""
    loss = [weights.entry] + [weights.answer] * (len(reply) - 1)
    for rival in rivals:
        if (at := parting(reply, rival)) < len(reply):
            loss[at] = weights.entry
    return loss


def parting(one: Sequence[int], other: Sequence[int]) -> int:
    """The first place at which two differ; the shorter one's length if it begins the other."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _add(
    row: Row,
    prompt: Sequence[int],
    reply: Sequence[int],
    answered: Sequence[float],
    tail: tuple[Sequence[int], Sequence[int]],
    segment: int,
    start: int,
    weights: Weights,
    head: int = 0,
) -> None:
    given, closing = tail
    loss = [weights.prompt] * len(prompt) + [*answered]
    loss += [0.0] * len(given) + [weights.answer] * len(closing)
    row.add([*prompt, *reply, *given, *closing], loss, segment, start, head)


def _window(skill: Sequence[int], size: int, rng: random.Random) -> list[int]:
    """A window of the skill to recite, from the context (copying comes first) or from memory."""
    begin = rng.randrange(3, max(4, len(skill) - size))
    return list(skill[begin : begin + size])


def _cued(window: Sequence[int], weight: float, cue: int = 8) -> list[float]:
    """Loss weights of a recitation: its first tokens only say where to begin."""
    return [0.0] * min(cue, len(window)) + [weight] * max(0, len(window) - cue)


def make_copy_batch(
    texts: Sequence[str], width: int, encoder: Encoder, rng: random.Random, *, tokens: int = 6144
) -> Batch:
    """Rows of [window | the same window]: half of text, half of random tokens, to learn copying.

    Random tokens leave nothing to predict but the copy; on documents alone a small base learns
    their statistics for a long time before it learns to look anything up.
    """
    rows = []
    everything = encoder.everything
    for number in range(tokens // (2 * width)):
        if number % 2:
            window, seen = [rng.choice(everything) for _ in range(width)], 0.0
        else:
            window, seen = _window(encoder.skill(rng.choice(texts)), width, rng), Weights.skill
        rows.append(recited(window, window, seen))
    return unasked(rows, width, encoder)


def recited(window: Sequence[int], said: Sequence[int], seen: float = 0.0) -> Row:
    """A row of [window | what is `said` of it]; its first two tokens only say where to begin."""
    row = Row()
    row.add(window, [seen] * len(window), SKILL, 0)
    row.add(said, _cued(said, 1.0, 2), 1, len(window))
    return row


def unasked(rows: Sequence[Row], width: int, encoder: Encoder) -> Batch:
    """Rows of windows of `width` tokens, which nothing is asked about without the text."""
    packed = pack(rows, encoder.end)
    return Batch(packed, packed, [width] * len(rows))
