"""What a skill's text itself gives to ask: its code spans, headings and sentences."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from skillc_compiler.skill import Skill

CODE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#{1,6}\s+(.*)$")
FENCE = re.compile(r"^\s*(```|~~~)")
BULLET = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+")
SENTENCE = re.compile(r"(?<=[.!?])\s+")
RECITED = 240
"""Characters of text in one recitation."""

_SPAN_ASKS = (
    "{topic}: what is the exact command, path or name?",
    "How do I do this: {topic}?",
    "{topic}?",
    "What do I use here: {topic}",
)
_SENTENCE_ASKS = ("What applies here: {topic}?", "{topic}: how does it go on?", "Tell me: {topic}?")
_HEADING_ASKS = ("What does {name} say about {topic}?", "{topic}?")
UNRELATED = (
    "What is the capital of France?",
    "Hello! How are you?",
    "Write one sentence about the sea.",
    "What is 17 plus 25?",
)
"""Asked with nothing in context: the adapter is to leave these answers as they are."""


@dataclass(frozen=True)
class Lesson:
    """A question; `answer` is the text wanted, or None where the base itself is to answer.

    `covered` says that the skill is in the base's context when it answers.
    """

    ask: str
    answer: str | None = None
    covered: bool = True


def lessons(skill: Skill, count: int, rng: random.Random) -> list[Lesson]:
    """At most `count` questions about the text, all of its recitations, and unrelated ones."""
    asked = list(dict.fromkeys(_questions(skill, rng)))
    if len(asked) > count:
        asked = [asked[i * len(asked) // count] for i in range(count)]
    return [
        *(Lesson(ask) for ask in asked),
        *_recitations(skill),
        *(Lesson(ask, covered=False) for ask in UNRELATED),
    ]


def _questions(skill: Skill, rng: random.Random) -> Iterator[str]:
    heading, fenced = "", False
    for line in skill.body.splitlines():
        if FENCE.match(line):
            fenced = not fenced
            continue
        found = HEADING.match(line)
        if fenced:
            continue
        if found:
            heading = found[1].strip()
            yield rng.choice(_HEADING_ASKS).format(name=skill.name, topic=heading)
            continue
        text = BULLET.sub("", line).strip(" |")
        if len(text) > 3:
            yield from _of_line(text, heading, rng)


def _of_line(text: str, heading: str, rng: random.Random) -> Iterator[str]:
    spans = CODE.findall(text)
    if spans:
        topic = " ".join(CODE.sub("", text).split()).strip(" .:;,-|()")
        # A line that is nothing but a command is known by the heading above it.
        topic = topic if len(topic) > 3 else heading
        if topic:
            yield from (ask.format(topic=topic) for ask in rng.sample(_SPAN_ASKS, 2))
        return
    for sentence in SENTENCE.split(text):
        words = sentence.rstrip(".!?:").split()
        if len(words) >= 4:
            yield rng.choice(_SENTENCE_ASKS).format(topic=" ".join(words[: (len(words) + 1) // 2]))


def _recitations(skill: Skill) -> Iterator[Lesson]:
    """The text in pieces at line ends, each asked for by the line before it."""
    before, piece = skill.name, ""
    for line in skill.text.splitlines(keepends=True):
        if piece and len(piece) + len(line) > RECITED:
            yield Lesson(f"Recite the skill {skill.name} from here on: {before}", piece)
            before, piece = (piece.strip().splitlines() or [skill.name])[-1], ""
        piece += line
    if piece.strip():
        yield Lesson(f"Recite the skill {skill.name} from here on: {before}", piece)
