"""The same skill written otherwise: paraphrased, noisy, reordered, without Markdown."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from skillc.evaluate.documents import sections
from skillc_compiler.data.document import body
from skillc_compiler.data.facts import Fact
from skillc_compiler.data.generate import Sample
from skillc_compiler.data.lexicon import Lexicon, load

_TYPOS = 0.06  # share of the plain words that get one
_STRAY = (
    "TODO: tidy this up",
    "(see above)",
    "...",
    "asdf",
    "<!-- moved -->",
    "FIXME later",
    "-- 8< --",
    "Sent from my phone.",
    "[image]",
    "Hm.",
)
_FRONT = re.compile(r"\A---\n.*?\n---\n\n", re.DOTALL)
_SPAN = r"`[^`\n]*`"
# A typo in anything but a plain word would change what the text says.
_WORD = re.compile(r"(?<![^\s(])[A-Za-z]{4,}(?=[\s,.;:)]|$)")
_FENCE = re.compile(r"^ {0,3}```[^\n]*\n?", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """A generated skill and what it was generated from."""

    sample: Sample
    split: str

    @property
    def front(self) -> str:
        """The frontmatter with the blank line after it."""
        found = _FRONT.match(self.sample.text)
        assert found is not None
        return found[0]

    @property
    def body(self) -> str:
        """The Markdown below the frontmatter."""
        return self.sample.text[len(self.front) :]


Variant = Callable[[Source, random.Random], str]


def paraphrase(source: Source, rng: random.Random) -> str:
    """The same facts in other phrases of the split, laid out anew."""
    lexicon = load(source.split)
    facts = [_rephrased(fact, lexicon, rng) for fact in source.sample.facts]
    return source.front + body(source.sample.name, facts, lexicon, rng, filler=0.3) + "\n"


def _rephrased(fact: Fact, lexicon: Lexicon, rng: random.Random) -> Fact:
    name, plus, suffix = fact.id.partition("+")
    if fact.kind == "command":
        intent = next(intent for intent in lexicon.intents if intent.id == name)
        tail = f" {suffix}" if plus else ""
        says = [say + tail for say in intent.say if say + tail != fact.say]
        heads = [head + tail for head in intent.head if head + tail != fact.head]
        return replace(
            fact, say=rng.choice(says or [fact.say]), head=rng.choice(heads or [fact.head])
        )
    if fact.kind == "apply":
        # Its pattern's parameters are not kept; the sentence stays, the layout around it changes.
        return fact
    sayings = lexicon.literals if fact.kind == "literal" else lexicon.prohibitions
    saying = next(saying for saying in sayings if saying.id == name)
    says = [text for say in saying.say if (text := say.format(v=fact.value)) != fact.say]
    return replace(fact, say=rng.choice(says or [fact.say]))


def noise(source: Source, rng: random.Random) -> str:
    """Typos in plain words, stray lines between paragraphs; commands and names stay as they are."""
    values = sorted({fact.value for fact in source.sample.facts}, key=len, reverse=True)
    kept = re.compile("|".join([_SPAN, *map(re.escape, values)]))
    text, at = "", 0
    for match in kept.finditer(source.body):
        text += _typos(source.body[at : match.start()], rng) + match[0]
        at = match.end()
    text += _typos(source.body[at:], rng)
    blocks = list(_blocks(text))
    for _ in range(1 + len(blocks) // 4):
        blocks.insert(rng.randint(0, len(blocks)), rng.choice(_STRAY))
    return source.front + "\n\n".join(blocks) + "\n"


def _typos(text: str, rng: random.Random) -> str:
    def slip(match: re.Match[str]) -> str:
        word = match[0]
        if rng.random() >= _TYPOS:
            return word
        place = rng.randrange(1, len(word) - 1)
        return rng.choice(
            (
                word[:place] + word[place + 1 :],
                word[:place] + word[place] + word[place:],
                word[:place] + word[place + 1] + word[place] + word[place + 2 :],
            )
        )

    return _WORD.sub(slip, text)


def reorder(source: Source, rng: random.Random) -> str:
    """The sections shuffled, title and introduction left in front; the same text if it has one."""
    parts = sections(source.body)
    first = 1 if not parts[0].heading or parts[0].heading.startswith("# ") else 0
    head, rest = parts[:first], parts[first:]
    if len(rest) < 2:
        return source.sample.text
    mixed = rng.sample(rest, len(rest))
    if mixed == rest:
        mixed = [*rest[1:], *rest[:1]]
    blocks = [(part.heading + part.body).strip("\n") for part in [*head, *mixed]]
    return source.front + "\n\n".join(blocks) + "\n"


def plaintext(source: Source, rng: random.Random) -> str:
    """The text without Markdown: headings, bullets, tables, fences and backticks are gone."""
    lines = [
        re.sub(r"^(#{1,6} +|[-*+] +(\[ \] )?)", "", _row(line)).replace("**", "").replace("`", "")
        for line in _FENCE.sub("", source.body).splitlines()
        if not re.fullmatch(r"\|[-| :]+\|", line)
    ]
    return source.front + "\n".join(lines).strip() + "\n"


def _row(line: str) -> str:
    """A table's row as a line of its cells."""
    if not (line.startswith("| ") and line.endswith(" |")):
        return line
    return ": ".join(cell.strip() for cell in line[1:-1].split(" | "))


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, with a fenced block never torn apart."""
    held: list[str] = []
    for block in text.strip().split("\n\n"):
        held.append(block)
        if "\n\n".join(held).count("```") % 2 == 0:
            yield "\n\n".join(held)
            held = []
    if held:
        yield "\n\n".join(held)


VARIANTS: dict[str, Variant] = {
    "paraphrase": paraphrase,
    "noise": noise,
    "reorder": reorder,
    "plaintext": plaintext,
}
