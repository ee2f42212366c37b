"""Doc-to-LoRA checkpoints: read without their classes, checked, and computed as published."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.compiler import published_cases as cases
from torch.nn import functional as F

from skillc_compiler.errors import CompilerError
from skillc_compiler.families.interface import load_compiler
from skillc_compiler.families.perceiver import Perceiver
from skillc_compiler.published.convert import import_compiler
from skillc_compiler.published.doc_to_lora import read_checkpoint
from skillc_compiler.torch_base import load_torch_base

Tensor = torch.Tensor
State = dict[str, Tensor]


def bring_in(checkpoint: Path, folder: Path, **changes: Any) -> Perceiver:
    base = cases.base(folder)
    import_compiler("doc2lora", checkpoint, base, changes=changes)
    loaded = load_compiler(cases.opened(base))
    assert isinstance(loaded, Perceiver)
    return loaded


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def gated(x: Tensor, raw: State, at: str) -> Tensor:
    inner = F.silu(x @ raw[f"{at}.gate_proj.weight"].T) * (x @ raw[f"{at}.up_proj.weight"].T)
    return inner @ raw[f"{at}.down_proj.weight"].T


def attend(latents: Tensor, context: Tensor, raw: State, at: str) -> Tensor:
    """Cross-attention one head at a time: heads of width 128, keys shared by groups of heads."""
    query = norm(latents, raw[f"{at}.input_latents_layernorm.weight"])
    seen = norm(context, raw[f"{at}.input_context_layernorm.weight"])
    outputs = []
    for head in range(cases.D2L_HEADS):
        shared = head // (cases.D2L_HEADS // cases.D2L_KV)
        mine, theirs = slice(128 * head, 128 * head + 128), slice(128 * shared, 128 * shared + 128)
        q = query @ raw[f"{at}.self_attn.q_proj.weight"][mine].T
        k = seen @ raw[f"{at}.self_attn.k_proj.weight"][theirs].T
        v = seen @ raw[f"{at}.self_attn.v_proj.weight"][theirs].T
        outputs.append(torch.softmax(q @ k.T / 128**0.5, dim=-1) @ v)
    mixed = torch.cat(outputs, dim=1) @ raw[f"{at}.self_attn.o_proj.weight"].T
    latents = latents + norm(mixed, raw[f"{at}.post_attention_layernorm.weight"])
    inner = gated(norm(latents, raw[f"{at}.pre_ff_layernorm.weight"]), raw, f"{at}.mlp")
    return latents + norm(inner, raw[f"{at}.post_ff_layernorm.weight"])


def expected_block(raw: State, layer: int, states: Tensor) -> tuple[Tensor, Tensor]:
    """A [r, in] and B [r, out] of one chunk at one layer, from the raw tensors."""
    outer = "aggregator.perceiver"
    context = gated(states, raw, f"{outer}.modality_projection")
    for part, blocks in (("encoder", 2), ("decoder", 1)):
        latents = raw[f"{outer}.{part}.latents_q"]
        for number in range(blocks):
            latents = attend(latents, context, raw, f"{outer}.{part}.layers.{number}")
        context = norm(latents, raw[f"{outer}.{part}.layernorm.weight"])
    at = "layers.0.layers"
    inner = F.layer_norm(context, (16,), raw[f"{at}.0.weight"], raw[f"{at}.0.bias"])
    inner = inner @ raw[f"{at}.1.weight"][layer] + raw[f"{at}.1.bias"][0, layer, 0, 0]
    inner = F.silu(inner) @ raw[f"{at}.3.weight"][layer] + raw[f"{at}.3.bias"][0, layer, 0, 0]
    x = context + F.layer_norm(inner, (16,), raw[f"{at}.4.weight"], raw[f"{at}.4.bias"])
    rows = (x / x.norm(dim=-1, keepdim=True)) @ raw["head.weight"][layer]
    a = rows[:, :96] * raw["scaler_A.down_proj"][0, layer]
    return a, rows[:, 96:] * raw["scaler_B.down_proj"][0, layer]


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_the_adapter_is_what_the_checkpoint_says(prefix: str, tmp_path: Path) -> None:
    raw = cases.d2l_tensors()
    folder = cases.write_doc2lora(tmp_path / "d2l", tensors=cases.d2l_tensors(prefix=prefix))
    compiler = bring_in(folder, tmp_path / "tiny", chunk=20)
    text = cases.skill("Use port 8080 and nothing else. " * 2).text
    ids = compiler.tokens(text.strip())
    size = -(-len(ids) // -(-len(ids) // 20))
    chunks = [ids[start : start + size] for start in range(0, len(ids), size)]
    assert len(chunks) >= 3
    model, _ = load_torch_base(compiler.base.gguf)
    adapter = compiler.compile(cases.skill("Use port 8080 and nothing else. " * 2), rank=256)
    assert adapter.rank == (len(chunks) + 1) * 8 == adapter.alpha
    with torch.no_grad():
        read = [
            model.model(torch.tensor([chunk]), output_hidden_states=True).hidden_states
            for chunk in chunks
        ]
        for layer in range(cases.LAYERS):
            made = [expected_block(raw, layer, hidden[layer][0]) for hidden in read]
            made.append((raw["bias_A.down_proj"][layer], raw["bias_B.down_proj"][layer]))
            a = torch.cat([block[0] for block in made])
            b = torch.cat([block[1] for block in made])
            pair = adapter.pairs[f"model.layers.{layer}.mlp.down_proj"]
            assert torch.allclose(torch.from_numpy(pair.a), a, atol=1e-4)
            assert torch.allclose(torch.from_numpy(pair.b), 45.2548 * b.T, atol=1e-2, rtol=1e-4)


def test_two_modules_come_out_in_the_order_of_their_names(tmp_path: Path) -> None:
    tensors = cases.d2l_tensors(("down_proj", "q_proj"))
    folder = cases.write_doc2lora(tmp_path / "d2l", tensors=tensors)
    compiler = bring_in(folder, tmp_path / "tiny")
    assert compiler.config.modules == ("mlp.down_proj", "self_attn.q_proj")
    adapter = compiler.compile(cases.skill(), rank=64)
    assert adapter.pairs["model.layers.1.self_attn.q_proj"].a.shape == (16, 64)
    assert adapter.pairs["model.layers.1.self_attn.q_proj"].b.shape == (128, 16)
    assert adapter.pairs["model.layers.0.mlp.down_proj"].b.shape == (64, 16)


def test_the_settings_come_from_shapes_and_the_pickled_configuration(tmp_path: Path) -> None:
    folder = cases.write_doc2lora(tmp_path / "run" / "checkpoint-20000", "google/gemma-2-2b-it")
    (tmp_path / "run" / "args.yaml").write_text("lr: 1.0e-5\nmax_ctx_chunk_len: 256\n")
    config, state, made_for = read_checkpoint(tmp_path / "run", changes={})
    assert made_for == "google/gemma-2-2b-it"
    assert (config.encoder_blocks, config.decoder_blocks, config.residual_blocks) == (2, 1, 1)
    assert (config.heads, config.kv_heads, config.rank, config.chunk) == (2, 1, 8, 256)
    assert config.alpha == pytest.approx(45.2548, abs=1e-4)
    assert config.prefix == (2, 106, 1645, 110) and config.suffix[-1] == 108
    assert config.bias and not config.average
    assert all(value.dtype == torch.float32 for value in state.values())
    assert folder.is_dir()


def test_fields_that_old_checkpoints_lack_have_the_published_defaults(tmp_path: Path) -> None:
    folder = cases.write_doc2lora(tmp_path / "new", use_bias=False, avg_chunk_loras=True)
    config, _, _ = read_checkpoint(folder, changes={})
    assert not config.bias and config.average


class Evil:
    """What a hostile checkpoint holds: a call of something harmful when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def hostile(kind: str, mark: Path) -> Any:
    """An object that, unpickled carelessly, writes the file `mark`."""
    import builtins
    import os

    program = f"open({str(mark)!r}, 'w').close()"
    if kind == "exec":
        return Evil(builtins.exec, program)
    if kind == "system":
        return Evil(os.system, f"touch {mark}")
    return Evil(getattr, "text", "upper")


@pytest.mark.parametrize("source", ["doc2lora", "shine"])
@pytest.mark.parametrize("kind", ["exec", "system", "getattr"])
def test_a_hostile_pickle_is_refused_and_never_runs(source: str, kind: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    base = cases.base(tmp_path / "tiny")
    if source == "doc2lora":
        folder = tmp_path / "evil"
        folder.mkdir()
        table = {**cases.d2l_tensors(), "hypernet_config": hostile(kind, mark)}
        torch.save(table, folder / "pytorch_model.bin")
        file = folder / "pytorch_model.bin"
    else:
        folder = cases.write_memory_token(tmp_path / "evil")
        file = folder / "metalora.pth"
        torch.save({0: hostile(kind, mark)}, file)
    with pytest.raises(CompilerError, match="refused") as caught:
        import_compiler(source, folder, base, heads=4)
    assert "\n" not in str(caught.value) and file.name in str(caught.value)
    assert not mark.exists()
    if kind != "getattr":
        # The file is dangerous indeed: read carelessly, it runs.
        torch.load(file, weights_only=False)
        assert mark.exists()


def test_a_call_inside_a_stubbed_package_does_nothing(tmp_path: Path) -> None:
    """A name below ctx_to_lora that is a function elsewhere is only ever a stub here."""
    folder = cases.write_doc2lora(tmp_path / "d2l")
    path = folder / "pytorch_model.bin"
    inside = zipfile.ZipFile(path).namelist()
    assert any(name.endswith("data.pkl") for name in inside)
    config, _, _ = read_checkpoint(folder, changes={})
    assert config.rank == 8
    with zipfile.ZipFile(path) as archive:
        names = [name for name in inside if name.endswith("data.pkl")]
        text = archive.read(names[0])
    assert b"ctx_to_lora" in text and b"peft" in text
    with pytest.raises((ModuleNotFoundError, AttributeError, pickle.UnpicklingError)):
        torch.load(path, weights_only=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "early_exit"}, "encoder early_exit is not supported"),
        ({"per_layer_processing": False}, "per_layer_processing = False is not supported"),
        ({"extra_modules": ["norm"]}, "extra_modules are not supported"),
        ({"made_for": "google/gemma-2-2b-it"}, "made for the vocabulary of google/gemma"),
    ],
)
def test_variants_that_are_not_read_are_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = cases.write_doc2lora(tmp_path / "d2l", **changes)
    with pytest.raises(CompilerError, match=message):
        import_compiler("doc2lora", folder, cases.base(tmp_path / "tiny"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head.weight", None, "tensor head.weight is missing"),
        ("head.weight", cases.noise(2, 16, 12), r"\(2, 16, 12\), \(2, 1, 16, 160\) expected"),
        ("scaler_A.down_proj", cases.noise(1, 2, 7, 1), "scaler_A.down_proj"),
        ("bias_A.down_proj", cases.noise(2, 8, 90), "is not in base 'tiny'"),
        ("surprise", cases.noise(2), r"1 tensors are not known \(surprise\)"),
    ],
)
def test_tensors_that_do_not_fit_are_one_line(
    name: str, value: Tensor | None, message: str, tmp_path: Path
) -> None:
    tensors = cases.d2l_tensors()
    tensors.pop(name, None)
    if value is not None:
        tensors[name] = value
    if "bias_A" in name:
        tensors["head.weight"] = cases.noise(2, 16, 154)
    folder = cases.write_doc2lora(tmp_path / "d2l", tensors=tensors)
    base = cases.base(tmp_path / "tiny")
    with pytest.raises(CompilerError, match=message) as caught:
        import_compiler("doc2lora", folder, base)
    assert "\n" not in str(caught.value)
    assert [path.name for path in base.gguf.parent.iterdir()] == ["base.gguf"]
