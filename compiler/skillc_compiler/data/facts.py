"""What a generated skill states: commands, literals, conventions, prohibitions, as facts."""

from __future__ import annotations

import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from skillc_compiler.data.commands import (
    Shape,
    alike_shape,
    command,
    house_shape,
    shapes,
    wild_shape,
)
from skillc_compiler.data.forms import Forms, thinned
from skillc_compiler.data.lexicon import Intent, Lexicon, Saying
from skillc_compiler.data.words import Words

# How a user turns an infinitive phrase into a request; test frames never occur in training.
_HOUSE = 0.35  # share of projects that run most of their commands through a script of their own
# In training: shares of projects with commands of no shape, of commands from elsewhere, of requests
# in no frame, and of phrases that lack some words.
_WILD, _FOREIGN, _FREE, _THIN = 0.35, 0.15, 0.4, 0.25
_LOST = 0.2  # share of words that a thinned phrase lacks
_ASKS = {
    "train": (
        "How do I {say}?", "How can I {say}?", "What is the command to {say}?", "I want to {say}.",
        "I need to {say}.", "{Say}.", "{Say}, please.", "Which command do I use to {say}?",
        "Could you {say}?", "What do I run to {say}?", "Show me how to {say}.", "We have to {say}.",
        "how to {say}", "Time to {say}.", "Can you {say} for me?", "I would like to {say} now.",
        "What should I type to {say}?", "Let us {say}.", "Tell me how we {say} here.",
    ),
    "test": (
        "What lets me {say}?", "My job is to {say}.", "Go ahead and {say}.",
        "Is there a way to {say}?",
        "By what means do you {say}?",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One checkable statement: `say` for the document, `ask` for the user, `answer` to expect.

    A command's `say` is an infinitive phrase; every other kind's is a whole sentence. `near` are
    answers that are right up to one part: another's input in a name, nothing behind a verb.
    """

    kind: str  # command, literal, apply or never
    id: str
    say: str
    head: str
    value: str
    ask: tuple[str, ...]
    answer: str
    near: tuple[str, ...] = ()


class FactMaker:
    """Draws facts with fresh strings from one split's lexicon; some commands from `strings`."""

    def __init__(self, lexicon: Lexicon, rng: random.Random, strings: Sequence[str] = ()) -> None:
        self.lexicon = lexicon
        self.rng = rng
        self.forms = Forms(lexicon.fillers, rng)
        self._strings = strings
        self._free = lexicon.split == "train"  # other splits have what their templates give
        self.words = Words(rng, lexicon.nouns, lexicon.tools)
        self._shapes = shapes(lexicon.split)

    def commands(self, count: int, runner: Shape | None = None) -> list[Fact]:
        """`count` commands of different meaning; some come in pairs that differ in one flag.

        All are of the shape `runner`, if there is one.
        """
        rng = self.rng
        intents = rng.sample(self.lexicon.intents, min(count, len(self.lexicon.intents)))
        runners = [runner] if runner else self._runners()
        facts: list[Fact] = []
        for intent in intents:
            if len(facts) >= count:
                break
            text = command(self.words, rng, rng.choice(runners), intent.words, intent.flags)
            if self._strings and rng.random() < _FOREIGN:
                text = rng.choice(self._strings)
            facts.append(self._command(intent, text, "", ""))
            if self.lexicon.qualifiers and rng.random() < 0.15 and len(facts) < count:
                facts.append(self._variant(intent, text))
        return facts

    def _runners(self) -> list[Shape]:
        """The one to three shapes that a project's commands have."""
        rng = self.rng
        runners = rng.sample(self._shapes, min(rng.choice((1, 2, 2, 3)), len(self._shapes)))
        if self.lexicon.split != "test" and rng.random() < _HOUSE:
            return [house_shape(self.words, rng), *runners[:1]]
        if self._free and rng.random() < _WILD:
            free = rng.choice((wild_shape, alike_shape))
            return [free(self.words, rng), *runners[: rng.choice((0, 1))]]
        return runners

    def lookups(self, count: int) -> list[Fact]:
        """Commands for operations that mean nothing: random words, asked for by the same words.

        Nothing but the words leads to the answer, so a base learns to look one up.
        """
        house = house_shape(self.words, self.rng) if self.rng.random() < _HOUSE else None
        return [self._lookup(house) for _ in range(count)]

    def _lookup(self, house: Shape | None) -> Fact:
        rng = self.rng
        words = [self._plain_word() for _ in range(rng.randint(1, 4))]
        if house is not None and rng.random() < 0.8:
            value = command(self.words, rng, house, [self.words.word()], [])
        else:
            value = self.words.word() if rng.random() < 0.4 else self._value()
        asks = []
        for _ in range(5):
            kept = rng.sample(words, max(1, len(words) - rng.randint(0, 1)))
            phrase = " ".join(kept if rng.random() < 0.5 else words)
            frame = rng.choice(_ASKS["train"]) if rng.random() < 0.7 else "{say}"
            asks.append(frame.format(say=phrase, Say=phrase[:1].upper() + phrase[1:]))
        say = " ".join(words)
        return Fact("command", f"lookup {say}", say, say, value, tuple(asks), value)

    def _plain_word(self) -> str:
        """A word of the phrases in use, or one that exists nowhere."""
        rng = self.rng
        if rng.random() < 0.2:
            return self.words.word()
        intent = rng.choice(self.lexicon.intents)
        spoken = rng.choice(rng.choice((intent.say, intent.ask))).split()
        words = [word for each in spoken if len(word := each.strip(".,?!:;'")) > 3]
        return rng.choice(words) if words else self.words.word()

    def _value(self) -> str:
        return command(self.words, self.rng, self.rng.choice(self._shapes), [self.words.word()], [])

    def _command(self, intent: Intent, text: str, say: str, ask: str) -> Fact:
        rng = self.rng
        suffix = f" {say}" if say else ""
        stated = rng.choice(intent.say)
        asks = self._asks(intent, stated)
        stated = self.thinned(stated)
        return Fact(
            kind="command",
            id=intent.id + (f"+{say}" if say else ""),
            say=stated + suffix,
            head=rng.choice(intent.head) + suffix,
            value=text,
            ask=tuple(f"{each} {ask}" if ask else each for each in asks),
            answer=text,
        )

    def _asks(self, intent: Intent, stated: str) -> list[str]:
        """Five candidates: two indirect questions, two in other words, one in the document's."""
        rng = self.rng
        frames = _ASKS["test" if self.lexicon.split == "test" else "train"]
        asks = [rng.choice(intent.ask) for _ in range(2)]
        for phrase in (*(rng.choice(intent.say) for _ in range(2)), stated):
            if self._free and rng.random() < _FREE:
                asks.append(self.forms.ask(phrase))
                continue
            frame = rng.choice(frames)
            asks.append(frame.format(say=phrase, Say=phrase[:1].upper() + phrase[1:]))
        return asks

    def thinned(self, phrase: str) -> str:
        """In training often without some of its words."""
        if self._free and self.rng.random() < _THIN:
            return thinned(phrase, self.rng, _LOST)
        return phrase

    def _variant(self, intent: Intent, text: str) -> Fact:
        qualifier = self.rng.choice(self.lexicon.qualifiers)
        ask = self.rng.choice(qualifier.ask)
        return self._command(
            intent,
            f"{text} {self.rng.choice(qualifier.flag)}",
            self.rng.choice(qualifier.say),
            f"({ask})" if self.rng.random() < 0.5 else ask[:1].upper() + ask[1:] + ".",
        )

    def literals(self, count: int) -> list[Fact]:
        """Single values: ports, paths, hosts, variables, names."""
        facts = []
        for saying in self.rng.sample(self.lexicon.literals, count):
            value = self.words.literal(saying.kind)
            head = self.rng.choice(saying.cell) if saying.cell else saying.id.replace("-", " ")
            facts.append(self._stated(saying, "literal", value, value, head))
        return facts

    def prohibitions(self, count: int) -> list[Fact]:
        """Things that must never be done; the answer names the thing."""
        facts = []
        for saying in self.rng.sample(self.lexicon.prohibitions, count):
            if saying.kind == "command":
                shape = self.rng.choice(self._shapes)
                value = command(self.words, self.rng, shape, [self.words.word()], [])
            else:
                value = self.words.literal(saying.kind)
            answer = saying.thing.format(v=value)
            fact = self._stated(saying, "never", value, answer, "Never")
            facts.append(replace(fact, near=(saying.thing.format(v="").rstrip(),)))
        return facts

    def _stated(self, saying: Saying, kind: str, value: str, answer: str, head: str) -> Fact:
        said = self.rng.choice(saying.say)
        say = self.thinned(said).format(v=value)
        return Fact(kind, saying.id, say, head, value, saying.ask, answer)

    def conventions(self, count: int) -> list[Fact]:
        """Naming rules, each with one new input to apply it to."""
        return [self._convention(s) for s in self.rng.sample(self.lexicon.conventions, count)]

    def _convention(self, saying: Saying) -> Fact:
        params = {name: self.words.parameter(kind) for name, kind in saying.params}
        inputs = {name: self.words.parameter(kind) for name, kind in saying.inputs}
        example = {name: self.words.parameter(kind) for name, kind in saying.inputs}
        stated = params | {f"ex_{name}": value for name, value in example.items()}
        stated["ex"] = saying.pattern.format(**params, **example)
        says = [s for s in saying.say if _fields(s) <= stated.keys()]
        answer = saying.pattern.format(**params, **inputs)
        swapped = (inputs | {name: value} for name, value in example.items())
        return Fact(
            kind="apply",
            id=saying.id,
            say=self.rng.choice(says).format(**stated),
            head=saying.id.replace("-", " "),
            value=answer,
            ask=tuple(_fill(ask, params | inputs) for ask in saying.ask),
            answer=answer,
            near=tuple(saying.pattern.format(**params, **each) for each in swapped),
        )


def _fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def _fill(template: str, values: Mapping[str, str]) -> str:
    return template.format(**values)
