"""A small Qwen3 base and its parts, random but always the same, for tests of the file formats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skillc_compiler.adapter import Adapter, LoraPair, Manifest
from skillc_compiler.chat import NANO_TEMPLATE
from skillc_compiler.gguf_base import BaseInfo, read_base_info, write_base_gguf
from skillc_compiler.gguf_names import tensor_names
from skillc_compiler.gguf_tokenizer import QWEN2_SPLIT, byte_alphabet
from skillc_compiler.gguf_write import parameter_shapes

State = dict[str, npt.NDArray[np.float32]]

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKERS = ("<tool_call>", "</tool_call>")
CORPUS = (
    "Deploy the orchard service with kubectl apply -f deploy.yaml and it's 42 times faster. ",
    "don't we'll they've I'm he'd she's you're DON'T WE'LL naïve café Übung größer ",
    "def main(argv: list[str]) -> int:\n    return len(argv) * 2\n\n\n",
    "日本語のテキスト、中文文本，한국어 텍스트 русский текст ελληνικά العربية עברית हिन्दी ",
    '{"name": "run", "arguments": {"command": "ls -la /tmp | wc -l"}}\r\n\t\t',
)


@cache
def tokenizer_json(vocab_size: int = 512) -> str:
    """A byte-level BPE trained on CORPUS, built the way Qwen2's is; special tokens come first."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers as pre
    from tokenizers.trainers import BpeTrainer

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre.Split(Regex(QWEN2_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre.Sequence(
        [split, pre.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=byte_alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([line * 3 for line in CORPUS], trainer)
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in MARKERS])
    return str(tokenizer.to_str())


def config(**changes: Any) -> dict[str, Any]:
    """Shapes like nano's, only smaller; 520 embedding rows leave a few without a token."""
    values: dict[str, Any] = {
        "model_type": "qwen3",
        "vocab_size": 520,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return {**values, **changes}


def state(values: dict[str, Any], seed: int = 0, std: float = 0.15) -> State:
    """Random weights whose logits spread by about 1."""
    rng = np.random.default_rng(seed)
    found: State = {}
    for name, shape in parameter_shapes(values).items():
        noise = rng.standard_normal(shape).astype(np.float32) * np.float32(std)
        found[name] = noise + np.float32(1) if len(shape) == 1 else noise
    return found


def write_base(path: Path, dtype: str = "f32", seed: int = 0, **changes: Any) -> BaseInfo:
    """Write the small base and read its description back."""
    values = config(**changes)
    write_base_gguf(
        path,
        values,
        state(values, seed),
        tokenizer_json(),
        NANO_TEMPLATE,
        dtype=dtype,
        name="tiny",
    )
    return read_base_info(path)


def stress_strings(count: int = 300) -> Iterator[str]:
    """What tokenizers disagree on: contractions, spaces, newlines, scripts, marks, emoji."""
    fixed = [
        "",
        " ",
        "\n",
        "\r\n\r\n  x",
        "  leading and trailing  ",
        "a\u0301e\u0308 \u1e9b\u0323",
        "Don't DON'T don\u2019t we'Ll 'S'T'RE'VE'M'LL'D it's'",
        "'\u017f \u212a'\u212a",
        "\t\tx = 1\n\n\n   y\n \n",
        "1234567890 3.14 1,000 \u0664\u0665 \u2167 \u00bd",
        "\u00a0\u2003\u200b\u2028\u2029\u0085\u180e\u3000x",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f",
        "\x00\x01\x1c\x1d\x1e\x1f\x7f\u0080",
        "\U00020000\U0010ffff\ue000\ufffd",
        "\u1112\u1161\u11ab \ud55c \u0e01\u0e33 \u0915\u094d\u0937",
    ]
    yield from fixed
    pieces = [
        *(line for text in CORPUS for line in text.split(" ")),
        *" \n\t.,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+~`",
        *("'s", "'T", "'Re", "  ", "   ", "\r\n", "\n\n", "\u0301", "\u0308", "\u3000", "\u00a0"),
        *("\u1e9e", "\u0130", "\u00df", "\U0001f600", "\u4e2d", "\u0663", "\u2460", "\u00b2"),
        *json.loads('["\\u200d", "\\u00ad", "\\u0e33", "\\ufb01", "\\u01c5"]'),
    ]
    rng = np.random.default_rng(7)
    for _ in range(count - len(fixed)):
        chosen = rng.integers(0, len(pieces), size=int(rng.integers(1, 25)))
        yield "".join(pieces[i] for i in chosen)


def adapter(
    base: BaseInfo,
    linears: Sequence[str],
    *,
    rank: int,
    seed: int = 0,
    alpha: float = 16.0,
) -> Adapter:
    """Random factors of strong effect for these modules of all layers."""
    rng = np.random.default_rng(seed)
    names = tensor_names(base.arch, base.n_layers)
    modules = [f"model.layers.{i}.{linear}" for i in range(base.n_layers) for linear in linears]
    pairs = {}
    for module in modules:
        d_out, d_in = base.tensors[names[module]]
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
