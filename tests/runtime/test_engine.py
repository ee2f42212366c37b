"""The engine: what is attached acts, and nothing of it stays behind."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.support import prompt, write_adapter

from skillc_compiler.errors import ServeError
from skillc_compiler.gguf_base import BaseInfo
from skillc_compiler.gguf_check import read_header
from skillc_compiler.gguf_types import DType
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.batched import decode_rows
from skillc_runtime.context import Entry
from skillc_runtime.engine import Engine
from skillc_runtime.events import Finish, Piece, Started
from skillc_runtime.llama import LoadedAdapter, lib
from skillc_runtime.resident import CHUNK
from skillc_runtime.sampling import Choice, Row, Sampling
from skillc_runtime.stack import stack

MakeEngine = Callable[..., Engine]


def trace(
    engine: Engine, tokens: Sequence[int], adapters: Sequence[AdapterRef] = (), count: int = 12
) -> tuple[int, list[Choice]]:
    """Cached tokens, and each choice with every token's log probability: equal means bit-equal."""
    asked = Sampling(max_tokens=count, logprobs=engine.model.vocab.size)
    events = list(engine.generate(tokens, adapters, asked))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finish)
    return events[0].cached_tokens, [e.choice for e in events if isinstance(e, Piece)]


def test_a_then_b_equals_cold_b(fresh: MakeEngine, adapters: list[AdapterRef]) -> None:
    a, b, *_ = adapters
    warm, cold = fresh(), fresh()
    tokens = prompt(warm, 3 * CHUNK + 5)
    trace(warm, tokens, [a])
    assert trace(warm, tokens, [b]) == trace(cold, tokens, [b])


def test_base_is_bit_identical_after_adapters(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    engine = fresh()
    tokens = prompt(engine, 100)
    before = engine.logits(tokens)
    for ref in adapters:
        assert np.abs(engine.logits(tokens, [ref]) - before).max() > 0.1
        engine.generate_many([tokens, tokens[:50]], [ref], Sampling(max_tokens=4))
    assert np.array_equal(engine.logits(tokens), before)
    assert np.array_equal(fresh().logits(tokens), before)


@pytest.mark.parametrize("extra", [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 7])
@pytest.mark.parametrize("with_adapter", [False, True])
def test_reused_prefix_is_bit_identical(
    fresh: MakeEngine, adapters: list[AdapterRef], extra: int, with_adapter: bool
) -> None:
    refs = adapters[:1] if with_adapter else []
    warm, cold = fresh(), fresh()
    tokens = prompt(warm, 2 * CHUNK + 9)
    trace(warm, tokens, refs)
    longer = [*tokens, *prompt(warm, extra, "other words")] if extra else tokens
    cached, choices = trace(warm, longer, refs)
    assert cached == min(len(tokens), len(longer) - 1)
    assert (0, choices) == trace(cold, longer, refs)


def test_prefix_is_reused_up_to_the_token_that_differs(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    warm, cold = fresh(), fresh()
    tokens = prompt(warm, 4 * CHUNK)
    trace(warm, tokens, adapters[:1])
    other = [*tokens[: CHUNK + 3], *reversed(tokens[CHUNK + 3 :])]
    cached, choices = trace(warm, other, adapters[:1])
    assert cached == CHUNK + 3
    assert (0, choices) == trace(cold, other, adapters[:1])


@pytest.mark.parametrize("change", ["none", "scale", "order", "more"])
def test_prefix_is_never_reused_across_sets(
    fresh: MakeEngine, adapters: list[AdapterRef], change: str
) -> None:
    first = adapters[:2]
    second = {
        "none": [],
        "scale": [first[0], replace(first[1], scale=0.5)],
        "order": first[::-1],
        "more": adapters[:3],
    }[change]
    warm, cold = fresh(), fresh()
    tokens = prompt(warm, 2 * CHUNK)
    trace(warm, tokens, first)
    result = trace(warm, tokens, second)
    assert result[0] == 0
    assert result == trace(cold, tokens, second)


def test_random_switches_equal_cold_runs(fresh: MakeEngine, adapters: list[AdapterRef]) -> None:
    rng = np.random.default_rng(3)
    warm = fresh(max_adapters=2)
    sets = [[], adapters[:1], adapters[1:3], adapters, [replace(adapters[3], scale=0.5)]]
    prompts = [prompt(warm, size) for size in (20, 70, 130)]
    expected = {}
    for s, refs in enumerate(sets):
        for p, tokens in enumerate(prompts):
            expected[s, p] = trace(fresh(), tokens, refs, 5)[1]
    for _ in range(60):
        s, p = int(rng.integers(len(sets))), int(rng.integers(len(prompts)))
        assert trace(warm, prompts[p], sets[s], 5)[1] == expected[s, p]


def test_two_adapters_add_at_their_scales(fresh: MakeEngine, adapters: list[AdapterRef]) -> None:
    engine = fresh(exact=True)
    tokens = prompt(engine, 40)
    a, b = replace(adapters[0], scale=0.5), replace(adapters[1], scale=-0.25)
    both = engine.logits(tokens, [a, b])
    assert np.abs(both - engine.logits(tokens, [a])).max() > 0.05
    assert np.abs(both - engine.logits(tokens, [b])).max() > 0.05
    assert np.allclose(both, separately(engine, tokens, [a, b]), atol=1e-4)
    assert np.allclose(engine.logits(tokens, [b, a]), both, atol=1e-5)
    halves = [replace(a, scale=0.25), b, replace(a, scale=0.25)]
    assert np.allclose(engine.logits(tokens, halves), both, atol=1e-5)
    off = replace(a, scale=0.0)
    assert np.array_equal(engine.logits(tokens, [off]), engine.logits(tokens))
    assert np.array_equal(engine.logits(tokens, [off, b]), engine.logits(tokens, [b]))


def test_set_of_float16_adapters_is_float16_with_padded_ranks(
    fresh: MakeEngine, base: BaseInfo, tmp_path: Path
) -> None:
    engine = fresh(exact=True)
    tokens = prompt(engine, 40)
    refs = [write_adapter(tmp_path, base, seed, 0.5, dtype="f16") for seed in (1, 2)]
    layers = [engine.adapters._read(ref) for ref in refs]
    for scale, dtype, rank in ((0.5, DType.F16, 32), (1e7, DType.F32, 8)):
        stacked = stack([replace(layer, scale=scale) for layer in layers], base.arch)
        tensors = read_header(stacked).tensors.values()
        assert {info.dtype for info in tensors} == {dtype}
        assert {min(info.shape) for info in tensors} == {rank}
    both = engine.logits(tokens, refs)
    assert np.abs(both - engine.logits(tokens, refs[:1])).max() > 0.05
    assert np.allclose(both, separately(engine, tokens, refs), atol=5e-3)


def separately(engine: Engine, tokens: list[int], refs: list[AdapterRef]) -> Row:
    """Logits with each adapter attached by itself, by llama.cpp's own means."""
    loaded = [LoadedAdapter(engine.model, ref.path.read_bytes()) for ref in refs]
    handles = (lib.llama_adapter_lora_p_ctypes * len(refs))(*(one.handle for one in loaded))
    scales = (ctypes.c_float * len(refs))(*(ref.scale for ref in refs))
    with engine.turn(()):
        assert lib.llama_set_adapters_lora(engine.context.handle, handles, len(refs), scales) == 0
        entries = [Entry(token, at, output=True) for at, token in enumerate(tokens)]
        rows = np.stack([row for _, row in decode_rows(engine.context, entries)])
        engine.context.attach(None)
    for one in loaded:
        one.free()
    return rows


def test_least_recently_used_adapters_are_freed(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    engine = fresh(max_adapters=2)
    tokens = prompt(engine, 10)
    for ref in adapters[:3]:
        engine.logits(tokens, [ref])
    assert len(engine.adapters) == 2
    engine.logits(tokens, [adapters[2]])
    assert engine.adapters.loads == 3
    engine.logits(tokens, [adapters[0]])
    assert engine.adapters.loads == 4
    engine.logits(tokens, [replace(adapters[0], scale=0.5)])
    assert engine.adapters.loads == 4
    engine.logits(tokens, adapters)
    engine.logits(tokens, adapters)
    assert (engine.adapters.loads, len(engine.adapters)) == (5, 2)


def test_cancel_ends_before_the_next_decode(engine: Engine) -> None:
    cancel = threading.Event()
    events = engine.generate(prompt(engine, 30), (), Sampling(max_tokens=500), cancel)
    assert isinstance(next(events), Started)
    assert isinstance(next(events), Piece)
    cancel.set()
    rest = list(events)
    assert [type(event) for event in rest] == [Finish]
    assert isinstance(rest[0], Finish)
    assert rest[0].reason == "cancelled"


def test_cancelled_prompt_leaves_no_torn_prefix(fresh: MakeEngine) -> None:
    warm, cold = fresh(), fresh()
    tokens = prompt(warm, 5 * CHUNK)
    cancel = threading.Event()
    cancel.set()
    assert list(warm.generate(tokens, cancel=cancel)) == [Finish("cancelled")]
    assert trace(warm, tokens) == trace(cold, tokens)


def test_closed_iterator_gives_the_turn_back(fresh: MakeEngine) -> None:
    engine = fresh()
    tokens = prompt(engine, 2 * CHUNK)
    events = engine.generate(tokens, (), Sampling(max_tokens=100))
    assert [type(next(events)) for _ in range(5)] == [Started, Piece, Piece, Piece, Piece]
    events.close()  # type: ignore[attr-defined]
    assert trace(engine, tokens)[1] == trace(fresh(), tokens)[1]


def test_answer_ends_at_the_context_and_at_max_tokens(engine: Engine) -> None:
    tokens = prompt(engine, engine.n_ctx - 3)
    answer = engine.answer(tokens, (), Sampling(max_tokens=50))
    assert (len(answer.tokens), answer.finish_reason) == (3, "length")
    assert len(engine.answer(prompt(engine, 9), (), Sampling(max_tokens=2)).tokens) == 2


def test_prompts_that_do_not_fit_are_refused(engine: Engine) -> None:
    with pytest.raises(ServeError, match="no tokens"):
        engine.answer([])
    with pytest.raises(ServeError, match="the context has 1024"):
        engine.answer([1] * engine.n_ctx)
    with pytest.raises(ServeError, match="cannot score"):
        engine.score([1], [])


def test_stop_strings_end_the_answer(engine: Engine) -> None:
    tokens = prompt(engine, 25)
    whole = engine.answer(tokens, (), Sampling(max_tokens=30)).text
    stop = whole[10:13]
    answer = engine.answer(tokens, (), Sampling(max_tokens=30, stop=("never", stop)))
    assert answer.text == whole[: whole.find(stop)]
    assert answer.finish_reason == "stop"


def test_same_seed_same_answer(engine: Engine) -> None:
    tokens = prompt(engine, 25)
    asked = Sampling(max_tokens=20, temperature=1.0, seed=7)
    first = engine.answer(tokens, (), asked)
    assert engine.answer(tokens, (), asked).tokens == first.tokens
    assert engine.answer(tokens, (), replace(asked, seed=8)).tokens != first.tokens


def test_failed_decode_leaves_a_clean_engine(
    fresh: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fresh()
    tokens = prompt(engine, 2 * CHUNK + 1)
    expected = trace(engine, tokens)[1]
    with monkeypatch.context() as patch:
        patch.setattr("skillc_runtime.context.lib.llama_decode", lambda *_: -3)
        with pytest.raises(ServeError, match="failed to decode"):
            engine.answer(tokens)
    assert trace(engine, tokens) == (0, expected)


def test_base_that_cannot_cut_a_sequence_starts_over(
    fresh: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recurrent and hybrid bases refuse to drop the end of a sequence."""
    engine = fresh()
    tokens = prompt(engine, 2 * CHUNK + 1)
    expected = trace(engine, tokens)
    forget = engine.context.forget
    monkeypatch.setattr(
        engine.context, "forget", lambda seq=-1, start=0: start == 0 and forget(seq, start)
    )
    assert trace(engine, tokens) == expected


def test_engine_reads_a_base_by_its_path(engine: Engine) -> None:
    again = Engine(engine.base.path, n_threads=1, n_ctx=256)
    assert (again.base, again.n_ctx) == (engine.base, 256)
    tokens = again.tokenize("naïve 日本<|im_end|>")
    assert again.detokenize(tokens) == "naïve 日本<|im_end|>"
    assert again.detokenize(again.tokenize("a<|im_end|>b", special=True)) == "ab"
    for _ in range(2):
        again.close()
    with pytest.raises(ServeError, match="closed"):
        again.answer(tokens)
