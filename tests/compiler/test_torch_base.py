"""A base's GGUF as a transformers model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tests.compiler import tiny
from tests.compiler.llama import Llama

from skillc_compiler.errors import BaseModelError, CompilerError
from skillc_compiler.gguf_base import read_base_weights, write_base_gguf
from skillc_compiler.torch_base import load_torch_base

pytestmark = pytest.mark.slow

TEXT = "<|im_start|>user\nDeploy the orchard service, naïve café 日本語<|im_end|>\n<tool_call>"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [("f32", 1e-4), ("f16", 5e-3), ("q8_0", 0.2)])
def test_logits_equal_llama_cpp(tmp_path: Path, dtype: str, bound: float, tied: bool) -> None:
    import torch

    path = tiny.write_base(tmp_path / "base.gguf", dtype, tie_word_embeddings=tied).path
    model, tokenizer = load_torch_base(path)
    ids = tokenizer.encode(TEXT).ids
    with torch.inference_mode():
        theirs = model(torch.tensor([ids])).logits[0].numpy()
    with Llama(path) as llama:
        ours = llama.logits(ids)
    assert ours.std() > 0.5
    assert np.abs(ours - theirs).max() < bound


@pytest.mark.parametrize("tied", [True, False])
def test_model_is_float32_eval_and_tied_as_the_file(tmp_path: Path, tied: bool) -> None:
    import torch

    path = tiny.write_base(tmp_path / "base.gguf", "f16", tie_word_embeddings=tied).path
    model, _ = load_torch_base(path)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert sum(p.numel() for p in model.parameters()) == sum(
        value.size for value in read_base_weights(path)[1].values()
    )


def test_state_goes_back_into_the_same_bytes(tmp_path: Path) -> None:
    path, again = tmp_path / "base.gguf", tmp_path / "again.gguf"
    base = tiny.write_base(path)
    model, tokenizer = load_torch_base(path)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    write_base_gguf(
        again,
        model.config.to_dict(),
        state,
        tokenizer.to_str(),
        base.chat_template or "",
        dtype="f32",
        name=base.name,
    )
    assert again.read_bytes() == path.read_bytes()


def test_missing_torch_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CompilerError, match=r"torch is not installed: pip install"):
        load_torch_base(tmp_path / "base.gguf")


def test_missing_file_and_missing_tensor_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"cannot be read"):
        load_torch_base(tmp_path / "absent.gguf")
    base = tiny.write_base(tmp_path / "base.gguf")
    data = base.path.read_bytes()
    base.path.write_bytes(
        data.replace(b"qwen3.block_count\x04\0\0\0\x02", b"qwen3.block_count\x04\0\0\0\x03")
    )
    with pytest.raises(BaseModelError, match=r"do not fit") as caught:
        load_torch_base(base.path)
    assert "\n" not in str(caught.value)
