"""Batches by step number: the same recipe, seed and step give the same batch, so runs resume."""

from __future__ import annotations

import json
import lzma
import random
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer

from skillc_compiler.data.generate import UNKNOWN, Generator, Question, Sample, Shape
from skillc_compiler.data.tools import Tools, slim_box, slim_prompt, tool_box
from skillc_compiler.train.drill import Drill, backwards
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.lines import Matches, make_matches
from skillc_compiler.train.packing import (
    Batch,
    Item,
    Weights,
    idle_rows,
    make_batch,
    make_copy_batch,
)
from skillc_compiler.train.recipe import DataConfig
from skillc_compiler.train.step import FULL, Options

_GROUP = 4
_AHEAD = 8  # batches a worker
_SPAN = re.compile(r"`([\w./@$~-][^`\n]{3,70}\w)`")
_SEQUELS = 0.4  # share of tool calls that are followed by their result
# What clients put there on their own account; it must change nothing.
_SYSTEM = (
    "You are a helpful assistant.",
    "You are a coding agent.",
    "You are a coding agent. Use the tools to do what the user asks.",
    "You are a helpful coding assistant working in the user's repository.",
    "Answer briefly.",
    "You help developers in the terminal. Be concise.",
    "You are an expert software engineer.",
    "You are a careful agent. Run commands with the tools you are given.",
)


@dataclass(frozen=True)
class Feed:
    """What a worker needs to make any step's batch."""

    data: DataConfig
    tokenizer_json: str
    texts: tuple[str, ...]
    seed: int
    split: str = "train"
    stage: str = "joint"  # copy, drill, lookup, text or joint
    drills: int = 0  # the first steps of the stage, which are drills of growing size
    weights: Weights = field(default_factory=Weights)


@dataclass
class Step:
    """A batch and, a row, the skills whose adapters its questions get.

    matches: lines and questions to be told apart besides.
    """

    batch: Batch
    order: list[list[int]]
    options: Options = FULL
    matches: Matches | None = None

    def to(self, device: torch.device) -> Step:
        """The same step on `device`."""
        matches = self.matches.to(device) if self.matches else None
        return replace(self, batch=self.batch.to(device), matches=matches)


def real_texts(paths: Sequence[Path]) -> tuple[str, ...]:
    """The texts of JSONL files (plain or .xz) with a `text` key."""
    texts = []
    for path in paths:
        opener = lzma.open if path.suffix == ".xz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    return tuple(texts)


@cache
def _strings(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Commands and paths that stand in code spans of real texts, each once."""
    spans = dict.fromkeys(span for text in texts for span in _SPAN.findall(text))
    return tuple(span for span in spans if span.isascii() and {" ", "/"} & set(span))


@cache
def _encoder(tokenizer_json: str) -> Encoder:
    return Encoder(Tokenizer.from_str(tokenizer_json))


@cache
def _drill(tokenizer_json: str) -> Drill:
    return Drill(_encoder(tokenizer_json))


def make_step(feed: Feed, number: int, size: float) -> Step:
    """Step `number`'s batch; `size` in [0, 1] grows windows and documents (the curriculum)."""
    step = _batch(feed, number, size)
    if feed.data.match:
        rng = random.Random(f"{feed.seed}/{number}/match")
        encoder = _encoder(feed.tokenizer_json)
        step.matches = make_matches(encoder, rng, documents=feed.data.match, split=feed.split)
    return step


def _batch(feed: Feed, number: int, size: float) -> Step:
    if feed.stage == "copy":
        return _copy_step(feed, number, size)
    if feed.stage == "drill":
        return _drill_step(feed, number, size)
    if number < feed.drills:
        return _drill_step(feed, number, number / feed.drills)
    if random.Random(f"{feed.seed}/{number}/kind").random() < feed.data.drill:
        return _drill_step(feed, number, 1.0)
    return _document_step(feed, number, size)


def _document_step(feed: Feed, number: int, size: float) -> Step:
    """Documents and what is asked of them.

    Steps are made in groups of four whose items are sorted by length, which saves padding; tools
    are offered in whole steps for the same reason.
    """
    data = feed.data
    group, place = divmod(number, _GROUP)
    rng = random.Random(f"{feed.seed}/{group}/{size}")
    low, high = data.facts
    most = max(low, round(low + (high - low) * size))
    shape = Shape(
        (low, most), data.questions, data.filler * size, 0.0, data.outside, data.chat,
        others=data.others, strings=_strings(feed.texts),
    )  # fmt: skip
    generator = Generator(feed.split, rng.getrandbits(40), shape)
    items = [_item(feed, generator, rng, size) for _ in range(data.skills * _GROUP)]
    items.sort(key=lambda item: len(item.sample.text))
    turn = rng.sample(range(_GROUP), _GROUP)[place]
    picked = items[turn * data.skills : (turn + 1) * data.skills]
    rng = random.Random(f"{feed.seed}/{number}/step")
    rng.shuffle(picked)
    if rng.random() < data.system:
        picked = [replace(item, system=rng.choice(_SYSTEM)) for item in picked]
    if rng.random() < data.slim:
        picked = [_slim(item, generator, rng) for item in picked]
    elif rng.random() < data.tools:
        others = rng.choice((0, 0, 0, 0, 1, 2))
        picked = [
            _with_tools(item, generator, tool_box(rng, others), 5 - others) for item in picked
        ]
    encoder = _encoder(feed.tokenizer_json)
    batch = make_batch(
        picked, encoder, feed.weights, rng, max_skill=data.max_skill, in_text=data.in_text
    )
    order = _order(picked, rng, feed, size)
    if feed.stage == "joint" and data.idle:
        texts = [_unrelated(feed, generator, encoder, rng) for _ in picked]
        batch.idle = idle_rows(texts, encoder)
    return Step(batch, order, Options(rng.choice(data.ranks), rng.random() < data.tail))


def _unrelated(feed: Feed, generator: Generator, encoder: Encoder, rng: random.Random) -> list[int]:
    """Small talk, a question that no skill answers, or prose: what adapters leave alone."""
    lexicon, draw = generator.lexicon, rng.random()
    if draw < 0.5:
        pair = (rng.choice(lexicon.outside), UNKNOWN)
        ask, answer = rng.choice(lexicon.chat) if draw < 0.35 else pair
        question = Question("chat", generator.decorate(ask), answer)
        return encoder.without_skill(question) + encoder.reply(answer)
    prose = (*lexicon.sections, *lexicon.fillers, *lexicon.intros)
    text = rng.choice(feed.texts) if feed.texts and draw < 0.7 else rng.choice(prose)
    ids = encoder.plain(text[:4000])
    start = rng.randrange(max(1, len(ids) - feed.data.idle))
    return ids[start : start + feed.data.idle]


def _copy_step(feed: Feed, number: int, size: float) -> Step:
    rng = random.Random(f"{feed.seed}/{number}/copy")
    generator = Generator(feed.split, rng.getrandbits(40))
    texts = [generator.sample().text for _ in range(32)]
    width = round(16 + 112 * size)
    return Step(make_copy_batch(texts, width, _encoder(feed.tokenizer_json), rng), [])


def _drill_step(feed: Feed, number: int, size: float) -> Step:
    rng = random.Random(f"{feed.seed}/{number}/drill")
    drill = _drill(feed.tokenizer_json)
    if feed.stage == "drill" and rng.random() < backwards(size):
        return Step(drill.reversed_batch(rng, tokens=6144), [])
    batch = drill.batch(rng, size, feed.weights, tokens=feed.data.drill_tokens)
    return Step(batch, [[row] for row in range(len(batch.lengths))])


def _with_tools(item: Item, generator: Generator, tools: Tools, most: int) -> Item:
    """Every question repeats the whole box, so there are at most `most` of them."""
    kept = replace(item.sample, questions=item.sample.questions[:most])
    own = _SEQUELS if item.mode == "own" else 0.0
    return replace(item, sample=generator.with_tools(kept, tools, own))


def _slim(item: Item, generator: Generator, rng: random.Random) -> Item:
    """As the slim agent of `skillc init opencode` asks, whichever skills are installed."""
    names = [rng.choice(generator.lexicon.projects) for _ in range(rng.randint(0, 5))]
    asked = _with_tools(item, generator, slim_box(names), 2)
    return replace(asked, system=slim_prompt())


def _item(feed: Feed, generator: Generator, rng: random.Random, size: float) -> Item:
    data = feed.data
    if feed.texts and rng.random() < data.real:
        return Item(_chunk(rng.choice(feed.texts), rng))
    if rng.random() < data.lookup:
        return Item(_lookup(feed, rng, size))
    sample = generator.sample()
    draw = rng.random()
    if feed.stage == "joint" and size >= 0.6 and draw < data.none + data.wrong:
        return Item(sample, "none" if draw < data.none else "wrong", UNKNOWN)
    return Item(sample)


def _lookup(feed: Feed, rng: random.Random, size: float) -> Sample:
    most = max(3, round(8 * size))
    shape = Shape(
        (2, most), feed.data.questions, filler=0.0, tools=0.0, outside=0.05, chat=0.0,
        lookup=True, inverted=feed.data.inverted,
    )  # fmt: skip
    return Generator(feed.split, rng.getrandbits(40), shape).sample()


def _chunk(text: str, rng: random.Random, size: int = 700) -> Sample:
    start = rng.randrange(max(1, len(text) - size // 2))
    start = 0 if rng.random() < 0.4 else start
    return Sample("", text[start : start + size], ())


def _order(items: Sequence[Item], rng: random.Random, feed: Feed, size: float) -> list[list[int]]:
    count = len(items)
    many = rng.choice((2, 2, 3, 4)) if size >= 0.6 and rng.random() < feed.data.sets else 1
    order: list[list[int]] = []
    for i, item in enumerate(items):
        other = (i + 1) % count
        if item.mode == "none":
            order.append([])
        elif item.mode == "wrong":
            order.append([other])
        else:
            order.append([(i + j) % count for j in range(many)])
    return order


def stream(
    feed: Feed, start: int, stop: int, sizes: Sequence[float], *, workers: int = 1
) -> Iterator[Step]:
    """Steps `start` to `stop` in order, made ahead of need in worker processes."""
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        ahead: list[Future[Step]] = []
        number = start
        while number < stop or ahead:
            while number < stop and len(ahead) < _AHEAD * workers:
                ahead.append(pool.submit(make_step, feed, number, sizes[number]))
                number += 1
            yield ahead.pop(0).result()
