"""Lines of many short documents, and a question about each in other words, to be told apart."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skillc_compiler.data.commands import Shape, alike_shape
from skillc_compiler.data.document import statements
from skillc_compiler.data.facts import Fact, FactMaker
from skillc_compiler.data.forms import thinned
from skillc_compiler.data.generate import Generator
from skillc_compiler.data.words import Words
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.packing import parting
from skillc_compiler.train.rows import Row, Rows, in_blocks, pack

_ALIKE = 0.5  # share of batches whose commands all begin alike
_DEEP = 0.7  # share of commands looked up where they part from another
_LOST = 0.2  # share of words that a thinned phrase lacks
_BEFORE = 160  # characters before a command in which its words must stand
_DOCUMENTS, _QUESTIONS = (0, 400), (450, 900)  # where they begin, in tokens


@dataclass
class Matches:
    """Documents and questions, with weights > 0 where they are compared.

    documents: one token of each command or value, K places; questions: the last token before that
    one in the answer, K places. same [K, K]: true where the line answers the question; near [K, K]:
    where it may. lengths: of the documents, in tokens.
    """

    documents: Rows
    questions: Rows
    same: Tensor
    near: Tensor
    lengths: list[int]

    def to(self, device: torch.device) -> Matches:
        """The same on `device`."""
        documents, questions = self.documents.to(device), self.questions.to(device)
        same, near = self.same.to(device), self.near.to(device)
        return Matches(documents, questions, same, near, self.lengths)


def make_matches(
    encoder: Encoder, rng: random.Random, *, documents: int, split: str = "train"
) -> Matches:
    """Questions in any wording about lines in any form, one a line, of at least so many documents.

    There are two lines at least. In half of the batches all commands begin alike, so that what
    they are for is all that tells them apart, in every document.
    """
    generator = Generator(split, rng.getrandbits(40))
    words = Words(rng, generator.lexicon.nouns, generator.lexicon.tools)
    runner = alike_shape(words, rng) if rng.random() < _ALIKE else None
    alike = _alike(encoder, runner, words, rng) if runner else 0
    told: list[Row] = []
    asked: list[Row] = []
    lines: list[tuple[str, tuple[int, ...]]] = []
    while len(told) < documents or len(lines) < 2:
        facts = _facts(FactMaker(generator.lexicon, rng), rng, runner)
        told.append(Row())
        asked.append(Row())
        text = statements(facts, rng, split)
        for fact, said in _told(told[-1], encoder, text, facts, rng, alike):
            ask = generator.decorate(_thinned(rng.choice(fact.ask), rng))
            asking = encoder.turns(ask) + said
            _add(asked[-1], asking, [len(asking) - 1], rng.randrange(*_QUESTIONS))
            lines.append((fact.id, tuple(said)))
    same = torch.tensor([[line == answer for line in lines] for answer in lines])
    ids = [line.partition("+")[0] for line, _ in lines]
    near = torch.tensor([[line == answer for line in ids] for answer in ids])
    lengths = [len(row.tokens) for row in told]
    return Matches(pack(told, encoder.end), in_blocks(asked, encoder.end), same, near, lengths)


def _alike(encoder: Encoder, runner: Shape, words: Words, rng: random.Random) -> int:
    """How many tokens all commands of a shape begin with."""
    drawn = [encoder.plain(runner(words, rng, words.word(), "")) for _ in range(4)]
    return min(parting(one, other) for one, other in itertools.combinations(drawn, 2))


def _facts(maker: FactMaker, rng: random.Random, runner: Shape | None) -> list[Fact]:
    facts = [_fewer(fact, rng) for fact in maker.commands(rng.randint(1, 3), runner)]
    return facts + maker.literals(rng.randint(0, 2)) + maker.prohibitions(rng.randint(0, 1))


def _thinned(phrase: str, rng: random.Random) -> str:
    """The phrase without some of its words, often: no single word is to be relied on."""
    return phrase if rng.random() < 0.4 else thinned(phrase, rng, _LOST)


def _fewer(fact: Fact, rng: random.Random) -> Fact:
    return replace(fact, say=_thinned(fact.say, rng), head=_thinned(fact.head, rng))


def _told(
    row: Row,
    encoder: Encoder,
    text: str,
    facts: Sequence[Fact],
    rng: random.Random,
    alike: int,
) -> list[tuple[Fact, list[int]]]:
    """Adds a document to a row; its comparable facts by place, and what is said before it.

    Where all commands begin with so many tokens `alike`, most are compared behind those.
    """
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
        if alike and fact.kind == "command":
            partings = [alike]
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
    at = fact.answer.find(fact.value)
    token = encoding.char_to_token(at) if at > 0 else 0
    return list(encoding.ids[: token or 0])


def _add(row: Row, ids: Sequence[int], places: Sequence[int], start: int) -> None:
    """Adds a segment with a weight at each of its places."""
    begin = len(row.tokens)
    row.add(ids, [0.0] * len(ids), len(row.spans) + 1, start)
    for place in places:
        row.weights[begin + place] = 1.0


def stated(text: str, fact: Fact) -> int:
    """Where the fact's command or value begins, if its words stand shortly before; else -1.

    Also -1 for what is answered without its value.
    """
    if fact.value not in fact.answer:
        return -1
    words = (fact.head, fact.say) if fact.kind == "command" else (fact.head, fact.say[:12])
    lowered, at = text.lower(), text.find(fact.value)
    while at >= 0:
        before = lowered[max(0, at - _BEFORE) : at]
        longer = text.startswith(" -", at + len(fact.value))  # another command with one more flag
        if not longer and any(each.lower() in before for each in words):
            return at
        at = text.find(fact.value, at + 1)
    return -1
