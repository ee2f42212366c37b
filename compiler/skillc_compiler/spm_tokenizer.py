"""SentencePiece tokenizers as Hugging Face writes them: BPE over characters, bytes as a last way.

Llama 2, Mistral and Gemma. llama.cpp merges by a piece's score where `tokenizers` goes by a list of
merges; the list is that of all splits of all pieces, by score, so each can be had from the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skillc_compiler.bpe_tokenizer import added_tokens, bpe_model
from skillc_compiler.errors import BaseModelError

SPACE = "\u2581"
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND = {"type": "Prepend", "prepend": SPACE}


def is_spm(parsed: Mapping[str, Any]) -> bool:
    """Whether a tokenizers description is of this kind."""
    model = parsed.get("model") or {}
    return model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def adds_space(parsed: Mapping[str, Any]) -> bool:
    """Whether a space goes in front of a text. Raises BaseModelError for another pipeline."""
    normalizer = parsed.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    kinds = [step.get("type") for step in steps]
    pre = parsed.get("pre_tokenizer") or {}
    if kinds == ["Prepend", "Replace"] and not pre:
        good, space = steps[0] == _PREPEND and steps[1] == _REPLACE, True
    elif kinds == ["Replace"] and (not pre or _splits_nothing(pre)):
        good, space = steps[0] == _REPLACE, False
    elif not kinds and pre.get("type") == "Metaspace":
        good = pre.get("replacement") == SPACE and pre.get("split") is False
        space = pre.get("prepend_scheme", "always") != "never"
    else:
        good, space = False, False
    if not good:
        raise BaseModelError("tokenizer cannot be stored: not SentencePiece's spaces")
    if any(parsed["model"].get(k) for k in ("dropout", "continuing_subword_prefix")):
        raise BaseModelError("tokenizer cannot be stored: dropout or a subword prefix")
    missing = [f"<0x{b:02X}>" for b in range(256) if f"<0x{b:02X}>" not in parsed["model"]["vocab"]]
    if missing:
        raise BaseModelError(f"tokenizer cannot be stored: token {missing[0]} is missing")
    return space


def _splits_nothing(pre: Mapping[str, Any]) -> bool:
    """Gemma splits at spaces after the normalizer has replaced them all."""
    return pre.get("type") == "Split" and pre.get("pattern") == {"String": " "}


def scores(texts: Sequence[str], merges: Sequence[Sequence[str]]) -> list[float]:
    """A score for each piece: the earlier it is merged, the higher. Pieces never merged get 0."""
    rank: dict[str, int] = {}
    for left, right in merges:
        rank.setdefault(left + right, len(rank) + 1)
    return [-float(rank.get(text, 0)) for text in texts]


def merges_of(pieces: Mapping[str, float]) -> list[tuple[str, str]]:
    """All ways to merge these pieces (text -> score), best first."""
    found = []
    for text, score in pieces.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in pieces and right in pieces:
                found.append((-score, -cut, left, right))
    found.sort(key=lambda entry: entry[:2])
    return [(left, right) for _, _, left, right in found]


def describe(
    vocab: Mapping[str, int],
    pieces: Mapping[str, float],
    added: Sequence[tuple[str, bool]],
    *,
    unknown: str | None,
    space: bool,
) -> dict[str, Any]:
    """A Hugging Face tokenizers description that tokenizes as llama.cpp does with these scores.

    `pieces` are the ordinary tokens and their scores; `vocab` also holds bytes and added tokens.
    """
    normalizers = [_PREPEND, _REPLACE] if space else [_REPLACE]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if space:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(vocab, added),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": bpe_model(
            vocab, merges_of(pieces), unk_token=unknown, fuse_unk=True, byte_fallback=True
        ),
    }
