"""Byte-level BPE tokenizers: the pre-tokenizers that llama.cpp reproduces, by its names for them.

llama.cpp does not normalise: text must be NFC before it, as the tokenizers made here make it where
the published ones do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skillc_compiler.errors import BaseModelError

# Published split patterns, and the same as llama.cpp applies them: without (?i:), so that they part
# only on letters that fold to ASCII ones, such as U+017F after an apostrophe.
_ANY_CASE = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BOTH_CASES = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_SPLIT = QWEN2_SPLIT.replace(_ANY_CASE, _BOTH_CASES)
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
QWEN35_SPLIT = QWEN2_SPLIT.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(
    r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]"
)
TEKKEN_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN_LLAMA_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+"
    r"|[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class Pre:
    """One `tokenizer.ggml.pre`: the published pattern, llama.cpp's, and what goes with them."""

    published: str
    applied: str
    nfc: bool
    ignore_merges: bool


PRES: Mapping[str, Pre] = {
    "qwen2": Pre(QWEN2_SPLIT, LLAMA_SPLIT, nfc=True, ignore_merges=False),
    "qwen35": Pre(
        QWEN35_SPLIT, QWEN35_SPLIT.replace(_ANY_CASE, _BOTH_CASES), nfc=True, ignore_merges=False
    ),
    "llama-bpe": Pre(
        LLAMA3_SPLIT, LLAMA3_SPLIT.replace(_ANY_CASE, _BOTH_CASES), nfc=False, ignore_merges=True
    ),
    "tekken": Pre(TEKKEN_SPLIT, _TEKKEN_LLAMA_SPLIT, nfc=False, ignore_merges=True),
}
# Other names of the same in files that other tools wrote.
ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}

_PLAIN = (
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
)
_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


def byte_alphabet() -> list[str]:
    """GPT-2's 256 printable stand-ins for bytes, by byte value."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(b) if b in shown else chr(next(hidden)) for b in range(256)]


def pre_of(parsed: Mapping[str, Any]) -> str:
    """The name under which llama.cpp tokenizes as this description says. Raises BaseModelError.

    It would load any name without a word, and then tokenize otherwise.
    """
    stages = _stages(parsed.get("pre_tokenizer"), "pretokenizers")
    pattern = (stages[0].get("pattern") or {}).get("Regex") if stages else None
    name = next((n for n, pre in PRES.items() if pattern in (pre.published, pre.applied)), None)
    if name is None:
        raise BaseModelError(
            "tokenizer: the pre-tokenizer is none that is known; "
            f"splits of {', '.join(PRES)} are supported"
        )
    model, pre = parsed["model"], PRES[name]
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    normal = (parsed.get("normalizer") or {}).get("type")
    for good, what in (
        (model.get("type") == "BPE", "model must be BPE"),
        (not any(model.get(k) for k in _PLAIN), f"no {', '.join(_PLAIN)}"),
        (bool(model.get("ignore_merges")) is pre.ignore_merges, "ignore_merges is another"),
        (set(byte_alphabet()) <= set(model["vocab"]), "vocabulary must hold all 256 bytes"),
        (
            normal == ("NFC" if pre.nfc else None),
            f"normalizer must be {'NFC' if pre.nfc else None}",
        ),
        (
            len(stages) == 2
            and split.items() <= stages[0].items()
            and _LEVEL.items() <= stages[1].items(),
            "pre-tokenizer must be a Split, isolated, then ByteLevel without a regex",
        ),
    ):
        if not good:
            raise BaseModelError(f"tokenizer cannot be stored as {name}: {what}")
    return name


def starts_with_bos(parsed: Mapping[str, Any]) -> bool:
    """Whether the post-processor puts one token in front. Raises BaseModelError for other work."""
    found = False
    for stage in _stages(parsed.get("post_processor"), "processors"):
        if stage.get("type") == "ByteLevel":
            continue
        pieces = stage.get("single") or []
        if stage.get("type") != "TemplateProcessing" or not 1 <= len(pieces) <= 2:
            raise BaseModelError("tokenizer: post-processor must be ByteLevel, or one token first")
        if "Sequence" not in pieces[-1] or (len(pieces) == 2 and "SpecialToken" not in pieces[0]):
            raise BaseModelError("tokenizer: post-processor may only put a token first")
        found = found or len(pieces) == 2
    return found


def describe(
    pre: str,
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    added: Sequence[tuple[str, bool]] = (),
) -> dict[str, Any]:
    """A Hugging Face tokenizers description that tokenizes as llama.cpp does under `pre`.

    `vocab` (byte-level form) also holds the added tokens' texts; `added` lists (text, special).
    """
    level = {**_LEVEL, "trim_offsets": False}
    split = {
        "type": "Split",
        "pattern": {"Regex": PRES[pre].applied},
        "behavior": "Isolated",
        "invert": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(vocab, added),
        "normalizer": {"type": "NFC"} if PRES[pre].nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": level,
        "decoder": level,
        "model": bpe_model(vocab, merges, ignore_merges=PRES[pre].ignore_merges),
    }


def added_tokens(
    vocab: Mapping[str, int], added: Sequence[tuple[str, bool]]
) -> list[dict[str, Any]]:
    """The description's list of added tokens, by id."""
    options = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": vocab[text], "content": text, "special": special, **options}
        for text, special in sorted(added, key=lambda entry: vocab[entry[0]])
    ]


def bpe_model(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], **changes: Any
) -> dict[str, Any]:
    """The description's BPE model."""
    return {
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
        **changes,
    }


def _stages(part: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    if not part:
        return []
    return list(part.get(key) or []) if part.get("type") == "Sequence" else [part]
