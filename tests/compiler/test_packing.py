"""Training batches: the same tokens as the server sends, and masks that let nothing leak."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer

from skillc_compiler.chat import NANO_TEMPLATE
from skillc_compiler.data.facts import FactMaker
from skillc_compiler.data.generate import UNKNOWN, Generator, Question, Sample, Shape
from skillc_compiler.data.lexicon import load
from skillc_compiler.data.tools import tool_box
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.feed import Feed, make_step
from skillc_compiler.train.packing import Item, Weights, make_batch
from skillc_compiler.train.recipe import load_recipe
from skillc_compiler.train.rows import SKILL
from skillc_compiler.train.tokens import MARKUP, SPECIAL, generated_text, train_tokenizer
from skillc_runtime.template import environment


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(generated_text(0, 300), 2048)


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> Encoder:
    return Encoder(tokenizer)


def samples(count: int, tools: float = 0.5) -> list[Sample]:
    generator = Generator("train", 5, Shape(tools=tools))
    return [generator.sample() for _ in range(count)]


def test_tokenizer_has_its_size_and_special_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == 2048
    for token in (*SPECIAL, *MARKUP):
        assert len(tokenizer.encode(token, add_special_tokens=False).ids) == 1


@pytest.mark.parametrize("system", ["", "You are a coding agent."])
def test_prompts_are_what_the_template_renders(encoder: Encoder, system: str) -> None:
    """What is trained on is, token for token, what the server makes of the same messages."""
    template = environment().from_string(NANO_TEMPLATE)
    seen = 0
    for sample in samples(20):
        for question in sample.questions:
            user = [{"role": "user", "content": question.ask}]
            own = [{"role": "system", "content": system}] if system else []
            skill = [{"role": "system", "content": sample.text}]
            tools = list(question.tools) or None
            for messages, expected in (
                (own + user, encoder.without_skill(question, system)),
                (skill + user, encoder.skill(sample.text) + encoder.after_skill(question)),
            ):
                text = template.render(messages=messages, tools=tools, add_generation_prompt=True)
                assert encoder.plain(text) == expected
                seen += bool(tools)
    assert seen


def test_questions_see_the_skill_and_themselves_only(encoder: Encoder) -> None:
    items = [Item(sample) for sample in samples(3)]
    batch = make_batch(items, encoder, Weights(), random.Random(0), max_skill=400, in_text=3)
    for rows in (batch.read, batch.ask):
        segments = rows.segments.view(-1, rows.block)
        allowed = rows.mask()[:, 0]
        for block, mask in zip(segments, allowed, strict=True):
            for i in range(0, len(block), 7):
                for j in range(0, len(block), 5):
                    own = block[i] == block[j] or (block[j] == SKILL and block[i] >= 0)
                    assert bool(mask[i, j]) == (bool(own) and j <= i)
    assert not (batch.ask.segments == SKILL).any()


def test_no_segment_crosses_a_block(encoder: Encoder) -> None:
    items = [Item(sample) for sample in samples(4)]
    batch = make_batch(items, encoder, Weights(), random.Random(0), max_skill=400, in_text=3)
    blocks = batch.ask.segments.shape[1] // batch.ask.block
    for row in batch.ask.segments:
        for segment in set(row.tolist()) - {-1}:
            places = (row == segment).nonzero().squeeze(1)
            assert len(set((places // batch.ask.block).tolist())) == 1
    assert blocks >= 1


def test_labels_follow_tokens_within_a_segment(encoder: Encoder) -> None:
    items = [Item(sample) for sample in samples(2)]
    batch = make_batch(items, encoder, Weights(), random.Random(0), max_skill=400, in_text=3)
    for rows in (batch.read, batch.ask):
        weighed = rows.weights > 0
        following = torch.roll(rows.tokens, -1, 1)
        assert (rows.labels[weighed] == following[weighed]).all()
        same = rows.segments == torch.roll(rows.segments, -1, 1)
        assert same[weighed].all()


def test_without_its_adapter_facts_are_unknown(encoder: Encoder) -> None:
    sample = next(s for s in samples(400, tools=0) if {q.kind for q in s.questions} == {"command"})
    for mode in ("none", "wrong"):
        item = Item(sample, mode, UNKNOWN)
        batch = make_batch([item], encoder, Weights(), random.Random(0), max_skill=400, in_text=0)
        text = encoder.tokenizer.decode(batch.ask.tokens[0].tolist(), skip_special_tokens=False)
        assert text.count(UNKNOWN) == len(sample.questions)
        assert sample.questions[0].answer not in text


def test_the_parts_of_a_name_weigh_where_they_begin(encoder: Encoder) -> None:
    maker = FactMaker(load("train"), random.Random(3))
    fact = next(f for f in maker.conventions(30) if f.id == "branch_ticket_slug")
    question = Question(fact.kind, fact.ask[0], fact.answer)
    sample = Sample("x", f"# x\n\n{fact.say}", (question,), (fact,))
    batch = make_batch(
        [Item(sample)], encoder, Weights(), random.Random(0), max_skill=400, in_text=0
    )
    labels, weights = batch.ask.labels[0], batch.ask.weights[0]
    parts = [int(place) for place in (weights == Weights.entry).nonzero()]
    begun = [encoder.tokenizer.decode(labels[parts[0] : part].tolist()) for part in parts]
    prefix, _, rest = fact.answer.partition("/")
    ticket = rest.partition("-")[0]
    assert begun[0] == "" and len(begun) == 3
    assert begun[1].startswith(f"{prefix}/") and begun[1] != fact.answer
    assert begun[2].startswith(f"{prefix}/{ticket}")


def test_steps_are_reproducible_and_differ(tokenizer: Tokenizer) -> None:
    data = replace(load_recipe("nano").text.data, skills=4)
    feed = Feed(data, tokenizer.to_str(), (), 3)
    one, again, other = (make_step(feed, number, 1.0) for number in (5, 5, 6))
    assert torch.equal(one.batch.read.tokens, again.batch.read.tokens)
    assert one.order == again.order
    assert one.batch.read.tokens.shape != other.batch.read.tokens.shape or not torch.equal(
        one.batch.read.tokens, other.batch.read.tokens
    )


def test_copy_steps_repeat_a_window(tokenizer: Tokenizer) -> None:
    feed = Feed(load_recipe("nano").text.data, tokenizer.to_str(), (), 3, stage="copy")
    rows = make_step(feed, 0, 0.5).batch.read
    width = 16 + 56
    assert torch.equal(rows.tokens[:, :width], rows.tokens[:, width : 2 * width])
    assert (rows.weights[:, width + 1 : 2 * width - 1] == 1.0).all()


def test_sequels_are_what_the_template_renders(encoder: Encoder) -> None:
    template = environment().from_string(NANO_TEMPLATE)
    generator = Generator("train", 5)
    seen = 0
    tools = tool_box(generator.rng, 1)
    for sample in (generator.with_tools(generator.sample(), tools, 1.0) for _ in range(10)):
        for question in (q for q in sample.questions if q.sequel):
            assert question.sequel
            result, closing = question.sequel
            function = json.loads(question.reply.split("\n")[1])
            messages = [
                {"role": "user", "content": question.ask},
                {"role": "assistant", "content": "", "tool_calls": [{"function": function}]},
                {"role": "tool", "content": result},
            ]
            text = template.render(
                messages=messages, tools=list(question.tools), add_generation_prompt=True
            )
            expected = encoder.without_skill(question) + encoder.reply(question.reply)
            assert encoder.plain(text) == expected + encoder.sequel(result)
            assert encoder.reply(closing)[-1] == encoder.end
            seen += 1
    assert seen
