"""Tokenizers of bases: byte-level BPE with Qwen2's split, in GGUF and in `tokenizers` form.

llama.cpp does not normalise: text must be NFC before it, as the tokenizer here makes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillc_compiler.errors import BaseModelError
from skillc_compiler.gguf_encode import number_array, string_array
from skillc_compiler.gguf_header import Header, read_header
from skillc_compiler.gguf_types import Field, GgufError, Kind

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Qwen2's published split pattern, and the same without (?i:), as llama.cpp applies it. They part
# only on letters that fold to ASCII ones, such as U+017F after an apostrophe.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_SPLIT = QWEN2_SPLIT.replace(
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
)
PRE = "qwen2"


class TokenType(IntEnum):
    """llama.cpp's types of vocabulary entries."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


def tokenizer_json(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    added: Sequence[tuple[str, bool]] = (),
) -> dict[str, Any]:
    """A Hugging Face tokenizers description: NFC, Qwen2's split, byte-level BPE.

    `vocab` (byte-level form) also holds the added tokens' texts; `added` lists (text, special).
    """
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    split = {
        "type": "Split",
        "pattern": {"Regex": LLAMA_SPLIT},
        "behavior": "Isolated",
        "invert": False,
    }
    options = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": vocab[text], "content": text, "special": special, **options}
            for text, special in sorted(added, key=lambda entry: vocab[entry[0]])
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(vocab.items(), key=lambda entry: entry[1])),
            "merges": [list(pair) for pair in merges],
        },
    }


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer stored in a base GGUF, as a `tokenizers.Tokenizer`.

    Its ids equal llama.cpp's for NFC text; set `encode_special_tokens` for what llama.cpp does
    with `parse_special=False`. Raises BaseModelError.
    """
    from tokenizers import Tokenizer

    try:
        description = tokenizer_from_header(read_header(path))
    except OSError as error:
        raise BaseModelError(f"{path}: cannot be read ({error.strerror})") from error
    except GgufError as error:
        raise BaseModelError(f"{path}: {error}") from error
    try:
        return Tokenizer.from_str(json.dumps(description))
    except Exception as error:  # the library raises nothing narrower
        raise BaseModelError(f"{path}: the tokenizer is not usable ({error})") from error


def tokenizer_from_header(header: Header) -> dict[str, Any]:
    """The tokenizers description of the tokenizer in a GGUF header. Raises GgufError."""
    model = header.need("tokenizer.ggml.model", Kind.STRING)
    pre = header.need("tokenizer.ggml.pre", Kind.STRING)
    if (model, pre) != ("gpt2", PRE):
        raise GgufError(f"tokenizer {model}/{pre} is not supported; only gpt2/{PRE} is")
    texts = header.need("tokenizer.ggml.tokens", Kind.ARRAY).strings()
    kinds = header.need("tokenizer.ggml.token_type", Kind.ARRAY).numbers()
    merges = header.need("tokenizer.ggml.merges", Kind.ARRAY).strings()
    if len(texts) != len(kinds):
        raise GgufError(f"the tokenizer has {len(texts)} tokens and {len(kinds)} token types")
    vocab = {text: i for i, text in enumerate(texts) if kinds[i] != TokenType.UNUSED}
    added = [
        (text, kind == TokenType.CONTROL)
        for text, kind in zip(texts, kinds, strict=True)
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)
    ]
    # As llama.cpp: the first space after the first character parts the two halves.
    pairs = [(m[: m.find(" ", 1)], m[m.find(" ", 1) + 1 :]) for m in merges]
    return tokenizer_json(vocab, pairs, added)


def tokenizer_fields(
    description: str | Mapping[str, Any], size: int, special_ids: Mapping[str, int | None]
) -> dict[str, Field]:
    """The GGUF header entries of a tokenizers description, padded to `size` tokens.

    `special_ids` maps "bos", "eos" and "padding" to ids. Raises BaseModelError for a tokenizer
    that llama.cpp's qwen2 would not reproduce.
    """
    parsed = json.loads(description) if isinstance(description, str) else description
    _check_pipeline(parsed)
    texts, kinds = _token_table(parsed, size)
    merges = [m if isinstance(m, str) else " ".join(m) for m in parsed["model"]["merges"]]
    fields = {
        "tokenizer.ggml.model": Field(Kind.STRING, "gpt2"),
        "tokenizer.ggml.pre": Field(Kind.STRING, PRE),
        "tokenizer.ggml.tokens": string_array(texts),
        "tokenizer.ggml.token_type": number_array(Kind.I32, kinds),
        "tokenizer.ggml.merges": string_array(merges),
    }
    for name, number in special_ids.items():
        if number is not None:
            if not 0 <= number < size:
                raise BaseModelError(f"{name} token {number} is outside the {size} tokens")
            fields[f"tokenizer.ggml.{name}_token_id"] = Field(Kind.U32, number)
    fields["tokenizer.ggml.add_bos_token"] = Field(Kind.BOOL, False)
    return fields


def byte_alphabet() -> list[str]:
    """GPT-2's 256 printable stand-ins for bytes, by byte value."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(b) if b in shown else chr(next(hidden)) for b in range(256)]


def _token_table(parsed: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    texts = [f"[PAD{i}]" for i in range(size)]
    kinds = [int(TokenType.UNUSED)] * size
    vocab: Mapping[str, int] = parsed["model"]["vocab"]
    added = parsed.get("added_tokens") or []
    for text, number in [*vocab.items(), *((t["content"], t["id"]) for t in added)]:
        if not 0 <= number < size:
            raise BaseModelError(f"token {text!r} has id {number}, outside the {size} tokens")
        if kinds[number] != TokenType.UNUSED and texts[number] != text:
            raise BaseModelError(f"tokens {texts[number]!r} and {text!r} share the id {number}")
        texts[number], kinds[number] = text, int(TokenType.NORMAL)
    for token in added:
        if vocab.get(token["content"], token["id"]) != token["id"]:
            raise BaseModelError(
                f"added token {token['content']!r} has another id in the vocabulary"
            )
        for option in ("lstrip", "rstrip", "single_word"):
            if token.get(option):
                raise BaseModelError(f"added token {token['content']!r}: {option} is unsupported")
        special = token.get("special", False)
        kinds[token["id"]] = int(TokenType.CONTROL if special else TokenType.USER_DEFINED)
    return texts, kinds


def _check_pipeline(parsed: Mapping[str, Any]) -> None:
    """Refuse what llama.cpp would tokenize otherwise; it would load it without a word."""
    model = parsed["model"]
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    stages = (parsed.get("pre_tokenizer") or {}).get("pretokenizers") or [{}, {}]
    pattern = (stages[0].get("pattern") or {}).get("Regex")
    after = (parsed.get("post_processor") or {}).get("type", "ByteLevel")
    for good, what in (
        (model.get("type") == "BPE", "model must be BPE"),
        (not any(model.get(k) for k in _MODEL_OPTIONS), f"no {', '.join(_MODEL_OPTIONS)}"),
        (set(byte_alphabet()) <= set(model["vocab"]), "vocabulary must hold all 256 bytes"),
        ((parsed.get("normalizer") or {}).get("type") == "NFC", "normalizer must be NFC"),
        (
            len(stages) == 2
            and pattern in (QWEN2_SPLIT, LLAMA_SPLIT)
            and split.items() <= stages[0].items()
            and level.items() <= stages[1].items(),
            "pre-tokenizer must be Qwen2's Split, isolated, then ByteLevel without a regex",
        ),
        (after == "ByteLevel", "post-processor must be ByteLevel or none"),
    ):
        if not good:
            raise BaseModelError(f"tokenizer cannot be stored as {PRE}: {what}")


_MODEL_OPTIONS = (
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
    "ignore_merges",
)
