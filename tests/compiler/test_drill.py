"""Drills: what is asked can be found in the list, and gaps grow with the curriculum."""

from __future__ import annotations

import random

import pytest
import torch
from tests.compiler.test_packing import encoder, tokenizer

from skillc_compiler.data.generate import UNKNOWN
from skillc_compiler.train.drill import Drill
from skillc_compiler.train.encoder import Encoder
from skillc_compiler.train.packing import Batch, Weights
from skillc_compiler.train.rows import SKILL, Rows

__all__ = ["encoder", "tokenizer"]  # fixtures

WEIGHTS = Weights(entry=6.0)


def questions(rows: Rows, row: int) -> list[tuple[list[int], list[int]]]:
    """Prompt and answer of each question of a row."""
    found = []
    tokens, weights = rows.tokens[row].tolist(), rows.weights[row].tolist()
    for number in range(1, int(rows.segments[row].max()) + 1):
        places = (rows.segments[row] == number).nonzero().flatten().tolist()
        entry = next(at for at in places if weights[at] == WEIGHTS.entry)
        prompt = tokens[places[0] : entry + 1]
        found.append((prompt, tokens[entry + 1 : places[-1] + 1]))
    return found


def batches(drill: Drill, size: float) -> list[Batch]:
    return [drill.batch(random.Random(seed), size, WEIGHTS, tokens=600) for seed in range(12)]


@pytest.mark.parametrize("size", [0.0, 0.35, 0.45, 0.52, 1.0])
def test_both_arms_are_asked_the_same(encoder: Encoder, size: float) -> None:
    close = encoder.close
    for batch in batches(Drill(encoder), size):
        assert len(batch.lengths) == len(batch.read.tokens) == len(batch.ask.tokens)
        for row, length in enumerate(batch.lengths):
            assert (batch.read.segments[row, :length] == SKILL).all()
            seen = questions(batch.read, row)
            alone = questions(batch.ask, row)
            assert [(prompt[len(close) :], answer) for prompt, answer in seen] == alone
            skill = batch.read.tokens[row, :length].tolist()
            for prompt, answer in seen:
                assert answer[-1] == encoder.end
                text = " ".join(map(str, skill))
                if f" {' '.join(map(str, answer[:-1]))} " not in f"{text} ":
                    # Documents only: they have other tokens behind a space, and are asked more.
                    said = encoder.tokenizer.decode(answer[:-1])
                    assert size == 1.0
                    assert said == UNKNOWN or said in encoder.tokenizer.decode(skill)
                if size < 0.3:
                    word = prompt[len(close) + len(encoder.open_user)]
                    assert word in skill


def test_documents_are_asked_what_they_do_not_say(encoder: Encoder) -> None:
    asked = {True: 0, False: 0}
    for batch in batches(Drill(encoder), 1.0):
        for row in range(len(batch.lengths)):
            answers = [encoder.tokenizer.decode(each[:-1]) for _, each in questions(batch.ask, row)]
            strange = answers.count(UNKNOWN)
            if strange:
                asked[True] += strange
                asked[False] += len(answers) - strange
    assert 0 < asked[True] < asked[False]


def test_gaps_are_cut_short_at_first_only(encoder: Encoder) -> None:
    drill = Drill(encoder)
    whole = tuple(encoder.open_assistant)

    def full(size: float) -> set[bool]:
        prompts = [q[0] for b in batches(drill, size) for q in questions(b.read, 0)]
        return {tuple(prompt[-len(whole) :]) == whole for prompt in prompts}

    assert full(0.0) == {True, False}
    assert full(0.4) == full(1.0) == {True}


def test_windows_are_said_backwards(encoder: Encoder) -> None:
    batch = Drill(encoder).reversed_batch(random.Random(1), tokens=400)
    for row, width in enumerate(batch.lengths):
        window, back = batch.read.tokens[row, :width], batch.read.tokens[row, width : 2 * width]
        assert torch.equal(window.flip(0), back)
        weighed = batch.read.weights[row] > 0  # that of the token that follows
        assert not weighed[: width + 1].any() and weighed[width + 1 : 2 * width - 1].all()


def test_the_same_seed_gives_the_same_batch(encoder: Encoder) -> None:
    one, other = (
        Drill(encoder).batch(random.Random(3), 0.8, WEIGHTS, tokens=600) for _ in range(2)
    )
    assert torch.equal(one.read.tokens, other.read.tokens)
    assert torch.equal(one.ask.weights, other.ask.weights)


def test_commands_that_begin_alike_are_weighed_where_they_part(encoder: Encoder) -> None:
    alike = 0
    unknown = (*encoder.plain(UNKNOWN), encoder.end)
    for batch in batches(Drill(encoder), 1.0):
        for row in range(len(batch.lengths)):
            answers = {tuple(answer) for _, answer in questions(batch.ask, row)}
            for prompt, answer in questions(batch.ask, row):
                rivals = [other for other in answers if other != tuple(answer)]
                shared = [
                    next(at for at, (a, b) in enumerate(zip(answer, other, strict=False)) if a != b)
                    for other in rivals
                ]
                alike += any(shared)
                found = set(parted(batch.ask, row, [*prompt, *answer]))
                assert found >= {0, *shared}
                # Where strangers were asked for, some lines were not: they are rivals all the same.
                assert found == {0, *shared} or unknown in answers
    assert alike


def parted(rows: Rows, row: int, ids: list[int]) -> list[int]:
    """At which tokens of its answer the question `ids` of a row has the weight of a choice."""
    tokens, weights = rows.tokens[row].tolist(), rows.weights[row].tolist()
    begin = next(at for at in range(len(tokens)) if tokens[at : at + len(ids)] == ids)
    chosen = [at for at in range(len(ids)) if weights[begin + at] == WEIGHTS.entry]
    return [at - chosen[0] for at in chosen]
