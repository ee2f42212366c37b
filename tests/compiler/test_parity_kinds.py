"""Every architecture: an adapter acts in llama.cpp as its PEFT folder does in transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.compiler import parity, stand_in
from tests.compiler.parity import TOKENS

from skillc_compiler.gguf_adapter import adapter_to_gguf

pytestmark = pytest.mark.slow

# llama.cpp looks GELU up in a table of float16: Gemma differs that much without an adapter too. A
# recurrent state carries what is rounded from token to token, the more so in a random model.
BOUNDS = {"f32": 1e-4, "f16": 8e-3, "q8_0": 0.3}
WIDER = {
    "gemma3": {"f32": 8e-3, "f16": 1.6e-2, "q8_0": 0.3},
    "qwen35": {"f32": 1e-3, "f16": 0.2, "q8_0": 1.5},
}


@pytest.mark.parametrize("kind", stand_in.KINDS)
def test_every_target_and_type(kind: str, tmp_path: Path) -> None:
    with parity.opened(kind, tmp_path) as pair:
        found = list(parity.rows(pair, kind))
        targets = stand_in.targets(pair.base)
    assert {row.target for row in found} == {"no adapter", "all targets", *targets}
    assert len(found) == 1 + 3 * (len(targets) + 1)
    for row in found:
        assert row.difference < WIDER.get(kind, BOUNDS)[row.dtype], row
        assert row.effect > (0.05 if row.target != "no adapter" else -1), row


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("qwen3", {"tie_word_embeddings": False}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("llama", {"tie_word_embeddings": True, "rope_parameters": None}),
        ("llama", {"num_key_value_heads": 4, "head_dim": 24}),
        ("mistral", {"num_key_value_heads": 1}),
        ("qwen35", {"linear_num_value_heads": 2, "tie_word_embeddings": True}),
        (
            "gemma3",
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                }
            },
        ),
    ],
)
def test_variants(kind: str, changes: dict[str, object], tmp_path: Path) -> None:
    with parity.opened(kind, tmp_path, **changes) as pair:
        adapter = stand_in.adapter(pair.base, stand_in.targets(pair.base), rank=8, seed=2)
        difference = np.abs(pair.served(adapter, "f32") - pair.peft(adapter)).max()
    assert difference < WIDER.get(kind, BOUNDS)["f32"]


def test_the_order_of_rows_matters(tmp_path: Path) -> None:
    """Without the change of rows a Llama adapter would be silently another one."""
    with parity.opened("llama", tmp_path) as pair:
        adapter = stand_in.adapter(pair.base, ["self_attn.q_proj"], rank=8, seed=3)
        right = adapter_to_gguf(adapter, pair.base)
        same = adapter.pairs["model.layers.0.self_attn.q_proj"].b.astype("<f4").tobytes()
        assert same not in right
        theirs = pair.peft(adapter)
        ours = pair.served(adapter, "f32")
        bare = pair.llama.logits(TOKENS)
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(ours - bare).max()
