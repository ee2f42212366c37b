"""Adapters that must not be attached: malformed, foreign, swapped, not finite."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.support import random_adapter

from skillc_compiler.adapter import Adapter, LoraPair
from skillc_compiler.errors import AdapterError, ServeError
from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.gguf_base import BaseInfo
from skillc_runtime.adapters import AdapterRef, BadAdapterError
from skillc_runtime.engine import Engine
from skillc_runtime.llama import LoadedAdapter, Model
from skillc_runtime.sampling import Sampling

MakeEngine = Callable[..., Engine]


def write(folder: Path, data: bytes) -> AdapterRef:
    path = folder / f"{hashlib.sha256(data).hexdigest()[:8]}.gguf"
    path.write_bytes(data)
    return AdapterRef(path, hashlib.sha256(data).hexdigest())


def with_value(base: BaseInfo, value: float) -> bytes:
    """A random adapter's file with every weight of one factor set to `value`."""
    adapter = random_adapter(base, 1)
    name, pair = next(iter(adapter.pairs.items()))
    bad = LoraPair(np.full_like(pair.a, 1.25), pair.b)
    data = adapter_to_gguf(Adapter({name: bad}, 4.0, adapter.manifest), base)
    return data.replace(np.float32(1.25).tobytes(), np.float32(value).tobytes())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"GGUF" + bytes(200),
        lambda data: data[:-100],
        lambda data: data.replace(b"lora_a", b"lora_c"),
        lambda data: data.replace(b"adapter.lora.alpha\x06", b"adapter.lora.alpha\x04"),
        lambda data: data.replace(b"qwen3", b"llama"),
    ],
)
def test_malformed_files_never_reach_the_library(
    engine: Engine, base: BaseInfo, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    ref = write(tmp_path, spoil(adapter_to_gguf(random_adapter(base, 1), base)))
    with pytest.raises(AdapterError) as refusal:
        engine.logits([1, 2], [ref])
    assert str(ref.path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e4])
def test_weights_that_are_not_finite_are_refused(
    engine: Engine, base: BaseInfo, tmp_path: Path, value: float
) -> None:
    with pytest.raises(AdapterError):
        engine.logits([1, 2], [write(tmp_path, with_value(base, value))])


def test_file_must_be_the_one_that_was_built(
    engine: Engine, base: BaseInfo, tmp_path: Path
) -> None:
    ref = write(tmp_path, adapter_to_gguf(random_adapter(base, 31), base))
    other = write(tmp_path, adapter_to_gguf(random_adapter(base, 32), base))
    with pytest.raises(AdapterError, match="not the adapter that was built"):
        engine.logits([1], [replace(ref, path=other.path)])
    with pytest.raises(AdapterError, match="No such file"):
        engine.logits([1], [replace(ref, path=tmp_path / "missing.gguf")])
    with pytest.raises(AdapterError, match="not a regular file"):
        engine.logits([1], [replace(ref, path=tmp_path)])
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(AdapterError, match="not a regular file"):
        engine.logits([1], [replace(ref, path=tmp_path / "fifo")])
    assert engine.logits([1], [ref]).shape[0] == 1


def test_loaded_adapter_does_not_need_its_file(
    fresh: MakeEngine, base: BaseInfo, tmp_path: Path
) -> None:
    engine = fresh()
    ref = write(tmp_path, adapter_to_gguf(random_adapter(base, 33), base))
    before = engine.logits([1, 2, 3], [ref])
    ref.path.write_bytes(b"overwritten")
    assert np.array_equal(engine.logits([1, 2, 3], [ref]), before)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch, base: BaseInfo, tmp_path: Path) -> AdapterRef:
    """An adapter full of NaN that slips through every check of its bytes."""
    good = adapter_to_gguf(random_adapter(base, 1), base)
    ref = write(tmp_path, good)
    load = LoadedAdapter.__init__

    def poisoned(self: LoadedAdapter, model: Model, data: bytes) -> None:
        load(self, model, with_value(base, np.nan) if data == good else data)

    monkeypatch.setattr(LoadedAdapter, "__init__", poisoned)
    return ref


def test_not_finite_logits_set_the_adapter_aside(
    fresh: MakeEngine, unchecked: AdapterRef, adapters: list[AdapterRef]
) -> None:
    tokens = list(range(10, 100))
    expected = fresh().logits(tokens)
    engine = fresh()
    for _ in range(2):
        with pytest.raises(BadAdapterError, match="the base computes NaN or infinity; set aside"):
            engine.answer(tokens, [unchecked])
    assert engine.adapters.loads == 1
    with pytest.raises(BadAdapterError, match="set aside"):
        engine.answer(tokens, [adapters[0], unchecked])
    assert engine.adapters.loads == 1
    with pytest.raises(BadAdapterError, match="set aside"):
        engine.answer(tokens, [replace(unchecked, scale=0.5)])
    assert np.array_equal(engine.logits(tokens), expected)
    assert len(engine.answer(tokens, adapters[:1], Sampling(max_tokens=3)).tokens) == 3


@pytest.mark.parametrize("exact", [False, True])
def test_nothing_of_it_reaches_later_requests(
    fresh: MakeEngine, unchecked: AdapterRef, exact: bool
) -> None:
    tokens = list(range(10, 100))
    expected = fresh(exact=exact).logits(tokens)
    engine = fresh(exact=exact)
    for run in (
        lambda: engine.generate_many([tokens, tokens[:20]], [unchecked]),
        lambda: engine.score(tokens[:5], tokens[5:], [unchecked]),
        lambda: engine.logits(tokens, [unchecked]),
    ):
        with pytest.raises(AdapterError):
            run()
        assert np.array_equal(engine.logits(tokens), expected)


def test_base_that_is_not_finite_is_no_adapters_fault(
    fresh: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fresh()
    size = engine.model.vocab.size
    monkeypatch.setattr(engine.context, "row", lambda index: np.full(size, np.nan, np.float32))
    with pytest.raises(ServeError, match="the base computes NaN"):
        engine.answer([1, 2, 3])
