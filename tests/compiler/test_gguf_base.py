"""Bases as GGUF files: written, described, read back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.compiler import tiny
from tests.compiler.llama import quantize

from skillc_compiler import file_hash
from skillc_compiler.chat import NANO_TEMPLATE
from skillc_compiler.errors import BaseModelError
from skillc_compiler.gguf_base import (
    read_base_info,
    read_base_weights,
    read_tokenizer,
    write_base_gguf,
)
from skillc_compiler.gguf_header import read_header
from skillc_compiler.gguf_names import LINEARS, tensor_names
from skillc_compiler.gguf_types import Kind


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("base")


def test_info_says_what_was_written(folder: Path) -> None:
    path = folder / "info.gguf"
    base = tiny.write_base(path)
    assert (base.name, base.path, base.arch) == ("tiny", path, "qwen3")
    assert (base.n_layers, base.hidden, base.context_length) == (2, 64, 256)
    assert (base.tied, base.vocab_size, base.chat_template) == (True, 520, NANO_TEMPLATE)
    assert base.hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert base.tensors["blk.1.ffn_down.weight"] == (64, 96)
    assert base.tensors["blk.0.attn_k.weight"] == (64, 64)
    assert base.metadata["qwen3.attention.head_count_kv"] == 2


def test_untied_base_has_an_output(folder: Path) -> None:
    base = tiny.write_base(folder / "untied.gguf", tie_word_embeddings=False)
    assert not base.tied
    _, weights = read_base_weights(base.path)
    assert weights["lm_head.weight"].shape == (520, 64)


def test_names_agree_with_the_gguf_package() -> None:
    from gguf import MODEL_ARCH, get_tensor_name_map

    theirs = get_tensor_name_map(MODEL_ARCH.QWEN3, 5)
    ours = tensor_names("qwen3", 5)
    assert len(ours) == 3 + 5 * 11
    for module, name in ours.items():
        assert f"{theirs.get_name(module)}.weight" == name
    assert all(f"model.layers.4.{linear}" in ours for linear in LINEARS)


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("tied", [True, False])
def test_same_input_same_bytes_and_round_trip(folder: Path, dtype: str, tied: bool) -> None:
    path, again = folder / f"{dtype}{tied}.gguf", folder / "again.gguf"
    tiny.write_base(path, dtype, tie_word_embeddings=tied)
    first = path.read_bytes()
    tiny.write_base(path, dtype, tie_word_embeddings=tied)
    assert path.read_bytes() == first
    values, weights = read_base_weights(path)
    description = read_tokenizer(path).to_str()
    write_base_gguf(again, values, weights, description, NANO_TEMPLATE, dtype=dtype, name="tiny")
    assert again.read_bytes() == first


@pytest.mark.parametrize(("dtype", "bound"), [("f32", 0.0), ("f16", 3e-4), ("q8_0", 4e-3)])
def test_weights_come_back(folder: Path, dtype: str, bound: float) -> None:
    values = tiny.config()
    state = tiny.state(values)
    base = tiny.write_base(folder / "weights.gguf", dtype)
    read_config, weights = read_base_weights(base.path)
    assert read_config["rms_norm_eps"] == 1e-6
    assert {k: read_config[k] for k in values.keys() & read_config.keys()} == {
        k: values[k] for k in values.keys() & read_config.keys()
    }
    assert weights.keys() == state.keys()
    for name, value in weights.items():
        assert value.dtype == np.float32
        exact = 0.0 if value.ndim == 1 else bound
        assert np.abs(value - state[name]).max() <= exact


def test_narrow_rows_stay_f16(folder: Path) -> None:
    base = tiny.write_base(folder / "narrow.gguf", "q8_0", intermediate_size=80)
    tensors = read_header(base.path).tensors
    kinds = {name: tensors[f"blk.0.{name}.weight"].dtype.name for name in ("ffn_down", "ffn_up")}
    assert kinds == {"ffn_down": "F16", "ffn_up": "Q8_0"}


def test_the_gguf_package_reads_it_too(folder: Path) -> None:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    base = tiny.write_base(folder / "theirs.gguf", "q8_0")
    reader = GGUFReader(base.path)
    header = read_header(base.path)
    assert [t.name for t in reader.tensors] == list(header.tensors)
    _, weights = read_base_weights(base.path)
    names = {v: k for k, v in tensor_names("qwen3", 2).items()}
    for tensor in reader.tensors:
        theirs = dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(theirs, weights[f"{names[tensor.name]}.weight"])
    ours = {k: f.value for k, f in header.fields.items() if f.kind is not Kind.ARRAY}
    assert ours == {k: reader.fields[k].contents() for k in ours}
    texts = header.fields["tokenizer.ggml.tokens"].value.strings()
    assert texts == reader.fields["tokenizer.ggml.tokens"].contents()


@pytest.mark.parametrize(
    ("kind", "bound"), [("Q4_0", 0.12), ("Q5_1", 0.05), ("Q8_0", 5e-3), ("Q4_K_M", 0.1)]
)
def test_bases_quantised_by_llama_cpp(folder: Path, kind: str, bound: float) -> None:
    source, target = folder / "wide.gguf", folder / f"{kind}.gguf"
    tiny.write_base(source, hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    quantize(source, target, kind)
    _, before = read_base_weights(source)
    _, after = read_base_weights(target)
    assert after.keys() == before.keys()
    kinds = {info.dtype.name for info in read_header(target).tensors.values()}
    assert kinds & {kind, kind.removesuffix("_M")}
    for name, value in after.items():
        assert np.abs(value - before[name]).max() < bound


def test_hash_follows_a_change(folder: Path) -> None:
    path = folder / "hash.gguf"
    first = tiny.write_base(path).hash
    assert tiny.write_base(path, seed=1).hash != first
    assert read_base_info(path).hash == hashlib.sha256(path.read_bytes()).hexdigest()


def test_large_hashes_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hash, "REMEMBER_BYTES", 4)
    path = tmp_path / "big"
    path.write_bytes(b"12345678")
    settle(path, -100)
    expected = hashlib.sha256(b"12345678").hexdigest()
    assert file_hash.file_sha256(path) == expected
    file_hash._by_identity.cache_clear()
    monkeypatch.setattr(file_hash, "_digest", lambda path: pytest.fail("read again"))
    assert file_hash.file_sha256(path) == expected
    monkeypatch.setattr(file_hash, "_digest", lambda path: "new")
    settle(path, -50)
    assert file_hash.file_sha256(path) == "new"
    for note in (tmp_path / "cache").rglob("*.json"):
        note.write_text("torn", encoding="utf-8")
    file_hash._by_identity.cache_clear()
    assert file_hash.file_sha256(path) == "new"


def settle(path: Path, seconds: int) -> None:
    stamp = path.stat().st_ctime + seconds
    os.utime(path, (stamp, stamp))


def bias(values: dict[str, Any], state: dict[str, Any]) -> None:
    values["attention_bias"] = True


def sliding(values: dict[str, Any], state: dict[str, Any]) -> None:
    values["use_sliding_window"] = True


def yarn(values: dict[str, Any], state: dict[str, Any]) -> None:
    values["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}


def other_model(values: dict[str, Any], state: dict[str, Any]) -> None:
    values["model_type"] = "llama"


def missing(values: dict[str, Any], state: dict[str, Any]) -> None:
    del state["model.norm.weight"]


def unknown(values: dict[str, Any], state: dict[str, Any]) -> None:
    state["model.extra.weight"] = np.ones(3, np.float32)


def misshapen(values: dict[str, Any], state: dict[str, Any]) -> None:
    state["model.norm.weight"] = np.ones(65, np.float32)


def infinite(values: dict[str, Any], state: dict[str, Any]) -> None:
    state["model.layers.0.mlp.up_proj.weight"][3, 4] = np.inf


def overflow(values: dict[str, Any], state: dict[str, Any]) -> None:
    state["model.layers.0.mlp.up_proj.weight"][3, 4] = 1e6


def small_vocabulary(values: dict[str, Any], state: dict[str, Any]) -> None:
    values["vocab_size"] = 100
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"][:100]


def wild_eos(values: dict[str, Any], state: dict[str, Any]) -> None:
    values["eos_token_id"] = 520


@pytest.mark.parametrize(
    "damage",
    [
        bias,
        sliding,
        yarn,
        other_model,
        missing,
        unknown,
        misshapen,
        infinite,
        overflow,
        small_vocabulary,
        wild_eos,
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    values = tiny.config()
    state = tiny.state(values)
    damage(values, state)
    with pytest.raises(BaseModelError) as caught:
        write_base_gguf(tmp_path / "x.gguf", values, state, tiny.tokenizer_json(), "", dtype="f16")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_string_the_reader_would_refuse_is_not_written(tmp_path: Path) -> None:
    values = tiny.config()
    with pytest.raises(BaseModelError, match="65537 bytes"):
        write_base_gguf(
            tmp_path / "x.gguf", values, tiny.state(values), tiny.tokenizer_json(), "x" * 65537
        )


def test_unknown_dtype(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="q4_0"):
        tiny.write_base(tmp_path / "x.gguf", "q4_0")


def test_an_adapter_is_no_base(tmp_path: Path) -> None:
    base = tiny.write_base(tmp_path / "x.gguf")
    damaged = base.path.read_bytes().replace(b"\x05\0\0\0\0\0\0\0model", b"\x05\0\0\0\0\0\0\0adapt")
    base.path.write_bytes(damaged)
    with pytest.raises(BaseModelError, match="not a model"):
        read_base_info(base.path)


@pytest.mark.parametrize("read", [read_base_info, read_base_weights, read_tokenizer])
def test_unreadable_bases(tmp_path: Path, read: Callable[[Path], object]) -> None:
    good = tiny.write_base(tmp_path / "good.gguf").path.read_bytes()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    paths = [fifo, tmp_path, tmp_path / "absent", Path(os.devnull)]
    for i, data in enumerate((b"", b"GGUF", good[:500], good[:-5000], b"\0" * 99)):
        paths.append(tmp_path / str(i))
        paths[-1].write_bytes(data)
    for path in paths:
        with pytest.raises(BaseModelError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
