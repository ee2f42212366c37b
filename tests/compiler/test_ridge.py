"""The regressions that a GGUF adapter keeps in its header."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.compiler import tiny
from tests.compiler.llama import Llama, loaded

from skillc_compiler.adapter import Adapter
from skillc_compiler.errors import AdapterError
from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.gguf_base import BaseInfo
from skillc_compiler.gguf_check import validate_adapter
from skillc_compiler.ridge import Ridge

MODULE, TARGET = "model.layers.0.mlp.down_proj", "blk.0.ffn_down.weight"
RANK = 12


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseInfo:
    return tiny.write_base(tmp_path_factory.mktemp("base") / "base.gguf")


def with_ridge(base: BaseInfo, change: Callable[[Ridge], Ridge] = lambda ridge: ridge) -> Adapter:
    made = tiny.adapter(base, ["mlp.down_proj"], rank=RANK)
    random = np.random.default_rng(0)
    spread = np.array(random.uniform(0.5, 2, made.pairs[MODULE].a.shape[1]), np.float32)
    gram = random.normal(size=(RANK, RANK)).astype(np.float32)
    return replace(made, ridges={MODULE: change(Ridge(0.25, spread, gram))})


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0"])
def test_the_file_keeps_them(base: BaseInfo, dtype: str) -> None:
    adapter = with_ridge(base)
    data = adapter_to_gguf(adapter, base, dtype)
    found = validate_adapter(data, base).ridges
    assert set(found) == {TARGET}
    ridge = adapter.ridges[MODULE]
    assert found[TARGET].alpha == ridge.alpha
    assert np.array_equal(found[TARGET].spread, ridge.spread)
    rank = 32 if dtype == "q8_0" else RANK  # padded
    assert np.array_equal(found[TARGET].gram, np.pad(ridge.gram, (0, rank - RANK)))


def test_llama_cpp_does_not_mind(base: BaseInfo, tmp_path: Path) -> None:
    plain = replace(with_ridge(base), ridges={})
    logits = []
    with Llama(base.path) as llama:
        for name, adapter in (("with", with_ridge(base)), ("without", plain)):
            path = tmp_path / f"{name}.gguf"
            path.write_bytes(adapter_to_gguf(adapter, base, "f16"))
            with loaded(llama, path) as handle:
                logits.append(llama.logits([1, 2, 3], [(handle, 1.0)]))
    assert np.array_equal(logits[0], logits[1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ridge: replace(ridge, gram=ridge.gram[:-1]), "does not fit rank 12"),
        (lambda ridge: replace(ridge, spread=ridge.spread[1:]), "does not fit rank 12"),
        (lambda ridge: replace(ridge, spread=-ridge.spread), "not above 0"),
        (lambda ridge: replace(ridge, alpha=0.0), "not above 0"),
        (lambda ridge: replace(ridge, alpha=float("inf")), "not finite"),
        (lambda ridge: replace(ridge, gram=ridge.gram * np.float32("nan")), "not finite"),
    ],
)
def test_those_that_cannot_be_are_refused(
    base: BaseInfo, change: Callable[[Ridge], Ridge], reason: str
) -> None:
    data = adapter_to_gguf(with_ridge(base, change), base, "f32")
    with pytest.raises(AdapterError, match=f"skillc.ridge.{TARGET} .*{reason}"):
        validate_adapter(data, base)
