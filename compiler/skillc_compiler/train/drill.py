"""Drills of looking up: lists of random words, each with a command, asked for by its words.

A small base that copies does not look up: between the words of a question and the answer stand the
turns of the chat, and between a line's words and its command stands what the line is made of.  A
base that has to learn to look over both at once sees nothing but chance for a long time.  So the
drill begins where copying is the answer, with gaps of any size on both sides, and the far ones
follow from the near ones: 92% after 160 steps of about 500 questions, against chance (18%) with all
gaps at their full size from the start.

Commands that stand in front of their words need what copying forward never does: to find a word and
say what came before it. Windows recited backwards teach that at every token: lists with the command
first, at chance for 300 steps, were at 95% some 20 steps after windows were said backwards.

Commands of one project begin alike (`make test`, `make lint`), so that most of what there is to
choose comes after tokens that many lines share. A base drilled on commands that differ from their
first token on chose right 71% of the time there and 57% later; so commands get shared heads.
Random ones teach it for random ones: 95% there, and 50% in the same lists of commands that a shell
would take. So most lists of the last part have the phrases and commands of generated documents.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from skillc_compiler.data.document import body
from skillc_compiler.data.facts import Fact, FactMaker
from skillc_compiler.data.generate import UNKNOWN
from skillc_compiler.data.lexicon import load
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.packing import Batch, Weights, choosing, recited, unasked
from skillc_compiler.train.rows import SKILL, Row, in_blocks, pack

# Before the words, between them and the command, and after it; and the command first.
_FORWARD = (
    ("- ", ": `", "`\n"), ("- ", ": ", "\n"), ("To", ", run `", "`.\n"),
    ("### ", "\n\n```sh\n", "\n```\n\n"), ("| ", " | `", "` |\n"), ("Use to", ": `", "`.\n"),
)  # fmt: skip
_BACKWARD = (("`", "` is for", ".\n"), ("- `", "`:", "\n"), ("| `", "` |", " |\n"))
_ASKS = (
    ("", ""), ("", "?"), ("How do I", "?"), ("I need to", "."), ("", ", please."),
    ("What is the command to", "?"), ("Can you", " for me?"),
)  # fmt: skip
# From which size of the curriculum on; before the first, gaps are cut short (the bridge).  Commands
# in front of their words come last: windows said backwards, then a bridge of their own.
_PHRASES, _WRAPPED, _SHARED, _TURNED, _MIXED = 0.2, 0.27, 0.33, 0.37, 0.65
_HEADED = 0.45  # commands begin alike
# Of the lists that come last: documents of commands, and lists of phrases.
_TOLD, _SPOKEN = 0.4, 0.4
_STRANGE = 0.15  # share of a document's questions that it does not answer
_BACKWARDS = ((0.3, 0.0), (0.55, 0.6), (1.0, 0.2))  # up to which size, the share of such steps

Ids = list[int]


def backwards(size: float) -> float:
    """The share of steps in which windows are said backwards."""
    return next(share for below, share in _BACKWARDS if size <= below)


@dataclass(frozen=True)
class _Fact:
    words: Ids
    answer: Ids
    asks: tuple[str, ...] = ()  # the words are a phrase: its order stays, others ask for it, too
    strangers: tuple[str, ...] = ()  # questions that nothing in the document answers


class Drill:
    """Makes drill batches of one tokenizer; `size` in [0, 1] is the curriculum's."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @cached_property
    def _words(self) -> Ids:
        """Tokens that are whole lower-case words with their space."""
        vocabulary: dict[str, int] = self._encoder.tokenizer.get_vocab()
        return sorted(
            token
            for text, token in vocabulary.items()
            if len(text) > 3 and text[0] == "Ġ" and text[1:].isalpha() and text[1:].islower()
        )

    def _source(self, rng: random.Random, words: float) -> Sequence[int]:
        """What tokens are drawn from: whole words in a share `words` of the cases, else all."""
        return self._words if rng.random() < words else self._encoder.everything

    def reversed_batch(self, rng: random.Random, *, tokens: int) -> Batch:
        """Rows of [random tokens | the same backwards]; nothing is asked without the text."""
        width = rng.choice((16, 24, 48))
        rows = []
        for _ in range(tokens // (2 * width)):
            source = self._source(rng, 0.3)
            window = [rng.choice(source) for _ in range(width)]
            rows.append(recited(window, window[::-1]))
        return unasked(rows, width, self._encoder)

    def batch(self, rng: random.Random, size: float, weights: Weights, *, tokens: int) -> Batch:
        """Rows of [list | question 1 | ...], and the questions alone, about `tokens` in all."""
        make = self._lists(rng, size)
        read_rows, ask_rows, lengths, used = [], [], [], 0
        while used < tokens:
            skill, facts = make()
            read, ask = self._asked(rng, skill, facts, size, weights)
            read_rows.append(read)
            ask_rows.append(ask)
            lengths.append(len(skill))
            used += len(read.tokens)
        pad = self._encoder.end
        return Batch(pack(read_rows, pad), in_blocks(ask_rows, pad), lengths)

    def _lists(self, rng: random.Random, size: float) -> Callable[[], tuple[Ids, list[_Fact]]]:
        """What makes the lists of one batch, which are of one kind, and their facts."""
        count = rng.choice((3, 5, 8) if size < _SHARED else (4, 8, 12))
        turned = size >= _TURNED and rng.random() < (0.6 if size < _MIXED else 0.35)
        draw = rng.random() if size >= _MIXED else 1.0
        if draw < _TOLD:
            return lambda: self._document(rng, count, turned=turned)
        bridge = size < _PHRASES or (turned and size < _MIXED)
        long = rng.randint(1, 1 if bridge else 3 if size < _WRAPPED else 4)
        most = 1 if bridge else 2 if size < _MIXED else rng.choice((2, 2, 4, 10))
        alike = size >= _HEADED and rng.random() < (0.3 if turned else 0.75)
        cut = bridge or (alike and not turned and rng.random() < 0.6)
        forms = self._forms(rng, turned=turned, bridge=cut)
        heads = rng.choice((1, 1, 2, 3)) if alike else 0

        def make() -> tuple[Ids, list[_Fact]]:
            if draw < _TOLD + _SPOKEN:
                facts = self._spoken(rng, count)
            else:
                facts = self._facts(rng, count, long, most, heads, shared=size >= _SHARED)
            some = forms if size >= _HEADED and rng.random() < 0.3 else [rng.choice(forms)]
            named = size >= _SHARED and rng.random() < 0.5
            return self._list(rng, facts, some, turned=turned, named=named), facts

        return make

    def _asked(
        self, rng: random.Random, skill: Ids, facts: list[_Fact], size: float, weights: Weights
    ) -> tuple[Row, Row]:
        """The list with each of its facts asked twice, and the questions alone."""
        end, close = self._encoder.end, self._encoder.close
        unknown = self._encoder.plain(UNKNOWN) if facts[0].strangers else []
        answers = [fact.answer for fact in facts] + [unknown] * bool(unknown)
        read, ask = Row(), Row()
        read.add(skill, [0.0] * len(skill), SKILL, 0)
        asked = rng.sample(facts, len(facts)) + rng.sample(facts, len(facts))
        for number, fact in enumerate(asked, 1):
            answer = fact.answer
            prompt = self._prompt(rng, fact, facts, size)
            if unknown and rng.random() < _STRANGE:
                answer, prompt = unknown, self._encoder.turns(rng.choice(fact.strangers))
            reply = [*answer, end]
            loss = [0.0] * len(prompt)
            loss += choosing(reply, [each for each in answers if each != answer], weights)
            read.add(close + prompt + reply, [0.0] * len(close) + loss, number, len(skill))
            ask.add(prompt + reply, loss, number, 0)
        return read, ask

    def _facts(
        self, rng: random.Random, count: int, long: int, most: int, heads: int, *, shared: bool
    ) -> list[_Fact]:
        """Facts of `long` words that differ in their set, and in what follows their answers' heads.

        Answers have one token, or up to `most`, after one of so many `heads` (none if 0); some
        words are `shared` by several facts.
        """
        source = self._source(rng, 0.6)
        common = [rng.choice(source) for _ in range(count + 2)]
        begins: list[Ids] = [
            [rng.choice(source) for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 6)))]
            for _ in range(heads)
        ]
        facts: list[_Fact] = []
        seen: set[frozenset[int]] = set()
        taken = {token for head in begins for token in head}
        while len(facts) < count:
            words = [
                rng.choice(common if shared and rng.random() < 0.4 else source) for _ in range(long)
            ]
            answer = [rng.choice(source) for _ in range(rng.choice((1, 1, most)))]
            if frozenset(words) in seen or answer[0] in taken:
                continue
            seen.add(frozenset(words))
            taken.add(answer[0])
            facts.append(_Fact(words, rng.choice(begins) + answer if begins else answer))
        return facts

    def _spoken(self, rng: random.Random, count: int) -> list[_Fact]:
        """Facts with phrases and commands as generated documents have them."""
        return self._distinct(FactMaker(load("train"), rng).lookups, count)[0]

    def _document(self, rng: random.Random, count: int, *, turned: bool) -> tuple[Ids, list[_Fact]]:
        """Commands laid out as a generated document, and questions in any wording."""
        lexicon = load("train")
        maker = FactMaker(lexicon, rng)
        make = maker.lookups if rng.random() < 0.3 else maker.commands
        facts, told = self._distinct(make, count)
        covered = {fact.id for fact in told}
        others = [fact for fact in make(4) if fact.id not in covered]
        strangers = (*(rng.choice(fact.ask) for fact in others), rng.choice(lexicon.outside))
        title = rng.choice(lexicon.projects)
        text = body(title, told, lexicon, rng, filler=0.0, inverted=turned)
        facts = [replace(fact, strangers=strangers) for fact in facts]
        return self._encoder.skill("\n" + text + "\n"), facts

    def _distinct(
        self, make: Callable[[int], list[Fact]], count: int
    ) -> tuple[list[_Fact], list[Fact]]:
        """Facts that differ in their phrases and in their commands, and what they were made of."""
        plain = self._encoder.plain
        facts: dict[frozenset[int], _Fact] = {}
        kept: list[Fact] = []
        ids: set[str] = set()
        answers: set[str] = set()
        while len(facts) < count:
            for fact in make(count - len(facts)):
                words = plain(" " + fact.say)
                known = frozenset(words) in facts or fact.value in answers or fact.id in ids
                if not known:
                    answers.add(fact.value)
                    ids.add(fact.id)
                    kept.append(fact)
                    facts[frozenset(words)] = _Fact(words, plain(fact.value), fact.ask)
        return list(facts.values()), kept

    def _forms(self, rng: random.Random, *, turned: bool, bridge: bool) -> list[list[Ids]]:
        """What stands before, between and after a line's two parts; for a `bridge`, cut short."""
        plain = self._encoder.plain
        forms = [[plain(part) for part in form] for form in (_BACKWARD if turned else _FORWARD)]
        if bridge:
            forms = [rng.choice(forms)]
            forms[0][1] = forms[0][1][: rng.choice((0, 0, 1, 2, 3, 9))]
        return forms

    def _list(
        self,
        rng: random.Random,
        facts: Sequence[_Fact],
        forms: Sequence[Sequence[Ids]],
        *,
        turned: bool,
        named: bool,
    ) -> Ids:
        """The facts, a line each; some of their words may also be `named` in an introduction."""
        plain = self._encoder.plain
        ids = [*self._encoder.skill("\n# "), rng.choice(self._words), *plain("\n\n")]
        if named:
            ids += plain("This is how")
            for fact in rng.sample(facts, rng.randint(1, min(4, len(facts)))):
                ids += [*fact.words, *plain(",")]
            ids += plain(" is done.\n\n")
        for fact in facts:
            before, between, after = rng.choice(forms)
            first, second = (fact.answer, fact.words) if turned else (fact.words, fact.answer)
            ids += before + first + between + second + after
        return ids

    def _prompt(self, rng: random.Random, fact: _Fact, facts: Sequence[_Fact], size: float) -> Ids:
        """The question up to the answer; while bridging, cut anywhere behind its words."""
        if fact.strangers:
            return self._encoder.turns(rng.choice(fact.asks))
        encoder, words = self._encoder, list(fact.words)
        before, after = rng.choice(_ASKS) if size >= _WRAPPED else ("", "")
        if size >= _WRAPPED and not fact.asks and rng.random() < 0.3:
            rng.shuffle(words)
        if not fact.asks and size >= _SHARED and len(words) > 2 and rng.random() < 0.3:
            fewer = words[1:]
            if sum(set(fewer) <= set(other.words) for other in facts) == 1:
                words = fewer
        tail = encoder.plain(after) + encoder.close + encoder.open_assistant
        if size < _PHRASES:
            tail = tail[: rng.choice((0, 0, 1, 2, 3, 4, len(tail), len(tail)))]
        return encoder.open_user + encoder.plain(before) + words + tail
