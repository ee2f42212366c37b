"""Bases of every architecture: written from a folder, read back, refused with one line."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.compiler import stand_in, tiny
from tests.compiler.llama import Llama
from tokenizers import Tokenizer

from skillc_compiler import arch
from skillc_compiler.arch.architecture import INVERSE_FREQUENCIES
from skillc_compiler.arch.llama import llama3_factors
from skillc_compiler.bases import Base
from skillc_compiler.errors import BaseModelError, CompilerError
from skillc_compiler.gguf_base import read_base_info, read_base_weights
from skillc_compiler.gguf_header import read_header
from skillc_compiler.gguf_names import ARCHITECTURES, tensor_names
from skillc_compiler.gguf_tokenizer import read_tokenizer
from skillc_compiler.hf_folder import HfFolder, find_hf
from skillc_compiler.torch_base import load_base, load_hf, load_torch_base

pytestmark = pytest.mark.slow
KINDS = list(stand_in.KINDS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model folder and one float32 GGUF of every kind."""
    root = tmp_path_factory.mktemp("kinds")
    for kind in KINDS:
        stand_in.write_gguf(stand_in.write_folder(root / kind, kind), root / f"{kind}.gguf")
    return root


def test_every_architecture_is_tried() -> None:
    types = {"gemma3": "gemma3_text", "qwen35": "qwen3_5_text"}
    tried = {arch.of_config({"model_type": types.get(kind, kind)}).name for kind in KINDS}
    assert tried == set(ARCHITECTURES)
    assert {kind.causal for kind in arch.ALL} >= {"MistralForCausalLM", "Gemma3ForCausalLM"}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_agree_with_the_gguf_package(name: str) -> None:
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    number = next(key for key, value in MODEL_ARCH_NAMES.items() if value == name)
    theirs = get_tensor_name_map(number, 3)
    for module, tensor in tensor_names(name, 3).items():
        assert f"{theirs.get_name(module)}.weight" == tensor


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_back(folders: Path, kind: str) -> None:
    config, weights = read_base_weights(folders / f"{kind}.gguf")
    weights.pop(INVERSE_FREQUENCIES, None)
    written = HfFolder.open(folders / kind)
    state = written.weights()
    tied = {"lm_head.weight"} if config["tie_word_embeddings"] else set()
    assert weights.keys() == state.keys() - tied
    for name, value in weights.items():
        assert value.shape == state[name].shape
        assert np.abs(value - state[name]).max() < 1e-6, name
    for key in ("hidden_size", "num_key_value_heads", "head_dim", "vocab_size", "eos_token_id"):
        assert config[key] == written.config.get(key, config[key])


@pytest.mark.parametrize("kind", KINDS)
def test_gguf_alone_gives_the_same_model(folders: Path, kind: str) -> None:
    import torch

    tokens = torch.tensor([[1, 300, 41, 77, 200, 505, 90, 12] * 6])
    with torch.inference_mode():
        theirs = load_hf(folders / kind)(tokens).logits
        ours = load_torch_base(folders / f"{kind}.gguf")[0](tokens).logits
    assert theirs.std() > 0.5
    assert (ours - theirs).abs().max() < (1e-3 if kind == "qwen35" else 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_agree_three_ways(folders: Path, kind: str) -> None:
    original = Tokenizer.from_file(str(folders / kind / "tokenizer.json"))
    read = read_tokenizer(folders / f"{kind}.gguf")
    specials = "".join(stand_in.SPECIALS[stand_in.KINDS[kind][2]][1:])
    texts = [*tiny.stress_strings(), f"a {specials}b\n{specials}", "  two  spaces\n\n"]
    with Llama(folders / f"{kind}.gguf") as llama:
        for text in texts:
            # U+017F folds to s: there published patterns and llama.cpp part.
            plain = unicodedata.normalize("NFC", text).replace("\u017f", "s")
            ids = llama.tokenize(plain, True)
            assert read.encode(plain).ids == ids, repr(plain)
            if specials not in plain or kind != "mistral":
                assert original.encode(plain, add_special_tokens=False).ids == ids, repr(plain)
            assert read.decode(ids) or not ids or specials in plain or not plain.isprintable()


@pytest.mark.parametrize(("dtype", "bound"), [("f16", 2e-3), ("q8_0", 2e-2)])
@pytest.mark.parametrize("kind", KINDS)
def test_other_storage_types(
    folders: Path, kind: str, dtype: str, bound: float, tmp_path: Path
) -> None:
    base = stand_in.write_gguf(folders / kind, tmp_path / "base.gguf", dtype)
    _, exact = read_base_weights(folders / f"{kind}.gguf")
    for name, value in read_base_weights(base.path)[1].items():
        assert np.abs(value - exact[name]).max() <= bound * max(1.0, np.abs(value).max()), name


def test_weights_are_read_piece_by_piece(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skillc_compiler import gguf_write

    monkeypatch.setattr(gguf_write, "_PIECE", 1000)
    again = stand_in.write_gguf(folders / "llama", tmp_path / "base.gguf", "f32")
    assert again.path.read_bytes() == (folders / "llama.gguf").read_bytes()


def test_bfloat16_shards(folders: Path, tmp_path: Path) -> None:
    import torch

    load_hf(folders / "llama", dtype="bfloat16").save_pretrained(tmp_path / "half")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "half" / name).write_bytes((folders / "llama" / name).read_bytes())
    base = stand_in.write_gguf(tmp_path / "half", tmp_path / "base.gguf")
    _, weights = read_base_weights(base.path)
    for name, value in load_hf(tmp_path / "half").state_dict().items():
        assert value.dtype == torch.float32
        assert np.array_equal(weights[name], value.numpy()), name


def test_text_part_of_a_model_that_sees_images(tmp_path: Path) -> None:
    import torch
    import transformers

    alone = stand_in.write_folder(tmp_path / "alone", "gemma3")
    text = transformers.AutoConfig.from_pretrained(alone)
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
    config = transformers.Gemma3Config(text_config=text, vision_config=vision)
    both = transformers.Gemma3ForConditionalGeneration(config)
    inner = load_hf(alone)
    both.model.language_model.load_state_dict(inner.model.state_dict())
    both.save_pretrained(tmp_path / "both")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "both" / name).write_bytes((alone / name).read_bytes())
    first = stand_in.write_gguf(alone, tmp_path / "alone.gguf")
    second = stand_in.write_gguf(tmp_path / "both", tmp_path / "both.gguf")
    assert second.tensors == first.tensors
    assert second.path.read_bytes()[-4000:] == first.path.read_bytes()[-4000:]
    tokens = torch.tensor([[1, 300, 41, 77]])
    with torch.inference_mode():
        assert torch.equal(load_hf(tmp_path / "both")(tokens).logits, inner(tokens).logits)


def test_llama3_rope_scaling_by_hand() -> None:
    """Three frequencies of Llama 3.1: unchanged, between, and eight times slower."""
    config = {"head_dim": 128, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}, "rope_theta": 500000.0}  # fmt: skip
    found = llama3_factors(config)
    assert len(found) == 64
    assert found[0] == 1.0
    assert found[-1] == 8.0
    # Wavelength at 30: 2 pi 500000^(60/128) = 2948.9; smooth = (8192 / 2948.9 - 1) / 3 = 0.5927.
    assert found[30] == pytest.approx(1 / ((1 - 0.5927) / 8 + 0.5927), rel=1e-3)


def test_a_window_bounds_the_context_of_mistral(tmp_path: Path) -> None:
    folder = stand_in.write_folder(tmp_path / "mistral", "mistral", sliding_window=100)
    assert stand_in.write_gguf(folder, tmp_path / "base.gguf").context_length == 100


def test_bos_and_template_travel(folders: Path) -> None:
    for kind in KINDS:
        names = stand_in.SPECIALS[stand_in.KINDS[kind][2]]
        header = read_header(folders / f"{kind}.gguf")
        assert header.fields["tokenizer.ggml.bos_token_id"].value == 1
        adds = header.fields["tokenizer.ggml.add_bos_token"].value
        assert adds is (kind in ("llama", "mistral", "gemma3"))
        template = read_base_info(folders / f"{kind}.gguf").chat_template
        assert template is not None
        assert names[2] in template


def change(name: str, **values: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        parsed = json.loads((folder / name).read_text("utf-8"))
        parsed.update(values)
        (folder / name).write_text(json.dumps(parsed), "utf-8")

    return edit


def truncated(folder: Path) -> None:
    shard = min(folder.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])


def no_shard(folder: Path) -> None:
    max(folder.glob("*.safetensors")).unlink()


def no_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()


def outside(folder: Path) -> None:
    change("model.safetensors.index.json", weight_map={"x": "../x.safetensors"})(folder)


@pytest.mark.parametrize(
    ("kind", "damage", "problem"),
    [
        ("llama", change("config.json", model_type="phi3"), "model_type phi3"),
        ("llama", change("config.json", hidden_act="gelu"), "hidden_act must be silu"),
        ("llama", change("config.json", attention_bias=True), "attention_bias"),
        ("llama", change("config.json", quantization_config={"bits": 4}), "quantised"),
        ("llama", change("config.json", rope_parameters={"rope_type": "yarn"}), "rope_type yarn"),
        ("llama", change("config.json", num_hidden_layers=3), "lacks the parameter model.layers.2"),
        ("llama", change("config.json", num_hidden_layers=1), "has the parameter model.layers.1"),
        ("llama", change("config.json", hidden_size=None), "hidden_size is missing"),
        ("llama", change("config.json", intermediate_size=97), "has the shape"),
        ("llama", change("tokenizer.json", model=None), "is no tokenizer"),
        ("llama", change("tokenizer.json", pre_tokenizer=None), "pre-tokenizer is none"),
        ("llama", truncated, "passes the file's end"),
        ("llama", no_shard, "cannot be read"),
        ("llama", no_index, "holds no model.safetensors"),
        ("llama", outside, "outside its folder"),
        ("qwen2", change("config.json", head_dim=8), "head_dim must be"),
        ("qwen2", change("config.json", use_sliding_window=True), "use_sliding_window"),
        ("mistral", change("tokenizer.json", normalizer=None), "SentencePiece's spaces"),
        ("gemma3", change("config.json", query_pre_attn_scalar=64), "query_pre_attn_scalar"),
        ("gemma3", change("config.json", final_logit_softcapping=30.0), "final_logit_softcapping"),
        ("gemma3", change("config.json", layer_types=["full_attention"] * 7), "every 6th layer"),
        ("qwen35", change("config.json", linear_key_head_dim=8), "must be of one width"),
        ("qwen35", change("config.json", linear_num_key_heads=4), "must be a multiple"),
        (
            "qwen35",
            change("config.json", layer_types=["full_attention"] + ["linear_attention"] * 3),
            "every 1th layer must be full",
        ),
    ],
)
def test_what_cannot_be_written_is_one_line(
    folders: Path, tmp_path: Path, kind: str, damage: Callable[[Path], None], problem: str
) -> None:
    copy = tmp_path / kind
    copy.mkdir()
    for file in (folders / kind).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    damage(copy)
    with pytest.raises(BaseModelError) as caught:
        stand_in.write_gguf(copy, tmp_path / "base.gguf")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.gguf"))


def test_base_loads_from_its_folder_when_it_has_one(folders: Path) -> None:
    import torch

    gguf = folders / "qwen3.gguf"
    model, tokenizer = load_base(Base("b", gguf, None, folders / "qwen3", {"dtype": "bfloat16"}))
    assert model.dtype == torch.bfloat16
    assert tokenizer.encode("a").ids
    model, _ = load_base(Base("b", gguf, None, folders / "qwen3"), {"device_map": "cpu"})
    assert (model.dtype, model.device.type) == (torch.float32, "cpu")
    model, _ = load_base(Base("b", gguf, None))
    assert model.dtype == torch.float32


def test_quantised_loading_needs_its_library(folders: Path) -> None:
    with pytest.raises((CompilerError, BaseModelError), match="cannot be loaded") as caught:
        load_hf(folders / "qwen3", quantize="4bit")
    assert "\n" not in str(caught.value)


def test_a_hub_id_without_network_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args: object, **options: object) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(BaseModelError, match="the hub cannot be reached") as caught:
        find_hf("nobody/no-such-model")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **o: str(tmp_path))
    assert find_hf("nobody/a-model") == (tmp_path, tmp_path.name)
    with pytest.raises(BaseModelError, match="no such folder"):
        find_hf("./nothing/here/at-all")
