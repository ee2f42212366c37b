"""One joint step of training: adapters cut to a rank, silent on what is none of their business."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer

from skillc_compiler.data.generate import Generator, Sample, Shape
from skillc_compiler.families.writer_net import (
    Memories,
    WriterConfig,
    WriterNet,
    joined,
    low_rank,
)
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.feed import Feed, make_step
from skillc_compiler.train.nano import Nano, NanoConfig
from skillc_compiler.train.packing import Item, Weights, idle_rows, make_batch
from skillc_compiler.train.recipe import load_recipe
from skillc_compiler.train.step import (
    Options,
    joint_step,
    read_skill,
    silence,
    truncated,
    written,
)
from skillc_compiler.train.tokens import generated_text, train_tokenizer

BASE = NanoConfig(512, 32, 64, 2, 2, 2, 16)
WRITER = WriterConfig(hidden=32, inner=64, layers=2, vocab=512, sites=(0, 1), width=32, blocks=1)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(train_tokenizer(generated_text(0, 200), 512))


@pytest.fixture(scope="module")
def skills() -> list[Sample]:
    generator = Generator("train", 2, Shape(facts=(2, 3), tools=0.0))
    return [generator.sample() for _ in range(2)]


@pytest.fixture(scope="module")
def model() -> Nano:
    torch.manual_seed(0)
    return Nano(BASE)


@pytest.fixture(scope="module")
def writer() -> WriterNet:
    torch.manual_seed(1)
    return WriterNet(WRITER)


def test_truncated_writes_are_the_compilers_cut() -> None:
    torch.manual_seed(0)
    # A spectrum that falls, as that of real skills does.
    keys = torch.randn(2, 40, 24)
    values = torch.randn(2, 40, 16) * torch.tensor([2.0**-i for i in range(16)])
    cut = truncated(keys, values, 4)
    for row in range(2):
        a, b = low_rank(keys[row], values[row], 4)
        whole = values[row].T @ keys[row]
        best = torch.linalg.norm(whole - b @ a)
        assert best > 0.1
        assert torch.linalg.norm(whole - cut[row].T @ keys[row]) < 1.05 * best
        assert torch.linalg.matrix_rank(cut[row], rtol=1e-4) == 4


def test_an_empty_adapter_is_silent_and_another_is_not(encoder: Encoder, model: Nano) -> None:
    rows = idle_rows([encoder.plain("Good morning, everyone here.")] * 2, encoder)
    keys, values = torch.randn(2, 5, 64), torch.randn(2, 5, 32)
    with torch.no_grad():
        assert float(silence(model, rows, {0: (keys, values * 0)})) == pytest.approx(0, abs=1e-6)
        assert float(silence(model, rows, {0: (keys, values)})) > 1e-3


def test_a_tail_adapter_leaves_the_head_alone(
    encoder: Encoder, model: Nano, skills: list[Sample]
) -> None:
    items = [Item(sample, system="You are a coding agent.") for sample in skills]
    batch = make_batch(items, encoder, Weights(), random.Random(0), max_skill=300, in_text=1)
    ask = batch.ask
    assert ask.heads.any() and not batch.read.heads.any()
    # Nothing that is learned to be said lies in a head, and each begins its segment.
    assert not (ask.heads & (ask.weights > 0)).any()
    writes = {0: (torch.randn(2, 5, 64), torch.randn(2, 5, 32))}
    with torch.no_grad():
        bare = model(ask.tokens, ask.positions, ask.mask()).hidden
        full = model(ask.tokens, ask.positions, ask.mask(), writes).hidden
        tail = model(ask.tokens, ask.positions, ask.mask(), writes, keep=~ask.heads).hidden
    assert torch.equal(tail[ask.heads], bare[ask.heads])
    assert not torch.equal(full[ask.heads], bare[ask.heads])
    answered = ask.weights > 0
    assert not torch.equal(tail[answered], bare[answered])


def test_where_answers_part_from_others_weighs_most(encoder: Encoder, skills: list[Sample]) -> None:
    weights = Weights()
    items = [Item(sample) for sample in skills]
    batch = make_batch(items, encoder, weights, random.Random(0), max_skill=300, in_text=0)
    for row, sample in enumerate(skills):
        for number, question in enumerate(sample.questions, 1):
            places = (batch.ask.segments[row] == number) & (batch.ask.weights[row] >= 1)
            reply = encoder.reply(question.reply)
            loss = batch.ask.weights[row][places].tolist()
            assert batch.ask.labels[row][places].tolist() == reply
            assert loss[0] == weights.entry
            rivals = [encoder.reply(f.answer) for f in sample.facts if f.answer != question.answer]
            for rival in rivals:
                at = next(i for i, (x, y) in enumerate(zip(reply, rival, strict=False)) if x != y)
                assert loss[at] == weights.entry


@pytest.mark.parametrize("options", [Options(), Options(rank=4), Options(rank=8, tail=True)])
def test_every_loss_reaches_the_writer(
    encoder: Encoder, model: Nano, writer: WriterNet, skills: list[Sample], options: Options
) -> None:
    items = [Item(sample, system="Be brief.") for sample in skills]
    batch = make_batch(items, encoder, Weights(), random.Random(0), max_skill=300, in_text=2)
    batch.idle = idle_rows([encoder.plain("Thank you very much.")] * 2, encoder)
    outcome = joint_step(model, writer, batch, [[0], [1, 0]], 0.1, options, taught=True)
    assert outcome.idle is not None and outcome.teach is not None
    for loss in (outcome.adapter.loss, outcome.idle, outcome.teach):
        writer.zero_grad()
        torch.autograd.backward(loss, retain_graph=True)
        gradient = writer.value.weight.grad
        assert gradient is not None and bool(gradient.abs().sum() > 0)
    # The teacher is the text arm as it is: nothing is learned there from its pupil.
    assert float(outcome.text.loss.detach()) > 0


def test_a_set_is_solved_for_together(
    encoder: Encoder, model: Nano, writer: WriterNet, skills: list[Sample]
) -> None:
    items = [Item(sample) for sample in skills]
    read = make_batch(items, encoder, Weights(), random.Random(0), max_skill=300, in_text=1)
    with torch.no_grad():
        trace = model(read.read.tokens, read.read.positions, read.read.mask(), sites=WRITER.sites)
        proposed = writer.propose(read_skill(model, trace, read.read, read.lengths))
        alone = writer.settle(proposed)
        found = written(writer, proposed, [[1], [], [0, 1]], 0)
        rows = [
            [Memories(*(part[row : row + 1] for part in vars(each).values())) for each in proposed]
            for row in (0, 1)
        ]
        both = writer.settle(joined(rows))
    for site, (keys, values) in enumerate(found):
        change = values.transpose(1, 2) @ keys
        own = alone[site][1].transpose(1, 2) @ alone[site][0]
        assert torch.allclose(change[0], own[1], atol=1e-4)
        assert not change[1].any()
        together = both[site][1].transpose(1, 2) @ both[site][0]
        assert torch.allclose(change[2], together[0], atol=1e-4)
        assert not torch.allclose(change[2], own.sum(0), atol=1e-3)


def words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", text.lower()))


def test_lookup_documents_answer_by_their_words(encoder: Encoder) -> None:
    data = replace(load_recipe("nano").joint.data, skills=4, lookup=1.0, real=0.0)
    tokenizer: Tokenizer = encoder.tokenizer
    step = make_step(Feed(data, tokenizer.to_str(), (), 3), 0, 1.0)
    assert step.batch.idle is not None and step.batch.idle.tokens.shape[0] == 4
    assert step.options.rank in data.ranks
    generator = Generator("train", 1, Shape(lookup=True, outside=0.0, chat=0.0))
    for sample in (generator.sample() for _ in range(5)):
        for question in sample.questions:
            fact = next(fact for fact in sample.facts if fact.answer == question.answer)
            assert question.answer in sample.text
            assert words(fact.say) & words(question.ask)
