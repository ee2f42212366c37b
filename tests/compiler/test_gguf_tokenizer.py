"""The tokenizer in a base GGUF: the same ids in llama.cpp and in `tokenizers`."""

from __future__ import annotations

import json
import struct
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.compiler import tiny
from tests.compiler.llama import Llama
from tokenizers import Tokenizer

from skillc_compiler.bpe_tokenizer import PRES
from skillc_compiler.errors import BaseModelError
from skillc_compiler.gguf_header import read_header
from skillc_compiler.gguf_tokenizer import byte_alphabet, read_tokenizer, tokenizer_fields
from skillc_compiler.gguf_write import write_base_gguf

STRESS = list(tiny.stress_strings())
MARKED = [
    "<|im_start|>user\nhi<|im_end|>\n",
    "<tool_call>\n{}\n</tool_call><|im_end|>",
    "<tool_<tool_call>call></tool_call",
    "a<|endoftext|>b <|im_start| ><|im_end|>",
    " <|im_end|> \n<|im_end|>\u00e9",
    "[PAD515] <|im_END|>",
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_base(tmp_path_factory.mktemp("base") / "base.gguf").path


@pytest.fixture(scope="module")
def llama(path: Path) -> Iterator[Llama]:
    with Llama(path) as opened:
        yield opened


@pytest.mark.parametrize("special", [True, False])
def test_ids_equal_those_of_llama_cpp(path: Path, llama: Llama, special: bool) -> None:
    tokenizer = read_tokenizer(path)
    tokenizer.encode_special_tokens = not special
    assert len(STRESS) == 300
    for text in STRESS + MARKED:
        ids = tokenizer.encode(text).ids
        assert ids == llama.tokenize(unicodedata.normalize("NFC", text), special), repr(text)


def test_ids_equal_those_of_the_tokenizer_that_was_written(path: Path) -> None:
    original = Tokenizer.from_str(tiny.tokenizer_json())
    read = read_tokenizer(path)
    # U+017F folds to s: there Qwen2's own pattern and llama.cpp's part.
    for text in [*MARKED, *(text for text in STRESS if "\u017f" not in text)]:
        assert read.encode(text).ids == original.encode(text).ids, repr(text)
    assert read.get_vocab() == original.get_vocab()


def test_text_comes_back(path: Path) -> None:
    tokenizer = read_tokenizer(path)
    for text in STRESS:
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
    ids = tokenizer.encode("<tool_call>x</tool_call><|im_end|>").ids
    assert tokenizer.decode(ids) == "<tool_call>x</tool_call>"
    assert tokenizer.decode(ids, skip_special_tokens=False).endswith("<|im_end|>")


def test_special_tokens_keep_their_kind(path: Path) -> None:
    header = read_header(path)
    texts = header.fields["tokenizer.ggml.tokens"].value.strings()
    kinds = dict(
        zip(texts, header.fields["tokenizer.ggml.token_type"].value.numbers(), strict=True)
    )
    assert [kinds[t] for t in tiny.SPECIALS] == [3, 3, 3]
    assert [kinds[t] for t in tiny.MARKERS] == [4, 4]
    assert [kinds[t] for t in byte_alphabet()] == [1] * 256
    assert kinds["[PAD519]"] == 5


def test_merges_as_strings_or_pairs_are_the_same() -> None:
    parsed = json.loads(tiny.tokenizer_json())
    as_pairs = tokenizer_fields(parsed, 520, {})
    parsed["model"]["merges"] = [" ".join(m) for m in parsed["model"]["merges"]]
    assert tokenizer_fields(parsed, 520, {}) == as_pairs


def no_nfc(parsed: dict[str, Any]) -> None:
    parsed["normalizer"] = None


def other_split(parsed: dict[str, Any]) -> None:
    parsed["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\s+"


def plain_byte_level(parsed: dict[str, Any]) -> None:
    parsed["pre_tokenizer"] = parsed["pre_tokenizer"]["pretokenizers"][1]


def prefix_space(parsed: dict[str, Any]) -> None:
    parsed["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True


def template(parsed: dict[str, Any]) -> None:
    parsed["post_processor"] = {"type": "TemplateProcessing"}


def word_piece(parsed: dict[str, Any]) -> None:
    parsed["model"]["type"] = "WordPiece"


def ignore_merges(parsed: dict[str, Any]) -> None:
    parsed["model"]["ignore_merges"] = True


def lost_byte(parsed: dict[str, Any]) -> None:
    del parsed["model"]["vocab"]["A"]


def shared_id(parsed: dict[str, Any]) -> None:
    parsed["model"]["vocab"]["A"] = parsed["model"]["vocab"]["B"]


def moved_special(parsed: dict[str, Any]) -> None:
    parsed["added_tokens"][0]["id"] = 519


def stripping(parsed: dict[str, Any]) -> None:
    parsed["added_tokens"][0]["rstrip"] = True


@pytest.mark.parametrize(
    "damage",
    [
        no_nfc,
        other_split,
        plain_byte_level,
        prefix_space,
        template,
        word_piece,
        ignore_merges,
        lost_byte,
        shared_id,
        moved_special,
        stripping,
    ],
)
def test_tokenizers_that_llama_cpp_would_not_reproduce(
    damage: Callable[[dict[str, Any]], None],
) -> None:
    parsed = json.loads(tiny.tokenizer_json())
    damage(parsed)
    with pytest.raises(BaseModelError) as caught:
        tokenizer_fields(parsed, 520, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["qwen35", "llama-bpe", "tekken"])
def test_every_split_is_that_of_llama_cpp(tmp_path: Path, name: str) -> None:
    pre = PRES[name]
    parsed = json.loads(tiny.tokenizer_json())
    parsed["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pre.published
    parsed["normalizer"] = {"type": "NFC"} if pre.nfc else None
    parsed["model"]["ignore_merges"] = pre.ignore_merges
    values = tiny.config()
    target = tmp_path / "base.gguf"
    write_base_gguf(target, values, tiny.state(values), parsed, "", dtype="f16")
    read, original = read_tokenizer(target), Tokenizer.from_str(json.dumps(parsed))
    with Llama(target) as llama:
        assert llama_matches(read, llama, STRESS) == len(STRESS)
        # Where letters fold to ASCII ones, or have no case, published patterns and llama.cpp part.
        assert llama_matches(original, llama, STRESS) > 0.8 * len(STRESS)
        ascii_only = [text for text in STRESS if text.isascii()]
        assert llama_matches(original, llama, ascii_only) == len(ascii_only) > 30


def llama_matches(tokenizer: Tokenizer, llama: Llama, texts: list[str]) -> int:
    plain = [unicodedata.normalize("NFC", text) for text in texts]
    return sum(tokenizer.encode(text).ids == llama.tokenize(text, True) for text in plain)


def test_other_pre_tokenizers_are_not_guessed(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(path.read_bytes().replace(b"qwen2", b"gpt-2"))
    with pytest.raises(BaseModelError, match="gpt-2"):
        read_tokenizer(other)


def test_merges_outside_the_vocabulary_are_one_line(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    first = read_header(path).fields["tokenizer.ggml.merges"].value.strings()[0].encode()
    marked = struct.pack("<Q", len(first))
    start = path.read_bytes().index(b"tokenizer.ggml.merges")
    data = path.read_bytes()[start:].replace(marked + first, marked + b"~" * len(first), 1)
    other.write_bytes(path.read_bytes()[:start] + data)
    with pytest.raises(BaseModelError, match="not usable") as caught:
        read_tokenizer(other)
    assert "\n" not in str(caught.value)
