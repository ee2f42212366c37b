"""Small random models of every supported architecture, as folders that transformers wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tests.compiler.tiny import CORPUS, MARKERS

from skillc_compiler.adapter import Adapter, LoraPair, Manifest
from skillc_compiler.arch import by_name, in_layer
from skillc_compiler.bpe_tokenizer import (
    LLAMA3_SPLIT,
    QWEN2_SPLIT,
    QWEN35_SPLIT,
    byte_alphabet,
)
from skillc_compiler.chat import NANO_TEMPLATE
from skillc_compiler.gguf_base import BaseInfo, read_base_info
from skillc_compiler.gguf_names import tensor_names
from skillc_compiler.gguf_write import write_base_gguf
from skillc_compiler.hf_folder import HfFolder
from skillc_compiler.spm_tokenizer import merges_of

TOKENS = 600
SIZES: dict[str, Any] = {
    "vocab_size": 616,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# name -> (configuration class, what differs, kind of tokenizer)
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "qwen3": ("Qwen3Config", {"head_dim": 32, "tie_word_embeddings": True}, "qwen2"),
    "qwen2": ("Qwen2Config", {}, "qwen2"),
    "llama": ("LlamaConfig", {"rope_parameters": LLAMA3_ROPE}, "llama3"),
    "mistral": ("MistralConfig", {"head_dim": 32, "sliding_window": None}, "mistral"),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "num_hidden_layers": 7,
            "sliding_window": 16,
            "tie_word_embeddings": True,
        },
        "gemma",
    ),
    "qwen35": (
        "Qwen3_5TextConfig",
        {
            "head_dim": 32,
            "num_hidden_layers": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 6,
        },
        "qwen35",
    ),
}


def write_folder(
    path: Path, kind: str, *, seed: int = 0, std: float = 0.15, **changes: Any
) -> Path:
    """Write a random model of this kind as a Hugging Face folder in float32, in two shards."""
    import torch
    import transformers

    config_class, own, tokens = KINDS[kind]
    values = {**SIZES, **own, "initializer_range": std, **changes}
    values |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = getattr(transformers, config_class)(**values)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=std)
    model.save_pretrained(path, max_shard_size="200KB")
    (path / "tokenizer.json").write_text(tokenizer_json(tokens), "utf-8")
    names = SPECIALS[tokens]
    options = {"pad_token": names[0], "bos_token": names[1], "eos_token": names[2]}
    template = NANO_TEMPLATE.replace("<|im_start|>", names[1]).replace("<|im_end|>", names[2])
    text = json.dumps({**options, "chat_template": template})
    (path / "tokenizer_config.json").write_text(text, "utf-8")
    return path


def write_gguf(folder: Path, path: Path, dtype: str = "f32") -> BaseInfo:
    """The same model as a GGUF."""
    found = HfFolder.open(folder)
    write_base_gguf(
        path,
        found.config,
        found.weights(),
        found.tokenizer,
        found.chat_template,
        dtype=dtype,
        name=folder.name,
    )
    return read_base_info(path)


def targets(base: BaseInfo) -> Sequence[str]:
    """What an adapter may target in this base, as module paths from a layer on, and `lm_head`."""
    found = by_name(base.arch)
    assert found is not None
    return [*found.linears, *([] if base.tied else ["lm_head"])]


def adapter(
    base: BaseInfo, linears: Sequence[str], *, rank: int, seed: int = 0, alpha: float = 16.0
) -> Adapter:
    """Random factors of strong effect for these modules, in all layers that have them."""
    rng = np.random.default_rng(seed)
    pairs = {}
    for module, tensor in tensor_names(base.arch, base.n_layers).items():
        if in_layer(module) in linears and tensor in base.tensors:
            d_out, d_in = base.tensors[tensor]
            a = rng.standard_normal((rank, d_in)).astype(np.float32) / np.float32(d_in**0.5)
            b = rng.standard_normal((d_out, rank)).astype(np.float32) * np.float32(0.1)
            pairs[module] = LoraPair(a, b)
    manifest = Manifest(
        skill_name="tiny",
        skill_hash="1" * 64,
        base_name=base.name,
        base_hash=base.hash,
        compiler_id="random",
        compiler_hash="2" * 64,
        rank=rank,
        alpha=alpha,
        targets=tuple(pairs),
    )
    return Adapter(pairs, alpha, manifest)


SPLITS = {"qwen2": QWEN2_SPLIT, "qwen35": QWEN35_SPLIT, "llama3": LLAMA3_SPLIT}
SPECIALS = {
    "qwen2": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "qwen35": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "llama3": ("<|finetune_right_pad_id|>", "<|begin_of_text|>", "<|eot_id|>"),
    "mistral": ("<unk>", "<s>", "</s>"),
    "gemma": ("<pad>", "<bos>", "<end_of_turn>"),
}


@cache
def tokenizer_json(kind: str) -> str:
    """A tokenizer trained on CORPUS, built the way the published ones of this kind are."""
    return _spm(kind) if kind in ("mistral", "gemma") else _bytes(kind)


def _bytes(kind: str) -> str:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers as pre
    from tokenizers import processors as post
    from tokenizers.trainers import BpeTrainer

    llama = kind == "llama3"
    tokenizer: Any = Tokenizer(models.BPE(ignore_merges=llama))
    if not llama:
        tokenizer.normalizer = normalizers.NFC()
    split = pre.Split(Regex(SPLITS[kind]), "isolated")
    level = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=list(SPECIALS[kind]),
        initial_alphabet=byte_alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([line * 3 for line in CORPUS], trainer)
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in MARKERS])
    if llama:
        bos = SPECIALS[kind][1]
        tokenizer.post_processor = post.Sequence(
            [
                post.ByteLevel(trim_offsets=False),
                post.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 1)]),
            ]
        )
    return str(tokenizer.to_str())


def _spm(kind: str) -> str:
    from tokenizers import Tokenizer, models
    from tokenizers.trainers import BpeTrainer

    learned: Any = Tokenizer(models.BPE())
    trainer: Any = BpeTrainer(vocab_size=TOKENS - 262, show_progress=False)
    learned.train_from_iterator([line.replace(" ", "\u2581") for line in CORPUS], trainer)
    parsed = json.loads(learned.to_str())["model"]
    merged = ["".join(m) for m in parsed["merges"]]
    pieces = {text: -float(i) for i, text in enumerate(merged)}
    single = [text for text in parsed["vocab"] if len(text) == 1]
    specials = [*SPECIALS[kind], *(["<unk>"] if "<unk>" not in SPECIALS[kind] else [])]
    texts = [*specials, *(f"<0x{b:02X}>" for b in range(256)), *pieces, *single]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    prepend = {"type": "Prepend", "prepend": "\u2581"}
    split = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    bos = SPECIALS[kind][1]
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": bos, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {bos: {"id": bos, "ids": [1], "tokens": [bos]}},
    }
    options = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    scored = {**pieces, **dict.fromkeys(single, -1e9)}
    description = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": text, "special": True, **options}
            for i, text in enumerate(specials)
        ],
        "normalizer": replace
        if kind == "gemma"
        else {"type": "Sequence", "normalizers": [prepend, replace]},
        "pre_tokenizer": split if kind == "gemma" else None,
        "post_processor": template,
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {text: i for i, text in enumerate(texts)},
            "merges": merges_of(scored),
        },
    }
    return json.dumps(description)
