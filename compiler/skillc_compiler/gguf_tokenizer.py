"""Tokenizers of bases, in GGUF and in `tokenizers` form: byte-level BPE and SentencePiece."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillc_compiler import bpe_tokenizer, spm_tokenizer
from skillc_compiler.bpe_tokenizer import ALIASES, PRES, QWEN2_SPLIT, byte_alphabet
from skillc_compiler.errors import BaseModelError
from skillc_compiler.gguf_encode import number_array, string_array
from skillc_compiler.gguf_header import Header, read_header
from skillc_compiler.gguf_types import Field, GgufError, Kind

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "QWEN2_SPLIT",
    "TokenType",
    "byte_alphabet",
    "read_tokenizer",
    "tokenizer_fields",
    "tokenizer_from_header",
]


class TokenType(IntEnum):
    """llama.cpp's types of vocabulary entries."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_ADDED = (TokenType.CONTROL, TokenType.USER_DEFINED)


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer stored in a base GGUF, as a `tokenizers.Tokenizer`.

    Its ids equal llama.cpp's for NFC text; set `encode_special_tokens` for what llama.cpp does
    with `parse_special=False`. It adds no BOS. Raises BaseModelError.
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
    texts = header.need("tokenizer.ggml.tokens", Kind.ARRAY).strings()
    kinds = header.need("tokenizer.ggml.token_type", Kind.ARRAY).numbers()
    if len(texts) != len(kinds):
        raise GgufError(f"the tokenizer has {len(texts)} tokens and {len(kinds)} token types")
    vocab = {text: i for i, text in enumerate(texts) if kinds[i] != TokenType.UNUSED}
    added = [
        (text, kind == TokenType.CONTROL)
        for text, kind in zip(texts, kinds, strict=True)
        if kind in _ADDED
    ]
    if model == "llama":
        return _spm_from_header(header, texts, kinds, vocab, added)
    pre = header.need("tokenizer.ggml.pre", Kind.STRING)
    pre = ALIASES.get(pre, pre)
    if model != "gpt2" or pre not in PRES:
        raise GgufError(
            f"tokenizer {model}/{pre} is not supported; llama and gpt2/{', gpt2/'.join(PRES)} are"
        )
    merges = header.need("tokenizer.ggml.merges", Kind.ARRAY).strings()
    # As llama.cpp: the first space after the first character parts the two halves.
    pairs = [(m[: m.find(" ", 1)], m[m.find(" ", 1) + 1 :]) for m in merges]
    return bpe_tokenizer.describe(pre, vocab, pairs, added)


def _spm_from_header(
    header: Header,
    texts: Sequence[str],
    kinds: Sequence[int],
    vocab: Mapping[str, int],
    added: Sequence[tuple[str, bool]],
) -> dict[str, Any]:
    values = header.need("tokenizer.ggml.scores", Kind.ARRAY).numbers()
    if len(values) != len(texts):
        raise GgufError(f"the tokenizer has {len(texts)} tokens and {len(values)} scores")
    pieces = {
        text: value
        for text, value, kind in zip(texts, values, kinds, strict=True)
        if kind in (TokenType.NORMAL, TokenType.USER_DEFINED)
    }
    unknown = [text for text, kind in zip(texts, kinds, strict=True) if kind == TokenType.UNKNOWN]
    space = header.get("tokenizer.ggml.add_space_prefix", Kind.BOOL)
    return spm_tokenizer.describe(
        vocab,
        pieces,
        [*added, *((text, True) for text in unknown)],
        unknown=unknown[0] if unknown else None,
        space=space is not False,
    )


def tokenizer_fields(
    description: str | Mapping[str, Any], size: int, special_ids: Mapping[str, int | None]
) -> dict[str, Field]:
    """The GGUF header entries of a tokenizers description, padded to `size` tokens.

    `special_ids` maps "bos", "eos" and "padding" to ids. Raises BaseModelError for a tokenizer
    that llama.cpp would not reproduce.
    """
    parsed = json.loads(description) if isinstance(description, str) else description
    spm = spm_tokenizer.is_spm(parsed)
    texts, kinds = _token_table(parsed, size)
    merges = [m.split(" ", 1) if isinstance(m, str) else m for m in parsed["model"]["merges"]]
    if spm:
        space = spm_tokenizer.adds_space(parsed)
        _mark_bytes(parsed, texts, kinds)
        kind, pre = "llama", "default"
        own = {
            "tokenizer.ggml.scores": number_array(Kind.F32, spm_tokenizer.scores(texts, merges)),
            "tokenizer.ggml.add_space_prefix": Field(Kind.BOOL, space),
        }
    else:
        kind, pre = "gpt2", bpe_tokenizer.pre_of(parsed)
        own = {"tokenizer.ggml.merges": string_array([" ".join(m) for m in merges])}
    fields = {
        "tokenizer.ggml.model": Field(Kind.STRING, kind),
        "tokenizer.ggml.pre": Field(Kind.STRING, pre),
        "tokenizer.ggml.tokens": string_array(texts),
        "tokenizer.ggml.token_type": number_array(Kind.I32, kinds),
        **own,
    }
    for name, number in special_ids.items():
        if number is not None:
            if not 0 <= number < size:
                raise BaseModelError(f"{name} token {number} is outside the {size} tokens")
            fields[f"tokenizer.ggml.{name}_token_id"] = Field(Kind.U32, number)
    bos = bpe_tokenizer.starts_with_bos(parsed)
    fields["tokenizer.ggml.add_bos_token"] = Field(Kind.BOOL, bos)
    return fields


def _mark_bytes(parsed: Mapping[str, Any], texts: Sequence[str], kinds: list[int]) -> None:
    """Give the bytes and the unknown token of a SentencePiece vocabulary their types."""
    unknown = parsed["model"].get("unk_token")
    for number, text in enumerate(texts):
        if text == unknown:
            kinds[number] = int(TokenType.UNKNOWN)
        elif len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            kinds[number] = int(TokenType.BYTE)


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
