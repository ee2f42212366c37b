"""The generator of skills with questions: fresh strings in every sample, no wording shared."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from skillc_compiler.data.document import body
from skillc_compiler.data.facts import Fact, FactMaker
from skillc_compiler.data.lexicon import Lexicon, load
from skillc_compiler.data.tools import Tools, outcome, shell_call, shell_tool

UNKNOWN = "I do not know: no skill here covers that."
"""The answer to everything that no skill in use covers."""

_DECORATIONS = {
    "train": (
        "{ask}", "{ask}", "{ask}", "{ask}", "{ask} Just the answer.", "Quick question: {ask}",
        "{ask} Thanks!", "Please tell me: {ask}", "Hi! {ask}", "{ask} Be brief.",
        "In this project: {ask}",
    ),
    "test": ("{ask}", "{ask}", "{ask} Answer in one line.", "One thing: {ask}", "Hello, {ask}"),
}  # fmt: skip


_REMARKS = 0.4  # share of training questions that have any remark beside them


@dataclass(frozen=True)
class Question:
    """What a user asks of one skill and the literal answer; `tools` are OpenAI tool schemas.

    `sequel` is what the answer's tool call returned and what the assistant says to that.
    """

    kind: str  # command, literal, apply, never, outside or chat
    ask: str
    answer: str
    tools: Tools = ()
    sequel: tuple[str, str] | None = None

    @property
    def reply(self) -> str:
        """The assistant's whole text: the answer, or the tool call that runs it."""
        return shell_call(self.tools, self.answer) if self.calls else self.answer

    @property
    def calls(self) -> bool:
        """Is it answered by a tool call?"""
        return self.kind == "command" and bool(self.tools)


@dataclass(frozen=True)
class Sample:
    """A generated skill in canonical text, with questions about it."""

    name: str
    text: str
    questions: tuple[Question, ...]
    facts: tuple[Fact, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Shape:
    """How large and how distracting the generated documents are.

    `others` is the chance of each fact to be no command; some commands are taken from `strings`.
    With `lookup`, operations are random words that are asked for by themselves, and in a share
    `inverted` of the documents every command stands before them.
    """

    facts: tuple[int, int] = (3, 8)
    questions: int = 6
    filler: float = 0.3
    tools: float = 0.25
    outside: float = 0.1
    chat: float = 0.05
    lookup: bool = False
    inverted: float = 0.0
    others: float = 0.35
    strings: tuple[str, ...] = field(default=(), repr=False)


class Generator:
    """An endless, seeded stream of samples of one split (train, val, test)."""

    def __init__(self, split: str, seed: int, shape: Shape | None = None) -> None:
        self.lexicon: Lexicon = load(split)
        self.rng = random.Random(f"{split}-{seed}")
        self.shape = shape or Shape()
        self._maker = FactMaker(self.lexicon, self.rng, self.shape.strings)

    def __iter__(self) -> Iterator[Sample]:
        while True:
            yield self.sample()

    def sample(self) -> Sample:
        """One skill with `shape.questions` questions."""
        rng = self.rng
        count = rng.randint(*self.shape.facts)
        facts = self._maker.lookups(count) if self.shape.lookup else self._facts(count)
        project = rng.choice(self.lexicon.projects)
        if rng.random() < 0.5:
            project = self._maker.words.invented() + rng.choice(("", "", "-", "er", "ly"))
        name = project.strip("-") + (f"-{self._maker.words.word()}" if rng.random() < 0.6 else "")
        text = self._text(name, project.strip("-"), facts)
        questions = tuple(self._questions(facts))
        return Sample(name, text, questions, tuple(facts))

    def _facts(self, count: int) -> list[Fact]:
        rng = self.rng
        others = sum(rng.random() < self.shape.others for _ in range(count))
        others = min(others, count - 1)
        facts = self._maker.commands(count - others)
        literals = sum(rng.random() < 0.5 for _ in range(others))
        conventions = sum(rng.random() < 0.6 for _ in range(others - literals))
        facts += self._maker.literals(literals)
        facts += self._maker.conventions(conventions)
        facts += self._maker.prohibitions(others - literals - conventions)
        return facts

    def _text(self, name: str, project: str, facts: list[Fact]) -> str:
        rng = self.rng
        commands = [fact.head.lower() for fact in facts if fact.kind == "command"]
        area = ", ".join(rng.sample(commands, min(len(commands), rng.randint(1, 3))))
        description = rng.choice(self.lexicon.descriptions).format(project=project, area=area)
        title = project.capitalize() if rng.random() < 0.6 else name
        inverted = self.shape.lookup and rng.random() < self.shape.inverted
        markdown = body(
            title, facts, self.lexicon, rng, filler=self.shape.filler, inverted=inverted
        )
        return f"---\nname: {name}\ndescription: {description}\n---\n\n{markdown}\n"

    def _questions(self, facts: list[Fact]) -> Iterator[Question]:
        rng, shape = self.rng, self.shape
        tools = (shell_tool(rng),) if rng.random() < shape.tools else ()
        order = rng.sample(facts, len(facts))
        covered = {fact.id for fact in facts}
        for i in range(shape.questions):
            draw = rng.random()
            if draw < shape.chat:
                ask, answer = rng.choice(self.lexicon.chat)
                yield Question("chat", ask, answer, tools)
            elif draw < shape.chat + shape.outside:
                yield Question("outside", self.decorate(self._uncovered(covered)), UNKNOWN, tools)
            else:
                fact = order[i % len(order)]
                ask = rng.choice(fact.ask)
                if fact.kind != "apply":  # whose words are what the rule is applied to
                    ask = self._maker.thinned(ask)
                ask = self.decorate(ask)
                yield Question(fact.kind, ask, fact.answer, tools)

    def with_tools(self, sample: Sample, tools: Tools, sequels: float) -> Sample:
        """The sample asked with `tools`, a shell among them; some calls have their result."""
        questions = []
        for question in sample.questions:
            asked = replace(question, tools=tools)
            if asked.calls and self.rng.random() < sequels:
                asked = replace(asked, sequel=outcome(self._maker.words, self.rng))
            questions.append(asked)
        return replace(sample, questions=tuple(questions))

    def _uncovered(self, covered: set[str]) -> str:
        """A question that no fact of this skill answers: general, or about another operation."""
        rng = self.rng
        if rng.random() < 0.5:
            return rng.choice(self.lexicon.outside)
        while True:
            intent = rng.choice(self.lexicon.intents)
            if intent.id not in covered:
                return rng.choice(intent.ask)

    def decorate(self, ask: str) -> str:
        """The question with a polite or hurried frame around it."""
        if self.lexicon.split == "train" and self.rng.random() < _REMARKS:
            return self._maker.forms.around(ask)
        split = "test" if self.lexicon.split == "test" else "train"
        return self.rng.choice(_DECORATIONS[split]).format(ask=ask)
