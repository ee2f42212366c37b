"""Matching: which line of which document answers a question, said by single attention heads.

A base of a few layers looks a command up with heads that attend, from where the answer begins, to
where commands begin. Trained by answers alone they did find commands, and of those any: of a
document's six, asked for in other words, two heads put 80% and 89% of their attention on commands'
first tokens and a sixth of that on the right one. So these heads are also trained to tell the
right one from all of a batch, across documents (InfoNCE, van den Oord et al., arXiv 1807.03748):
every question is weighed against dozens of lines instead of six. No weights are added; the heads
are those that answer. Commands that begin alike are compared also where they part: the beginning of
an answer with the token that goes on in the line. A writer's keys are taught in the same way.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skillc_compiler.data.document import statements
from skillc_compiler.data.facts import Fact, FactMaker
from skillc_compiler.data.forms import thinned
from skillc_compiler.data.generate import Generator
from skillc_compiler.families.writer_net import WriterNet, rotary
from skillc_compiler.train import ops
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.nano import Layer, Nano, Trace
from skillc_compiler.train.packing import parting
from skillc_compiler.train.recipe import Matchers
from skillc_compiler.train.rows import Row, Rows, in_blocks, pack
from skillc_compiler.train.step import read_skill

Heads = Sequence[tuple[int, int]]

_STANDING_OUT = 3.0  # the weight of a score's distance from the mean, in standard deviations
_DEEP = 0.7  # share of commands looked up where they part from another of their document
_LOST = 0.2  # share of words that a thinned phrase lacks
_BEFORE = 160  # characters before a command in which its words must stand
_DOCUMENTS, _QUESTIONS = (0, 400), (450, 900)  # where they begin, in tokens


@dataclass
class Matches:
    """Documents and questions, with weights > 0 where they are compared.

    documents: one token of each command or value, K places; questions: the last token before that
    one in the answer, K places. same [K, K]: true where the line answers the question.
    lengths: of the documents, in tokens.
    """

    documents: Rows
    questions: Rows
    same: Tensor
    lengths: list[int]


def make_matches(
    encoder: Encoder, rng: random.Random, *, documents: int, split: str = "train"
) -> Matches:
    """Questions in any wording about lines in any form, one a line, of at least so many documents.

    There are two lines at least.
    """
    generator = Generator(split, rng.getrandbits(40))
    told: list[Row] = []
    asked: list[Row] = []
    lines: list[tuple[str, tuple[int, ...]]] = []
    while len(told) < documents or len(lines) < 2:
        told.append(Row())
        asked.append(Row())
        maker = FactMaker(generator.lexicon, rng)
        facts = [_fewer(fact, rng) for fact in maker.commands(rng.randint(2, 4))]
        facts += maker.literals(rng.randint(0, 2)) + maker.prohibitions(rng.randint(0, 1))
        text = statements(facts, rng, split)
        for fact, said in _told(told[-1], encoder, text, facts, rng):
            ids = encoder.turns(generator.decorate(_thinned(rng.choice(fact.ask), rng))) + said
            _add(asked[-1], ids, [len(ids) - 1], rng.randrange(*_QUESTIONS))
            lines.append((fact.id, tuple(said)))
    same = torch.tensor([[line == answer for line in lines] for answer in lines])
    lengths = [len(row.tokens) for row in told]
    return Matches(pack(told, encoder.end), in_blocks(asked, encoder.end), same, lengths)


def _thinned(phrase: str, rng: random.Random) -> str:
    """The phrase without some of its words, often: no single word is to be relied on."""
    return phrase if rng.random() < 0.4 else thinned(phrase, rng, _LOST)


def _fewer(fact: Fact, rng: random.Random) -> Fact:
    return replace(fact, say=_thinned(fact.say, rng), head=_thinned(fact.head, rng))


def _told(
    row: Row, encoder: Encoder, text: str, facts: Sequence[Fact], rng: random.Random
) -> list[tuple[Fact, list[int]]]:
    """Adds a document to a row; its comparable facts by place, and what is said before it."""
    encoding = encoder.tokenizer.encode(text, add_special_tokens=False)
    before = [*encoder.open_system, *encoder.newline]
    values = {fact.value: encoder.plain(fact.value) for fact in facts}
    places: dict[int, tuple[Fact, list[int]]] = {}
    for fact in facts:
        at = stated(text, fact)
        token = None if at < 0 else encoding.char_to_token(at)
        if token is None:
            continue
        value = values[fact.value]
        partings = sorted({parting(value, each) for each in values.values()} - {0, len(value)})
        verb = _verb(encoder, fact)
        depth = rng.choice(partings) if partings and not verb and rng.random() < _DEEP else 0
        if encoding.ids[token : token + depth + 1] != value[: depth + 1]:
            depth = 0  # the document's tokens are others, as behind a space
        places[len(before) + token + depth] = (fact, verb + value[:depth])
    _add(row, before + encoding.ids, sorted(places), rng.randrange(*_DOCUMENTS))
    return [places[token] for token in sorted(places)]


def _verb(encoder: Encoder, fact: Fact) -> list[int]:
    """What an answer says before its value: `rebasing` a branch."""
    encoding = encoder.tokenizer.encode(fact.answer, add_special_tokens=False)
    token = encoding.char_to_token(fact.answer.find(fact.value))
    return list(encoding.ids[: token or 0])


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
        longer = text.startswith(" -", at + len(fact.value))  # another command with one more flag
        if not longer and any(each.lower() in before for each in words):
            return at
        at = text.find(fact.value, at + 1)
    return -1


def compare(
    model: Nano, writer: WriterNet | None, matches: Matches, matchers: Matchers
) -> dict[str, Found]:
    """How well lines are told apart: `match` by the heads, `match_writes` by a writer's keys."""
    told = _trace(model, matches.documents, writer.config.sites if writer else ())
    found = {"match": _by_heads(model, matches, told, matchers.heads)}
    if writer is not None:
        found["match_writes"] = _by_keys(model, writer, matches, told, matchers.sites)
    return found


def _by_heads(model: Nano, matches: Matches, told: Trace, heads: Heads) -> Found:
    """How well each of the heads (layer, head) tells the right line on its own."""
    documents = _projected(model, matches.documents, told, heads, "k")
    questions = _projected(model, matches.questions, _trace(model, matches.questions), heads, "q")
    scale = model.config.head_dim**-0.5
    with torch.autocast("cpu", enabled=False):
        scores = [
            query.float() @ key.float().T * scale
            for query, key in zip(questions, documents, strict=True)
        ]
        return _found(scores, matches.same)


def _by_keys(
    model: Nano, writer: WriterNet, matches: Matches, told: Trace, layers: Sequence[int]
) -> Found:
    """How well a writer's keys at these layers tell lines apart by what `down_proj` is given.

    A write adds up all its values, each weighed by its key: what counts is how far the right one
    stands out. So the weights of a question are compared after division by their own spread. The
    writes of a question's own document are attached while it is read, as when it is answered. No
    gradient reaches what the base read in the documents.
    """
    sites = writer.config.sites
    with torch.no_grad():
        reading = read_skill(model, told, matches.documents, matches.lengths)
    memories = writer(reading)
    writes = dict(zip(sites, memories, strict=True))
    rows = matches.questions
    asked = model(rows.tokens, rows.positions, rows.mask(), writes, sites=sites)
    at, of = _places(matches.documents), _places(rows)
    scores = []
    with torch.autocast("cpu", enabled=False):
        for layer in layers:
            site = sites.index(layer)
            weights = asked.inputs[site][of].float() @ memories[site][0][at].float().T
            weights = weights - weights.mean(1, keepdim=True)
            scores.append(_STANDING_OUT * weights / weights.std(1, keepdim=True).clamp_min(1e-6))
        return _found(scores, matches.same)


@dataclass
class Found:
    """The mean loss (nats) of finding lines for questions and the reverse; each one's share right.

    right: [heads or layers], float32.
    """

    loss: Tensor
    right: Tensor


def _found(scores: Sequence[Tensor], same: Tensor) -> Found:
    losses, right = [], []
    for each in scores:
        losses += [_nce(each, same), _nce(each.T, same.T)]
        best = each.detach().argmax(1, keepdim=True)
        right.append(same.gather(1, best).float().mean())
    return Found(torch.stack(losses).mean(), torch.stack(right))


def _nce(scores: Tensor, same: Tensor) -> Tensor:
    right = scores.masked_fill(~same, float("-inf")).logsumexp(1)
    return (scores.logsumexp(1) - right).mean()


def _places(rows: Rows) -> tuple[Tensor, ...]:
    return (rows.weights > 0).nonzero(as_tuple=True)


def _trace(model: Nano, rows: Rows, sites: Sequence[int] = ()) -> Trace:
    trace: Trace = model(rows.tokens, rows.positions, rows.mask(), sites=sites)
    return trace


def _projected(model: Nano, rows: Rows, trace: Trace, heads: Heads, kind: str) -> list[Tensor]:
    """Queries ("q") or keys ("k") [places, head_dim] of each head at the places with a weight."""
    config = model.config
    cos, sin = rotary(rows.positions, config.head_dim, config.rope_theta)
    cos, sin = cos[:, None], sin[:, None]
    row, place = _places(rows)
    found = []
    for number, head in heads:
        layer = model.model.layers[number]
        assert isinstance(layer, Layer)
        attention, at = layer.self_attn, head
        project, norm = attention.q_proj, attention.q_norm
        if kind == "k":
            project, norm = attention.k_proj, attention.k_norm
            at = head * config.num_key_value_heads // config.num_attention_heads
        parts = project(layer.input_layernorm(trace.states[number]))
        parts = parts.unflatten(-1, (-1, config.head_dim))
        found.append(ops.head(parts, norm.weight, cos, sin, norm.eps)[row, at, place])
    return found
