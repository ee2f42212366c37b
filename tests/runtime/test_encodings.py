"""Texts are tokenized once, and forgotten when there are too many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from skillc_runtime.encodings import Encodings


class Tokenizer:
    """A token a character, and how often each text was tokenized."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, text: str) -> list[int]:
        self.asked.append(text)
        return [ord(character) for character in text]


def test_a_text_is_tokenized_once() -> None:
    tokenizer = Tokenizer()
    encode = Encodings(tokenizer)
    for _ in range(3):
        for text in ("one", "two", ""):
            assert list(encode(text)) == [ord(character) for character in text]
    assert tokenizer.asked == ["one", "two", ""]


def test_the_least_recently_used_go_first() -> None:
    tokenizer = Tokenizer()
    encode = Encodings(tokenizer, characters=40)
    for text in ("a" * 10, "b" * 10, "c" * 10, "d" * 10, "a" * 10, "e" * 10):
        encode(text)
    tokenizer.asked.clear()
    for text in ("a" * 10, "c" * 10, "d" * 10, "e" * 10):
        encode(text)
    assert not tokenizer.asked
    encode("b" * 10)
    assert tokenizer.asked == ["b" * 10]


def test_one_text_does_not_push_all_others_out() -> None:
    tokenizer = Tokenizer()
    encode = Encodings(tokenizer, characters=40)
    encode("short")
    for _ in range(2):
        assert len(encode("x" * 11)) == 11
    encode("short")
    assert tokenizer.asked == ["short", "x" * 11, "x" * 11]


def test_threads_get_their_own_text() -> None:
    encode = Encodings(Tokenizer(), characters=200)
    texts = [str(number) * 9 for number in range(1000, 1040)] * 50
    with ThreadPoolExecutor(8) as pool:
        for text, found in zip(texts, pool.map(encode, texts), strict=True):
            assert list(found) == [ord(character) for character in text]
