"""Prompts that left the context come back from memory, and give what they gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.support import prompt
from tests.runtime.test_scheduler import Asked, alone, finish

from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine
from skillc_runtime.resident import CHUNK, Origin, Slot
from skillc_runtime.snapshots import Snapshots

MakeEngine = Callable[..., Engine]
SIZE = 300


def test_prompt_comes_back_bit_for_bit(fresh: MakeEngine, adapters: list[AdapterRef]) -> None:
    cold, engine = fresh(), fresh(sequences=1)
    sets = [[], adapters[:1], adapters[:2]]
    prompts = [prompt(engine, SIZE, f"{number}") for number in range(3)]
    specs = [(tokens, refs) for tokens in prompts for refs in sets]
    for round_ in range(2):
        for spec in specs:
            asked = Asked(engine, *spec)
            finish(engine)
            assert asked.cached == round_ * (SIZE - 1)
            assert asked.choices == alone(cold, *spec)


def test_beginning_comes_back_for_another_prompt(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    cold, engine = fresh(), fresh(sequences=1)
    tokens = prompt(engine, SIZE)
    other = [*tokens[:200], *reversed(tokens[200:])]
    cached = []
    for spec in ((tokens, adapters[:1]), ([5, 6], []), (other, adapters[:1]), (other, [])):
        asked = Asked(engine, *spec, tail_from=150)
        finish(engine)
        cached.append(asked.cached)
        assert asked.choices == alone(cold, *spec, tail_from=150)
    assert cached == [0, 0, 200, 150]


def test_copies_stay_within_their_budget(fresh: MakeEngine) -> None:
    for budget, most in ((0, 0), (1 << 20, 9)):
        engine = fresh(sequences=1, snapshot_bytes=budget)
        for number in range(12):
            Asked(engine, prompt(engine, SIZE, f"{number}"), count=1)
            finish(engine)
        kept = engine.scheduler.slots.snapshots
        assert engine.counts.copied == kept.size <= budget
        assert bool(len(kept)) == bool(budget)
        assert len(kept) <= most


def test_least_recently_used_copies_go_first() -> None:
    kept = Snapshots(100)
    assert not kept.has_room(51)
    state = np.zeros(30, np.uint8)
    for number in range(3):
        kept.keep(Slot(0, [number] * 9), state)
    assert kept.nearest(Origin(), [0] * 20, 1, whole=True)[0] == 9
    kept.keep(Slot(0, [3] * 9), state)
    kept.keep(Slot(0, [3] * 9), state)
    found = [kept.nearest(Origin(), [number] * 20, 1, whole=True)[0] for number in range(4)]
    assert found == [9, 0, 9, 9]
    assert kept.nearest(Origin(), [0] * 5, 1, whole=True)[0] == 0
    assert kept.nearest(Origin(), [0] * 5, 1, whole=False)[0] == 4


def test_base_that_cannot_be_cut_goes_on_from_a_copy(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.compiler.stand_in import write_folder, write_gguf

    folder = write_folder(tmp_path / "hybrid", "qwen35")
    base = write_gguf(folder, tmp_path / "hybrid.gguf")
    engine, cold = (Engine(base, n_threads=1, n_ctx=1024) for _ in range(2))
    assert engine.context.recurrent
    tokens = [10 + i % 200 for i in range(3 * CHUNK + 9)]
    first = Asked(engine, tokens)
    finish(engine)
    other = [*tokens[:-3], 7, 8, 9, 10]
    more = [*tokens, *(choice.token for choice in first.choices)][: len(tokens) + 7]
    for spec, cached in ((other, 3 * CHUNK), ([*more, 5, 6], 0), (tokens, 3 * CHUNK)):
        asked = Asked(engine, spec)
        finish(engine)
        if cached:
            assert asked.cached == cached
        expected = alone(cold, spec)
        for one, two in zip(asked.choices, expected, strict=True):
            assert one.token == two.token
            assert np.isclose(one.logprob or 0, two.logprob or 0, atol=1e-2)
    engine.close()
    cold.close()
