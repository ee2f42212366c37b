"""Matching: questions are compared with the lines that answer them, by the heads that answer."""

from __future__ import annotations

import random

import pytest
import torch
from tests.compiler.test_packing import encoder, tokenizer

from skillc_compiler.data.facts import Fact, FactMaker
from skillc_compiler.data.generate import Question, Sample
from skillc_compiler.data.lexicon import load
from skillc_compiler.families.writer_net import WriterConfig, WriterNet
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.lines import Matches, make_matches, stated
from skillc_compiler.train.lookups import Located
from skillc_compiler.train.match import compare, within
from skillc_compiler.train.nano import Nano, NanoConfig
from skillc_compiler.train.recipe import Matchers
from skillc_compiler.train.rows import Rows

__all__ = ["encoder", "tokenizer"]  # fixtures

MATCHERS = Matchers(heads=((1, 0), (1, 1)), sites=(1, 2))


@pytest.fixture
def matches(encoder: Encoder) -> Matches:
    return make_matches(encoder, random.Random(3), documents=6)


def model(encoder: Encoder) -> Nano:
    torch.manual_seed(0)
    size = encoder.tokenizer.get_vocab_size()
    return Nano(NanoConfig(size, 32, 64, 3, 2, 2, 16))


def compared(rows: Rows) -> list[tuple[int, int]]:
    return [(int(row), int(place)) for row, place in (rows.weights > 0).nonzero()]


def test_each_line_has_a_question_with_what_is_said_before(encoder: Encoder) -> None:
    matches = make_matches(encoder, random.Random(4), documents=32)
    lines, questions = compared(matches.documents), compared(matches.questions)
    assert len(lines) == len(questions) == len(matches.same) > 8
    assert matches.same.diagonal().all() and torch.equal(matches.same, matches.same.T)
    opened = " ".join(map(str, encoder.open_assistant))
    verbs = {said.thing.partition("{v}")[0].strip() for said in load("train").prohibitions} - {""}
    begun = banned = 0
    for (row, place), (where, at) in zip(questions, lines, strict=True):
        asked = matches.questions.tokens[row, : place + 1].tolist()
        said = " ".join(map(str, asked)).rsplit(opened, 1)[1].split()
        ids = [int(token) for token in said]
        if encoder.tokenizer.decode(ids).strip() in verbs:
            banned += 1
            continue
        assert ids == matches.documents.tokens[where, at - len(said) : at].tolist()
        begun += bool(said)
    assert 0 < begun < len(questions) and banned


def test_commands_that_all_begin_alike_are_compared_behind_that(encoder: Encoder) -> None:
    deep = 0
    for seed in range(12):
        matches = make_matches(encoder, random.Random(seed), documents=12)
        opened = " ".join(map(str, encoder.open_assistant))
        said = []
        for row, place in compared(matches.questions):
            asked = " ".join(map(str, matches.questions.tokens[row, : place + 1].tolist()))
            said.append(asked.rsplit(opened, 1)[1].split())
        begun = [tuple(each) for each in said if each]
        most = max(map(begun.count, begun), default=0)
        deep += most > 0.25 * len(said)
    assert 2 <= deep <= 10


def test_a_document_without_an_answer_teaches_to_find_nothing(
    encoder: Encoder, matches: Matches
) -> None:
    nano = model(encoder)
    document = torch.tensor([row for row, _ in compared(matches.documents)])
    scores = torch.full((len(document), len(document)), -9.0)
    scores[matches.same] = 9.0
    nothing = torch.zeros(len(document), len(matches.lengths))
    good = float(within(scores, nothing, matches, document))
    assert good < 0.01
    assert float(within(scores, nothing - 40, matches, document)) > 1.0
    assert float(within(scores, nothing + 40, matches, document)) > 1.0
    assert float(within(-scores, nothing, matches, document)) > 1.0
    found = compare(nano, None, matches, MATCHERS)["match"]
    torch.autograd.backward(found.loss)
    assert all(each.grad is None or each.grad.isfinite().all() for each in nano.parameters())


def test_there_is_always_something_to_tell_apart(encoder: Encoder) -> None:
    for seed in range(40):
        matches = make_matches(encoder, random.Random(seed), documents=1)
        assert len(matches.same) >= 2
        again = make_matches(encoder, random.Random(seed), documents=1)
        assert torch.equal(matches.documents.tokens, again.documents.tokens)


def test_values_are_found_where_their_words_stand_before_them() -> None:
    maker = FactMaker(load("train"), random.Random(1))
    fact = maker.commands(1)[0]
    text = f"{fact.value} is old.\n\nTo {fact.say}: `{fact.value}`"
    assert stated(text, fact) == text.rindex(fact.value)
    assert stated(f"{fact.value}: {fact.say}", fact) == -1


def test_what_is_answered_without_a_value_has_no_place(encoder: Encoder) -> None:
    fact = Fact("never", "x", "No deploys at 7 o'clock.", "Never", "7", (), "deploying late")
    assert stated("Never: 7 is late", fact) == -1
    text = "No deploys at 7 o'clock."
    question = Question("never", "What is forbidden?", fact.answer)
    sample = Sample("x", text, (question,), (fact,))
    assert Located(text, encoder, 100).wanted(sample, question, [0]) == {}


def test_the_heads_learn_to_tell_lines_apart(encoder: Encoder, matches: Matches) -> None:
    nano = model(encoder)
    optimizer = torch.optim.AdamW(nano.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        found = compare(nano, None, matches, MATCHERS)["match"]
        losses.append(float(found.loss.detach()))
        optimizer.zero_grad()
        torch.autograd.backward(found.loss)
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert found.right.shape == (len(MATCHERS.heads),) and float(found.right.min()) > 0.8


def test_a_writers_keys_learn_it(encoder: Encoder, matches: Matches) -> None:
    nano = model(encoder)
    config = nano.config
    sizes = (config.hidden_size, config.intermediate_size, config.num_hidden_layers)
    writer = WriterNet(WriterConfig(*sizes, config.vocab_size, (0, 1, 2), 32, 1, 2))
    optimizer = torch.optim.AdamW(writer.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        found = compare(nano, writer, matches, MATCHERS)["match_writes"]
        losses.append(float(found.loss.detach()))
        optimizer.zero_grad()
        torch.autograd.backward(found.loss)
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_only_what_is_below_the_heads_is_trained(encoder: Encoder, matches: Matches) -> None:
    nano = model(encoder)
    torch.autograd.backward(compare(nano, None, matches, MATCHERS)["match"].loss)
    touched = {name for name, each in nano.named_parameters() if each.grad is not None}
    assert "model.layers.0.mlp.down_proj.weight" in touched
    assert "model.layers.1.self_attn.q_proj.weight" in touched
    assert not any(name.startswith(("model.layers.2", "model.layers.1.mlp")) for name in touched)
