"""Haystacks with needles in the form of Doc-to-LoRA's magic number task (arXiv 2602.15902)."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from skillc.evaluate.cases import Ask, Case
from skillc_compiler.data.generate import Question
from skillc_compiler.skill import parse_skill

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
BINS = ((32, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048))
DEPTHS = 10
STRINGS = (8, 16, 24, 32, 40)
_COLOURS = "red green blue brown white black grey pink gold amber violet orange".split()
_PLACES = "harbour tower garden market bridge station mill castle library square".split()
_ALPHABET = string.ascii_letters + string.digits + "-_./:"

Count = Callable[[str], int]


def number_case(rng: random.Random, low: int, high: int, depth: int, count: Count) -> Case:
    """One number of four digits in `low` to `high` tokens, at the `depth`-th tenth of the text."""
    value = f"{rng.randrange(10000):04d}"
    needle = f"The special magic number is {value}."
    ask = Question(
        "literal", "What is the special magic number? Reply with only the number.", value
    )
    return _case([(needle, depth)], [Ask(ask)], rng.randint(low, high), count)


def many_case(rng: random.Random, size: int, needles: int, count: Count) -> Case:
    """`needles` numbers, each of another place, spread over about `size` tokens."""
    names = [f"{colour} {place}" for colour in _COLOURS for place in _PLACES]
    picked = rng.sample(names, needles)
    values = [f"{rng.randrange(10000):04d}" for _ in picked]
    lines = [
        (f"The magic number of the {name} is {value}.", place * DEPTHS // needles)
        for place, (name, value) in enumerate(zip(picked, values, strict=True))
    ]
    asks = [
        Ask(
            Question(
                "literal",
                f"What is the magic number of the {name}? Reply with only the number.",
                value,
            )
        )
        for name, value in zip(picked, values, strict=True)
    ]
    return _case(lines, asks, size, count)


def string_case(rng: random.Random, length: int, size: int, count: Count) -> Case:
    """One arbitrary string of `length` characters in about `size` tokens."""
    value = "".join(rng.choice(_ALPHABET[:62] if end else _ALPHABET) for end in _ends(length))
    ask = Question(
        "literal", "What is the special magic string? Reply with only the string.", value
    )
    needle = f"The special magic string is `{value}`."
    return _case([(needle, rng.randrange(DEPTHS))], [Ask(ask)], size, count)


def _ends(length: int) -> list[bool]:
    """Of every character whether it is the first or the last one."""
    return [place in (0, length - 1) for place in range(length)]


def _case(needles: list[tuple[str, int]], asks: list[Ask], size: int, count: Count) -> Case:
    """A skill whose body has `size` tokens or a noise block less, with needles at their depths."""
    own = count("\n".join(text for text, _ in needles))
    blocks = max(0, (size - own) // (count(NOISE) + 1))
    lines = [NOISE] * blocks
    for text, depth in reversed(needles):
        lines.insert(round(blocks * depth / (DEPTHS - 1)), text)
    body = "\n".join(lines)
    text = f"---\nname: needle\ndescription: Things worth remembering.\n---\n\n{body}\n"
    return Case(parse_skill(text.encode(), folder="needle"), tuple(asks))
