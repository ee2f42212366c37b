"""Many sequences in a decode give what each gives alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from tests.runtime.support import prompt

from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine
from skillc_runtime.sampling import Sampling

MakeEngine = Callable[..., Engine]


def test_many_equal_one_by_one(fresh: MakeEngine, adapters: list[AdapterRef]) -> None:
    engine = fresh(exact=True)
    prompts = [prompt(engine, size, f"{size}") for size in range(3, 90, 4)]
    asked = Sampling(max_tokens=10, stop=("s",))
    done: list[int] = []
    answers = engine.generate_many(
        prompts, adapters[:1], asked, lambda index, answer: done.append(index)
    )
    assert sorted(done) == list(range(len(prompts)))
    for tokens, answer in zip(prompts, answers, strict=True):
        alone = engine.answer(tokens, adapters[:1], asked)
        assert replace(alone, cached_tokens=0) == answer


def test_scores_follow_from_logits(fresh: MakeEngine, adapters: list[AdapterRef]) -> None:
    engine = fresh(exact=True)
    tokens = prompt(engine, 100)
    rows = engine.logits(tokens, adapters[:1], start=29).astype(np.float64)
    logs = rows - np.log(np.exp(rows).sum(-1, keepdims=True))
    pairs = [(tokens[:30], tokens[30:]), (tokens[:5], tokens[5:9])] * 20
    scores = engine.score_many(pairs, adapters[:1])
    assert len(scores) == 40
    assert np.allclose(scores[38].logprobs, logs[np.arange(70), tokens[30:]], atol=1e-4)
    assert np.array_equal(scores[0].greedy, rows[:-1].argmax(-1))
    assert np.allclose(
        engine.score(tokens[:5], tokens[5:9], adapters[:1]).logprobs, scores[1].logprobs, atol=1e-4
    )
