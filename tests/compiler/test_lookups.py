"""Lookups: the heads' attention in the text arm's rows, taught where answers choose."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from tests.compiler.test_packing import encoder, tokenizer

from skillc_compiler.data.generate import Generator, Question, Shape
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.heads import projected
from skillc_compiler.train.lookups import NOTHING, Located, Lookups, looked, occurrences
from skillc_compiler.train.nano import Nano, NanoConfig
from skillc_compiler.train.packing import Batch, Item, Weights, make_batch
from skillc_compiler.train.rows import SKILL

__all__ = ["encoder", "tokenizer"]  # fixtures

HEADS = ((1, 0), (1, 1))


def batch_of(encoder: Encoder, outside: float = 0.2, seed: int = 5, count: int = 6) -> Batch:
    generator = Generator("train", seed, Shape((2, 4), 6, 0.2, 0.0, outside, 0.0))
    items = [Item(generator.sample()) for _ in range(count)]
    return make_batch(items, encoder, Weights(), random.Random(0), max_skill=600, in_text=6)


def found(batch: Batch) -> Iterator[tuple[int, int, list[int]]]:
    lookups = batch.lookups
    yield from zip(lookups.rows, lookups.places, lookups.wanted, strict=True)


def test_what_is_chosen_is_looked_for_where_it_stands(encoder: Encoder) -> None:
    batch = batch_of(encoder, outside=0.0)
    same = 0
    for row, place, wanted in found(batch):
        tokens = batch.read.tokens[row]
        assert int(batch.read.segments[row, place]) > SKILL
        assert float(batch.read.weights[row, place]) == Weights.entry
        assert all(int(batch.read.segments[row, at]) == SKILL for at in wanted)
        said = encoder.tokenizer.decode([int(batch.read.labels[row, place])])
        for at in wanted:  # tokens of a text may be longer: a space or a quote before the value
            shown = encoder.tokenizer.decode([int(tokens[at])])
            assert said.strip()[:1] in shown
            same += said == shown
    assert len(batch.lookups.rows) > 20 and same > 10


def test_what_no_skill_answers_is_looked_for_at_the_first_token(encoder: Encoder) -> None:
    batch = batch_of(encoder, outside=1.0)
    assert len(batch.lookups.rows) == 36
    assert all(wanted == [NOTHING] for _, _, wanted in found(batch))


def test_values_are_not_found_in_longer_commands() -> None:
    assert occurrences("run `make x --all` or `make x`, `make x`", "make x") == [23, 33]
    assert occurrences("nothing", "make x") == occurrences("nothing", "") == []


def test_calls_and_small_talk_are_not_looked_up(encoder: Encoder) -> None:
    sample = Generator("train", 1, Shape((2, 2))).sample()
    located = Located(sample.text, encoder, 4000)
    assert located.wanted(sample, Question("chat", "Hi.", "Hello."), [0]) == {}
    tool = {"type": "function", "function": {"name": "bash", "parameters": {}}}
    fact = next(f for f in sample.facts if f.kind == "command")
    asked = Question(fact.kind, fact.ask[0], fact.answer, (tool,))
    assert located.wanted(sample, asked, [0]) == {}
    assert 0 in located.wanted(sample, Question(fact.kind, fact.ask[0], fact.answer), [0])
    cut = Located(sample.text, encoder, 3)
    assert cut.wanted(sample, Question(fact.kind, fact.ask[0], fact.answer), [0]) == {}


@pytest.fixture
def model(encoder: Encoder) -> Nano:
    torch.manual_seed(0)
    size = encoder.tokenizer.get_vocab_size()
    return Nano(NanoConfig(size, 32, 64, 3, 2, 2, 16))


def test_attention_is_what_the_heads_give(encoder: Encoder, model: Nano) -> None:
    batch = batch_of(encoder, count=2)
    rows = batch.read
    trace = model(rows.tokens, rows.positions, rows.mask())
    row, place, wanted = next(found(batch))
    loss, share = looked(model, rows, trace, Lookups([row], [place], [wanted]), HEADS)
    mask = rows.mask()[row, 0, place]
    expected = []
    for query, key in zip(
        projected(model, rows, trace, HEADS, "q"),
        projected(model, rows, trace, HEADS, "k"),
        strict=True,
    ):
        scores = (key[row] @ query[row, place] / 4.0).masked_fill(~mask, float("-inf"))
        expected.append(scores.softmax(0)[wanted].sum())
    shares = torch.stack(expected).detach()
    assert share == pytest.approx(float(shares.mean()), rel=1e-4)
    assert float(loss.detach()) == pytest.approx(float(-shares.log().mean()), rel=1e-4)


def test_attention_is_learned(encoder: Encoder, model: Nano) -> None:
    batch = batch_of(encoder, count=2)
    rows = batch.read
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    shares = []
    for _ in range(20):
        trace = model(rows.tokens, rows.positions, rows.mask())
        loss, share = looked(model, rows, trace, batch.lookups, HEADS)
        shares.append(share)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert shares[-1] > 2 * shares[0]
