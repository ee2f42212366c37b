"""Adapters that act from a token of the prompt on: what lies before it is the bare base's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tests.runtime.support import prompt
from tests.runtime.test_scheduler import Asked, alone, finish

from skillc_runtime.adapters import AdapterRef
from skillc_runtime.context import Entry
from skillc_runtime.engine import Engine
from skillc_runtime.sampling import log_softmax

MakeEngine = Callable[..., Engine]
SIZE, TAIL = 150, 101


def by_hand(engine: Engine, tokens: list[int], refs: list[AdapterRef], start: int) -> float:
    """Log probability of the first token of an answer, the adapter attached by hand."""
    with engine.turn(()):
        for at in range(0, start, 50):
            part = range(at, min(at + 50, start))
            engine.context.decode([Entry(tokens[i], i) for i in part])
        engine.context.attach(engine.adapters.get(refs))
        rest = range(start, len(tokens))
        engine.context.decode([Entry(tokens[i], i, output=i >= len(tokens) - 2) for i in rest])
        row = engine.context.row(len(rest) - 1)
    return float(log_softmax(row).max())


def test_prefix_is_decoded_without_the_adapter(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    engine = fresh()
    tokens = prompt(engine, SIZE)
    tail = alone(engine, tokens, adapters[:1], tail_from=TAIL)
    assert tail[0].logprob == by_hand(engine, tokens, adapters[:1], TAIL)
    assert tail != alone(engine, tokens, adapters[:1])
    assert tail != alone(engine, tokens, adapters[:1], tail_from=TAIL + 1)
    assert alone(engine, tokens, adapters[:1], tail_from=0) == alone(engine, tokens, adapters[:1])
    assert alone(engine, tokens, (), tail_from=TAIL) == alone(engine, tokens)


def test_all_sets_share_what_the_base_decoded(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    cold, warm = fresh(), fresh()
    tokens = prompt(warm, SIZE)
    sets = [[], adapters[:1], adapters[1:2], adapters[:2], adapters[:1]]
    cached = []
    for refs in sets:
        one = Asked(warm, tokens, refs, tail_from=TAIL)
        finish(warm)
        cached.append(one.cached)
        assert one.choices == alone(cold, tokens, refs, tail_from=TAIL)
    assert cached == [0, TAIL, TAIL, TAIL, SIZE - 1]


def test_sets_turned_on_at_once_share_it_too(fresh: MakeEngine, adapters: list[AdapterRef]) -> None:
    cold, engine = fresh(), fresh()
    tokens = prompt(engine, SIZE)
    asked = [Asked(engine, tokens, [ref], tail_from=TAIL) for ref in adapters]
    full = Asked(engine, tokens, adapters[:1])
    bare = Asked(engine, tokens)
    finish(engine)
    for ref, one in zip(adapters, asked, strict=True):
        assert one.choices == alone(cold, tokens, [ref], tail_from=TAIL)
    assert full.choices == alone(cold, tokens, adapters[:1])
    assert bare.choices == alone(cold, tokens)


def test_full_and_tail_never_share_what_an_adapter_decoded(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    engine = fresh()
    tokens = prompt(engine, SIZE)
    for tail_from, cached in ((None, 0), (TAIL, 0), (TAIL + 20, TAIL), (None, SIZE - 1)):
        one = Asked(engine, tokens, adapters[:1], tail_from=tail_from)
        finish(engine)
        assert one.cached == cached


@pytest.mark.parametrize("tail_from", [SIZE - 1, SIZE, 10 * SIZE])
def test_adapter_acts_on_the_last_token_at_the_latest(
    fresh: MakeEngine, adapters: list[AdapterRef], tail_from: int
) -> None:
    engine = fresh()
    tokens = prompt(engine, SIZE)
    found = alone(engine, tokens, adapters[:1], tail_from=tail_from)
    assert found == alone(engine, tokens, adapters[:1], tail_from=SIZE - 1)
    bare = alone(engine, tokens)
    assert not np.isclose(found[0].logprob or 0, bare[0].logprob or 0, atol=1e-3)
