"""Does the base choose the command that is meant, also where commands of a list begin alike?

Plain lists of generated phrases and commands, a third of them with a project's own script in front
of most commands, each asked for by its own words, so that nothing has to be understood.
`ARM_first_N` is the share of the answers' first tokens that are right in lists of N lines,
`ARM_part_N` that of the later tokens at which another answer parts from this one. The text arm has
the list in its prompt, the adapter arm its adapter. Each token is asked for behind the right ones,
of torch.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter

import torch
from served_torch import rounded

from skillc.figures import Target, print_figures
from skillc_compiler.bases import find_base
from skillc_compiler.data.facts import Fact, FactMaker
from skillc_compiler.data.generate import Question
from skillc_compiler.data.lexicon import load
from skillc_compiler.families.interface import load_compiler
from skillc_compiler.families.writer import Writer
from skillc_compiler.skill import parse_skill
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.packing import Weights, choosing

SIZES = (6, 12)
TARGETS: dict[str, Target] = {"text_part_12": (">=", 0.95), "adapter_part_12": (">=", 0.95)}
WEIGHTS = Weights()
Counts = Counter[tuple[str, bool]]


def facts(maker: FactMaker, count: int) -> list[Fact]:
    """Commands that differ, for phrases that do."""
    found: dict[str, Fact] = {}
    while len(found) < count:
        for fact in maker.lookups(count):
            if all(fact.value != other.value for other in found.values()):
                found.setdefault(fact.say, fact)
    return list(found.values())[:count]


def mark(writer: Writer, prompt: list[int], reply: list[int], chosen: list[int]) -> list[bool]:
    """Whether the likeliest token is the reply's at each of the places."""
    with torch.inference_mode():
        logits = writer.host.model(torch.tensor([[*prompt, *reply]])).logits[0]
    return [int(logits[len(prompt) + at - 1].argmax()) == reply[at] for at in chosen]


def ask(writer: Writer, encoder: Encoder, asked: list[Fact], right: Counts, all_: Counts) -> None:
    """Ask for every fact of one list in both arms; a choice is known by (arm, is it the first)."""
    lines = "".join(f"- {fact.say}: `{fact.value}`\n" for fact in asked)
    text = f"---\nname: list\ndescription: Commands of this project.\n---\n\n{lines}"
    skill = parse_skill(text.encode(), folder="list")
    factors = rounded(writer.compile(skill))
    read = encoder.skill(skill.text)
    replies = [encoder.reply(fact.value) for fact in asked]
    for fact, reply in zip(asked, replies, strict=True):
        rivals = [other for other in replies if other is not reply]
        weights = choosing(reply, rivals, WEIGHTS)
        chosen = [at for at, weight in enumerate(weights) if weight == WEIGHTS.entry]
        question = Question("command", fact.say, fact.value)
        found = {"text": mark(writer, read + encoder.after_skill(question), reply, chosen)}
        with writer.attached(factors):
            found["adapter"] = mark(writer, encoder.without_skill(question), reply, chosen)
        for arm, good in found.items():
            for at, one in zip(chosen, good, strict=True):
                right[arm, at == 0] += one
                all_[arm, at == 0] += 1


def main() -> int:
    """Measure and print; 0 when the targets hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, last")
    parser.add_argument("--lists", type=int, default=40, help="of each size")
    arguments = parser.parse_args()
    if arguments.lists < 1:
        parser.error("--lists must be 1 or more")
    torch.set_num_threads(1)
    writer = load_compiler(find_base())
    assert isinstance(writer, Writer)
    encoder, maker = Encoder(writer.tokenizer), FactMaker(load("train"), random.Random(11))
    figures: dict[str, float] = {}
    for size in SIZES:
        right: Counts = Counter()
        all_: Counts = Counter()
        for number in range(arguments.lists):
            print(f"list {number + 1} of {arguments.lists}, {size} lines", file=sys.stderr)
            ask(writer, encoder, facts(maker, size), right, all_)
        for (arm, first), count in all_.items():
            figures[f"{arm}_{'first' if first else 'part'}_{size}"] = right[arm, first] / count
        figures[f"parts_{size}"] = all_["text", False]
    figures = {key: round(value, 3) for key, value in figures.items()}
    print_figures("choosing", figures, TARGETS, as_json=arguments.json)
    return 0 if all(figures[key] >= bound for key, (_, bound) in TARGETS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
