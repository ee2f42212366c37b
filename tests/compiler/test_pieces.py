"""Texts in pieces give the tokens of the whole, where a tokenizer puts a space in front too."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tests.compiler import stand_in
from tokenizers import Tokenizer

from skillc_compiler.families.chat_prompt import ChatPrompt
from skillc_compiler.pieces import control_ids, encode_pieces, puts_space, without_space
from skillc_runtime.llama import Model
from skillc_runtime.template import ChatTemplate

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
# As in real vocabularies, and unlike elsewhere in the small one, no token spans these words' ends.
TALK = [("user", "Deploy it"), ("assistant", "42 times"), ("user", " they")]
WHOLE = "<s>[INST] Deploy it [/INST] 42 times</s>[INST]  they [/INST]"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(stand_in.tokenizer_json("mistral"))


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def test_a_prompt_in_pieces_is_the_prompt(tokenizer: Tokenizer) -> None:
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    assert puts_space(tokenizer)
    made = ChatPrompt(TEMPLATE, tokenizer, names).ids(TALK)
    assert made == encode(tokenizer, WHOLE)
    assert len(made) < len([i for part in WHOLE.split(" ") for i in encode(tokenizer, part)])


def test_the_server_makes_the_same_prompt(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = stand_in.write_folder(tmp_path / "hf", "mistral")
    info = stand_in.write_gguf(folder, tmp_path / "base.gguf")
    model = Model(info.path, vocabulary_only=True)
    try:
        assert model.vocab.adds_space
        messages = [{"role": role, "content": content} for role, content in TALK]
        assert ChatTemplate(TEMPLATE, model.vocab).render(messages) == encode(tokenizer, WHOLE)
    finally:
        model.close()


@pytest.mark.parametrize(
    "pieces",
    [
        ["a", "b"],
        ["deploy ", "it"],
        ["deploy", " it"],
        ["deploy ", " it"],
        ["deploy", "\n", "it's"],
        ["</s>", "it", " it ", ""],
        ["", " ", "x", " "],
        ["x</s>", " y"],
        ["\n\nx", "\n\ny"],
    ],
)
def test_pieces_spell_the_whole(pieces: list[str], tokenizer: Tokenizer) -> None:
    own = partial(encode, tokenizer)
    made = encode_pieces(
        [(piece, own) for piece in pieces],
        adds_space=True,
        is_control=control_ids(tokenizer).__contains__,
    )
    assert len(made) == len(pieces)
    ids = [token for part in made for token in part]
    text = tokenizer.decode(ids, skip_special_tokens=False)
    whole = tokenizer.decode(own("".join(pieces)), skip_special_tokens=False)
    assert text.replace("</s> ", "</s>") == whole.replace("</s> ", "</s>")


def test_other_tokenizers_get_each_piece_as_it_is() -> None:
    plain = Tokenizer.from_str(stand_in.tokenizer_json("qwen2"))
    assert not puts_space(plain) and not puts_space(
        Tokenizer.from_str(stand_in.tokenizer_json("gemma"))
    )
    own = partial(encode, plain)
    pieces = [("deploy ", own), ("", own), ("it", own)]
    made = encode_pieces(pieces, adds_space=False, is_control=lambda token: False)
    assert made == [own("deploy "), [], own("it")]


def test_a_space_is_only_taken_off_where_it_is_known(tokenizer: Tokenizer) -> None:
    own = partial(encode, tokenizer)
    assert tokenizer.decode(without_space("it", own)) == "it"
    assert own("it")[0] != without_space("it", own)[0]

    def odd(text: str) -> list[int]:
        return [len(text)]

    assert without_space("it", odd) == [2]
