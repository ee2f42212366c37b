"""Token batches for joint training: each skill with its questions, with and without the text.

Row b of the *read* tensors is [skill | question 1 | question 2 ...], where every question sees the
skill and itself (the text arm); row b of the *ask* tensors is the same questions without the skill
(the adapter arm). Chat pieces are encoded one by one, as the server does, so that special tokens
in user text stay text.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from skillc_compiler.chat import IM_END, IM_START
from skillc_compiler.data.generate import Question, Sample

SKILL = 0  # segment of the skill's own tokens; questions count from 1; padding is -1
IGNORE = -100


@dataclass(frozen=True)
class Weights:
    """Loss weights of the parts of a row."""

    skill: float = 0.25
    copy: float = 0.8
    prompt: float = 0.1
    answer: float = 1.0
    entry: float = 3.0


@dataclass
class Rows:
    """tokens, positions, segments, labels [B, L] int64; weights [B, L] float32.

    Attention stays within blocks of `block` tokens; no segment crosses a block's border.
    """

    tokens: Tensor
    positions: Tensor
    segments: Tensor
    labels: Tensor
    weights: Tensor
    block: int

    def mask(self) -> Tensor:
        """[blocks, 1, block, block]: causal, own segment and, for questions, the skill's."""
        segments = self.segments.view(-1, self.block)
        own = segments[:, :, None] == segments[:, None, :]
        skill = (segments == SKILL)[:, None, :] & (segments >= SKILL)[:, :, None]
        causal = torch.ones(self.block, self.block, dtype=torch.bool).tril()
        return ((own | skill) & causal)[:, None]


@dataclass
class Batch:
    """One training step: B skills; `lengths` are the skills' token counts in `read`."""

    read: Rows
    ask: Rows
    lengths: list[int]


class Encoder:
    """Text to token ids; template pieces and contents apart."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.start = self._special(IM_START)
        self.end = self._special(IM_END)
        self.newline = self.plain("\n")
        self.open_system = [self.start, *self.plain("system\n")]
        self.open_user = [self.start, *self.plain("user\n")]
        self.open_assistant = [self.start, *self.plain("assistant\n")]
        self.close = [self.end, *self.newline]
        self._calls = {
            tag: self._special(tag)
            for tag in ("<tool_call>", "</tool_call>", "<tools>", "</tools>")
        }

    def _special(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no token {token}")
        return int(found)

    def plain(self, text: str) -> list[int]:
        """Ids of ordinary text; special tokens in it are recognised only where they are added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def skill(self, text: str) -> list[int]:
        """The system turn up to and including the skill's text."""
        return self.open_system + self.plain(text)

    def tools(self, question: Question) -> list[int]:
        """The template's tool block without what stands around it."""
        if not question.tools:
            return []
        lines = "".join(json.dumps(tool, ensure_ascii=False) + "\n" for tool in question.tools)
        return self.plain(f"<tools>\n{lines}</tools>")

    def after_skill(self, question: Question) -> list[int]:
        """From the end of the skill's text to the start of the answer."""
        return self.tools(question) + self.close + self.user(question)

    def without_skill(self, question: Question, system: str = "") -> list[int]:
        """The whole prompt when no skill's text is given; `system` is the client's own prompt."""
        tools = self.tools(question)
        head: list[int] = []
        if system or tools:
            own = self.plain(system + "\n" if system and tools else system)
            head = self.open_system + own + tools + self.close
        return head + self.user(question)

    def user(self, question: Question) -> list[int]:
        """User turn and the opening of the assistant's."""
        return self.open_user + self.plain(question.ask) + self.close + self.open_assistant

    def reply(self, text: str) -> list[int]:
        """The assistant's text and the end of its turn."""
        return [*self.plain(text), self.end]


class _Row:
    """One row under construction."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.segments: list[int] = []
        self.labels: list[int] = []
        self.weights: list[float] = []
        self.spans: list[tuple[int, int]] = []

    def add(self, ids: Sequence[int], weights: Sequence[float], segment: int, start: int) -> None:
        """Append a segment; weights[i] is the loss weight of predicting ids[i] from ids[:i]."""
        self.spans.append((len(self.tokens), len(self.tokens) + len(ids)))
        self.tokens += ids
        self.positions += range(start, start + len(ids))
        self.segments += [segment] * len(ids)
        self.labels += [*ids[1:], IGNORE]
        self.weights += [*weights[1:], 0.0]

    def fill(self, pad: int, count: int) -> None:
        """Append padding."""
        self.tokens += [pad] * count
        self.positions += [0] * count
        self.segments += [-1] * count
        self.labels += [IGNORE] * count
        self.weights += [0.0] * count

    def copy(self, other: _Row, begin: int, end: int) -> None:
        """Append a span of another row."""
        self.tokens += other.tokens[begin:end]
        self.positions += other.positions[begin:end]
        self.segments += other.segments[begin:end]
        self.labels += other.labels[begin:end]
        self.weights += other.weights[begin:end]


def _ceil(size: int, step: int) -> int:
    return -(-size // step) * step


def in_blocks(rows: Sequence[_Row], pad: int) -> Rows:
    """Pack rows of independent segments so that none crosses the border of a block."""
    longest = _ceil(max(end - begin for row in rows for begin, end in row.spans), 32)
    block = min(range(longest, 2 * longest + 64, 32), key=lambda b: _spread(rows, b))
    spaced = []
    for row in rows:
        out = _Row()
        for begin, end in row.spans:
            if end - begin > (room := block - len(out.tokens) % block):
                out.fill(pad, room)
            out.copy(row, begin, end)
        spaced.append(out)
    return pack(spaced, pad, block)


def _spread(rows: Sequence[_Row], block: int) -> int:
    """The padded length of the longest row when packed into blocks of `block`."""
    most = 0
    for row in rows:
        size = 0
        for begin, end in row.spans:
            room = block - size % block
            size += end - begin + (room if end - begin > room else 0)
        most = max(most, _ceil(size, block))
    return most


def pack(rows: Sequence[_Row], pad: int, block: int = 0) -> Rows:
    """Pad rows to a common length: a multiple of `block`, or of 32 and one block each."""
    length = _ceil(max(len(row.tokens) for row in rows), block or 32)
    count = len(rows)
    tokens = np.full((count, length), pad, dtype=np.int64)
    positions = np.zeros((count, length), dtype=np.int64)
    segments = np.full((count, length), -1, dtype=np.int64)
    labels = np.full((count, length), IGNORE, dtype=np.int64)
    weights = np.zeros((count, length), dtype=np.float32)
    for i, row in enumerate(rows):
        size = len(row.tokens)
        tokens[i, :size], positions[i, :size] = row.tokens, row.positions
        segments[i, :size], labels[i, :size] = row.segments, row.labels
        weights[i, :size] = row.weights
    arrays = (tokens, positions, segments, labels, weights)
    parts = [torch.from_numpy(array) for array in arrays]
    return Rows(parts[0], parts[1], parts[2], parts[3], parts[4], block or length)


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
    read_rows, ask_rows, lengths = [], [], []
    for item in items:
        skill = encoder.skill(item.sample.text)[:max_skill]
        read, ask = _Row(), _Row()
        read.add(skill, _thinned(len(skill), weights.skill, rng), SKILL, 0)
        for number, question in enumerate(item.sample.questions, 1):
            if number <= in_text:
                _add(read, encoder.after_skill(question), encoder.reply(question.reply), number,
                     len(skill), weights, weights.prompt)  # fmt: skip
            fact = question.kind not in ("chat", "outside") and item.mode != "own"
            reply = encoder.reply(item.unknown if fact else question.reply)
            _add(ask, encoder.without_skill(question, item.system), reply, number, 0, weights, 0.0)
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
    return Batch(pack(read_rows, pad), in_blocks(ask_rows, pad), lengths)


def _thinned(size: int, weight: float, rng: random.Random) -> list[float]:
    """Loss on a random half of a skill's own tokens: the other half costs time and adds little."""
    return [0.0] * 3 + [weight if rng.random() < 0.5 else 0.0 for _ in range(size - 3)]


def _add(
    row: _Row,
    prompt: Sequence[int],
    reply: Sequence[int],
    segment: int,
    start: int,
    weights: Weights,
    prompted: float,
) -> None:
    loss = [prompted] * len(prompt) + [weights.entry] + [weights.answer] * (len(reply) - 1)
    row.add([*prompt, *reply], loss, segment, start)


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
    vocab = encoder.tokenizer.get_vocab_size()
    for number in range(tokens // (2 * width)):
        if number % 2:
            window, seen = [rng.randrange(3, vocab) for _ in range(width)], 0.0
        else:
            window, seen = _window(encoder.skill(rng.choice(texts)), width, rng), Weights.skill
        row = _Row()
        row.add(window, [seen] * len(window), SKILL, 0)
        row.add(window, _cued(window, 1.0, 2), 1, len(window))
        rows.append(row)
    packed = pack(rows, encoder.end)
    return Batch(packed, packed, [width] * len(rows))
