"""Matching: which line of which document answers a question, said by single attention heads.

A base of a few layers looks a command up with heads that attend, from where the answer begins, to
where commands begin. Trained by answers alone they did find commands, and of those any: of a
document's six, asked for in other words, two heads put 80% and 89% of their attention on commands'
first tokens and a sixth of that on the right one. So these heads are also trained to tell the
right one from all of a batch, across documents (InfoNCE, van den Oord et al., arXiv 1807.03748):
every question is weighed against dozens of lines instead of six, and only the layers below are run.
No weights are added; the heads are those that answer. Commands that begin alike are compared also
where they part: the beginning of an answer with the token that goes on in the line.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skillc_compiler.data.document import statements
from skillc_compiler.data.facts import Fact, FactMaker
from skillc_compiler.data.generate import Generator
from skillc_compiler.families.writer_net import rotary
from skillc_compiler.train import ops
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.nano import Layer, Nano
from skillc_compiler.train.rows import Row, Rows, in_blocks

Heads = Sequence[tuple[int, int]]

_DEPTHS = (0, 0, 0, 1, 2, 3, 4, 6)  # tokens of a command that are said before it is looked up
_LOST = 0.2  # share of words that a thinned phrase lacks
_TOGETHER = 4  # documents a row
_BEFORE = 160  # characters before a command in which its words must stand
_DOCUMENTS, _QUESTIONS = (0, 400), (450, 900)  # where they begin, in tokens


@dataclass
class Matches:
    """Documents and questions, with weights > 0 where they are compared.

    documents: one token of each command or value, K places; questions: what an answer is to go on
    with that token from, K places. same [K, K]: true where the line answers the question.
    """

    documents: Rows
    questions: Rows
    same: Tensor


def make_matches(
    encoder: Encoder, rng: random.Random, *, documents: int, split: str = "train"
) -> Matches:
    """Questions in any wording about lines in any form, one a line."""
    generator = Generator(split, rng.getrandbits(40))
    told: list[Row] = []
    asked: list[Row] = []
    lines: list[tuple[str, int]] = []
    for number in range(documents):
        if number % _TOGETHER == 0:
            told.append(Row())
            asked.append(Row())
        maker = FactMaker(generator.lexicon, rng)
        facts = [_fewer(fact, rng) for fact in maker.commands(rng.randint(2, 4))]
        facts += maker.literals(rng.randint(0, 1))
        text = "\n" + statements(facts, rng, "test" if split == "test" else "train")
        for fact, said in _told(told[-1], encoder, text, facts, rng):
            ask = encoder.plain(generator.decorate(_thinned(rng.choice(fact.ask), rng)))
            ids = encoder.open_user + ask + encoder.close + encoder.open_assistant + said
            _add(asked[-1], ids, [len(ids) - 1], rng.randrange(*_QUESTIONS))
            lines.append((fact.id, len(said)))
    same = torch.tensor([[line == answer for line in lines] for answer in lines])
    return Matches(in_blocks(told, encoder.end), in_blocks(asked, encoder.end), same)


def _thinned(phrase: str, rng: random.Random) -> str:
    """The phrase without some of its words, often: no single word is to be relied on."""
    words = phrase.split()
    if rng.random() < 0.4:
        return phrase
    kept = [word for word in words if rng.random() >= _LOST]
    return " ".join(kept if len(kept) > 1 else words)


def _fewer(fact: Fact, rng: random.Random) -> Fact:
    return replace(fact, say=_thinned(fact.say, rng), head=_thinned(fact.head, rng))


def _told(
    row: Row, encoder: Encoder, text: str, facts: Sequence[Fact], rng: random.Random
) -> list[tuple[Fact, list[int]]]:
    """Adds a document to a row; its comparable facts by place, and what is said before it."""
    encoding = encoder.tokenizer.encode(text, add_special_tokens=False)
    places: dict[int, tuple[Fact, list[int]]] = {}
    for fact in facts:
        at = stated(text, fact)
        token = None if at < 0 else encoding.char_to_token(at)
        if token is None:
            continue
        value = encoder.plain(fact.value)
        depth = min(rng.choice(_DEPTHS), len(value) - 1)
        if encoding.ids[token : token + depth + 1] != value[: depth + 1]:
            depth = 0  # the document's tokens are others, as behind a space
        places[token + depth] = (fact, value[:depth])
    _add(row, encoding.ids, sorted(places), rng.randrange(*_DOCUMENTS))
    return [places[token] for token in sorted(places)]


def _add(row: Row, ids: Sequence[int], places: Sequence[int], start: int) -> None:
    """Adds a segment with a weight at each of its places."""
    begin = len(row.tokens)
    row.add(ids, [0.0] * len(ids), len(row.spans) + 1, start)
    for place in places:
        row.weights[begin + place] = 1.0


def stated(text: str, fact: Fact) -> int:
    """Where the fact's command or value begins, if its words stand shortly before; else -1."""
    words = (fact.head, fact.say) if fact.kind == "command" else (fact.head, fact.say[:12])
    lowered, at = text.lower(), text.find(fact.value)
    while at >= 0:
        before = lowered[max(0, at - _BEFORE) : at]
        if any(each.lower() in before for each in words):
            return at
        at = text.find(fact.value, at + 1)
    return -1


def match(model: Nano, matches: Matches, heads: Heads) -> tuple[Tensor, Tensor]:
    """The mean loss (nats) of finding lines for questions and questions for lines; shares right.

    heads: (layer, head) pairs, each of which is to tell the right line on its own.
    """
    documents = _below(model, matches.documents, heads, "k")
    questions = _below(model, matches.questions, heads, "q")
    losses, right = [], []
    for key, query in zip(documents, questions, strict=True):
        scores = (query @ key.T).float() * key.shape[-1] ** -0.5
        losses += [_nce(scores, matches.same), _nce(scores.T, matches.same.T)]
        best = scores.detach().argmax(1, keepdim=True)
        right.append(matches.same.gather(1, best).float().mean())
    return torch.stack(losses).mean(), torch.stack(right)


def _nce(scores: Tensor, same: Tensor) -> Tensor:
    right = scores.masked_fill(~same, float("-inf")).logsumexp(1)
    return (scores.logsumexp(1) - right).mean()


def _below(model: Nano, rows: Rows, heads: Heads, kind: str) -> list[Tensor]:
    """The queries or keys [places, head_dim] of each head at the places with a weight."""
    config = model.config
    x = model.model.embed_tokens(rows.tokens)
    cos, sin = rotary(rows.positions, config.head_dim, config.rope_theta)
    cos, sin = cos[:, None], sin[:, None]
    mask, picked = rows.mask(), (rows.weights > 0).nonzero(as_tuple=True)
    found: dict[tuple[int, int], Tensor] = {}
    for number, layer in enumerate(model.model.layers):
        assert isinstance(layer, Layer)
        for head in (head for at, head in heads if at == number):
            all_ = _projected(layer, x, cos, sin, kind)
            found[number, head] = all_[picked[0], head, picked[1]]
        if number == max(at for at, _ in heads):
            break
        x, _ = layer(x, mask, cos, sin)
    return [found[head] for head in heads]


def _projected(layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, kind: str) -> Tensor:
    """[B, heads, L, head_dim]: a layer's queries ("q") or keys ("k")."""
    attention = layer.self_attn
    project, norm = attention.q_proj, attention.q_norm
    if kind == "k":
        project, norm = attention.k_proj, attention.k_norm
    parts = project(layer.input_layernorm(x)).unflatten(-1, (-1, attention.config.head_dim))
    turned: Tensor = ops.head(parts, norm.weight, cos, sin, norm.eps)
    return turned
